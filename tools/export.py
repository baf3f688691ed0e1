"""Export a model to ONNX or OpenVINO, and check the file against the model."""

import argparse
import logging
from pathlib import Path

from deformable_vit.apis.command_line import add_config_options, config_errors, one_line_errors
from deformable_vit.apis.config import load_config
from deformable_vit.apis.console import quiet_log
from deformable_vit.errors import UserError
from deformable_vit.export import Options, export


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('config', help='config file of a detector, segmentor or classifier')
    add('checkpoint', help="checkpoint of the config's model, of this project or official")
    add('--out', type=Path, required=True, metavar='FILE', help='file to write, .onnx or .xml; it must not exist')
    add('--format', choices=('onnx', 'openvino'), help='(default: by the suffix of --out)')
    add('--part', choices=('backbone',), help='export the backbone alone, with its feature maps')
    add(
        '--shape',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help='fix height and width, and a batch of 1 (default: 800 1344 for detectors, dynamic for other models)',
    )
    add('--dynamic', action='store_true', help='dynamic batch, height and width for detectors, too')
    add('--argmax', action='store_true', help='segmentation: a label map instead of logits')
    add('--raw', action='store_true', help="detection: the heads' outputs, without decoding")
    add('--with-preprocessing', action='store_true', help='take uint8 images; normalize and pad them in the file')
    add('--no-check', action='store_true', help='do not run the file beside the model')
    add_config_options(parser)
    return parser.parse_args()


@one_line_errors
def main() -> None:
    args = parse_args()
    quiet_log()
    for name in ('onnx_ir', 'onnxscript'):  # they warn of what the exporter itself writes
        logging.getLogger(name).setLevel(logging.ERROR)
    suffix = dict(onnx='.onnx', openvino='.xml').get(args.format, args.out.suffix)
    if args.out.suffix != suffix:
        raise UserError(f'--out {args.out}: files of --format {args.format} end in {suffix}')
    config = load_config(args.config, args.cfg_options)
    options = Options(
        shape=tuple(args.shape) if args.shape else None,
        dynamic=args.dynamic,
        part=args.part,
        argmax=args.argmax,
        raw=args.raw,
        with_preprocessing=args.with_preprocessing,
        check=not args.no_check,
    )
    with config_errors(args.config, lambda: False):
        print(export(config, args.checkpoint, args.out, options, Path(args.config).stem), flush=True)


if __name__ == '__main__':
    main()
