"""Show where a model looks in an image: sampling locations, patches and attention as one self-contained HTML page."""

import argparse
import io
import json
import os
import time
from pathlib import Path

from _attention_outputs import check_outputs, printable, write
from _attention_views import check_head_and_group, check_view, choose_blocks, choose_layer
from mmengine.config import Config
from torch import nn
from tqdm import tqdm

from deformable_vit.checkpoints import CheckpointError
from deformable_vit.engine import UserError, adapt_to_device, add_config_options, load_config, one_line_errors
from deformable_vit.engine.cli import TRACEBACK, first_line
from deformable_vit.engine.console import quiet_console
from deformable_vit.engine.inputs import is_file
from deformable_vit.engine.model import load_model
from deformable_vit.visualization import (
    MODES,
    Layer,
    PageInfo,
    Recording,
    View,
    build_page,
    draw,
    read_predictions,
    record,
    to_json,
)


def number_or_all(text: str) -> int | None:
    """Return a number from 1 on, or None for ``all``."""
    if text == 'all':
        return None
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text!r} is neither a number from 1 on nor all')
    return int(text)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config of mmdet, mmseg or mmpretrain')
    parser.add_argument('checkpoint', help="checkpoint of the config's model, official or of this project")
    parser.add_argument('image', help='image file')
    parser.add_argument(
        '--out',
        metavar='HTML',
        help='the page (default: work_dirs/attention/IMAGE.html, unless another output is asked for)',
    )
    parser.add_argument('--png', metavar='FILE', help='save one view as PNG')
    parser.add_argument('--svg', metavar='FILE', help='save one view as SVG')
    parser.add_argument(
        '--json', metavar='FILE', help='save locations, and the attention of the query, of all layers as JSON'
    )
    parser.add_argument('--overwrite', action='store_true', help='replace files that exist')
    parser.add_argument(
        '--query',
        type=float,
        nargs=2,
        metavar=('X', 'Y'),
        help='pixel of the image (default: the center of the best object of a DETR decoder, else of the image)',
    )
    parser.add_argument('--stage', type=int, help='stage of the view, 1 to 4; 0 for layers outside the backbone')
    parser.add_argument('--block', type=int, help='block of the view, from 1; 0 for the patch embedding')
    parser.add_argument(
        '--head',
        type=number_or_all,
        default='all',
        metavar='N|all',
        help='head of the view, from 1 (default: all, the mean)',
    )
    parser.add_argument(
        '--group', type=number_or_all, default='all', metavar='N|all', help='group of heads of the view, from 1'
    )
    parser.add_argument('--mode', choices=MODES, default='query', help='kind of view (default: %(default)s)')
    parser.add_argument(
        '--top', type=int, default=100, metavar='K', help='strongest sampling locations to draw (default: %(default)s)'
    )
    parser.add_argument(
        '--blocks',
        nargs='+',
        default=(),
        metavar='STAGE.BLOCK',
        help='blocks whose attention the page holds, whatever its size (default: what fits into 30 MB)',
    )
    parser.add_argument('--size', type=int, metavar='PIXELS', help="limit of the longer side of the network's input")
    parser.add_argument(
        '--score-thr', type=float, default=0.3, help='least score of a predicted object (default: %(default)s)'
    )
    add_config_options(parser)
    args = parser.parse_args()
    if args.size is not None and args.size < 32:
        parser.error(f'--size must be at least 32, got {args.size}')
    if args.top < 1:
        parser.error(f'--top must be at least 1, got {args.top}')
    return args


def main_record(config: Config, model: nn.Module, args: argparse.Namespace) -> Recording:
    """Run the model on the image.

    Raises:
        UserError: The image or the config does not allow it.
    """
    model.cfg = config
    if config.default_scope == 'mmseg' and model.test_cfg.get('mode') == 'slide':
        print('the config tests crops one by one; here the model sees the whole image at once')
        model.test_cfg['mode'] = 'whole'
    try:
        recording = record(model, args.image, args.size)
    except UserError:
        raise
    except Exception as error:
        if os.environ.get(TRACEBACK):
            raise
        raise UserError(f'image {args.image}: {first_line(error)}') from error
    if not recording.layers:
        name = type(model.backbone).__name__
        raise UserError(
            f'config {args.config}: {name} has no layers to show; this tool shows DAT, DPT, PVT, PVT v2 and '
            'multi-scale deformable attention'
        )
    try:
        recording.check_finite()
    except ValueError as error:
        raise UserError(f'checkpoint {args.checkpoint}: {error}') from error
    height, width = recording.size
    if args.query and not (0 <= args.query[0] < width and 0 <= args.query[1] < height):
        raise UserError(
            f'--query {args.query[0]:g} {args.query[1]:g} is outside the image of {width} x {height} pixels'
        )
    return recording


@one_line_errors
def main() -> None:
    args = parse_args()
    outputs = {f'--{kind}': file for kind in ('png', 'svg', 'json', 'out') if (file := getattr(args, kind))}
    outputs = outputs or {'--out': f'work_dirs/attention/{Path(args.image).stem}.html'}
    with quiet_console():
        is_file('config', args.config)  # load_config says more about a missing one
        config = load_config(args.config, args.cfg_options)
        for what, name in (('image', args.image), ('checkpoint', args.checkpoint)):
            if not ('://' in name and what == 'checkpoint') and not is_file(what, name):
                raise UserError(f'{what} {name} does not exist')
        inputs = dict(image=args.image, config=args.config, checkpoint=args.checkpoint)
        check_outputs(outputs, inputs, args.overwrite)
        config.model.backbone.pop('init_cfg', None)
        adapt_to_device(config, 'none')
        try:
            model = load_model(config, args.checkpoint)
        except Exception as error:  # a config is a program: building what it says can raise anything
            if os.environ.get(TRACEBACK) or isinstance(error, (UserError, CheckpointError)):
                raise
            raise UserError(f'config {args.config}: {first_line(error)} ({TRACEBACK}=1 shows the traceback)') from error
        recording = main_record(config, model, args)
    layers = recording.layers
    chosen, kept = choose_layer(layers, args), choose_blocks(layers, args.blocks)
    # Without --stage and --block, the page and the files show the same layer.
    info = PageInfo(
        model=f'{type(model).__name__} with {type(model.backbone).__name__}',
        subtitle=', '.join(printable(Path(name).name) for name in (args.config, args.checkpoint, args.image)),
        weights=printable(Path(args.checkpoint).name),
        file=printable(Path(args.image).stem),
        query=tuple(args.query) if args.query else recording.default_query(),
        layer=chosen,
        mode=args.mode,
        top=args.top,
    )
    layer = layers[info.first(layers)]
    info.head, info.group = check_head_and_group(layer, args)
    check_view(layer, args.mode)
    write_files(outputs, recording, layer, info)
    if '--out' in outputs:
        start = time.monotonic()
        predictions = read_predictions(recording.output, model.dataset_meta.get('classes') or (), args.score_thr)
        with tqdm(total=len(layers), desc='layers', unit='layer', leave=False, disable=None) as bar:
            try:
                page = build_page(
                    recording, info, predictions, keep=kept, progress=lambda done, _: bar.update(done - bar.n)
                )
            except ValueError as error:  # a prediction that is not finite
                raise UserError(f'image {args.image}: {first_line(error)}') from error
        write(outputs['--out'], page.encode())
        print(f'{len(page) / 1e6:.1f} MB in {time.monotonic() - start:.1f} s: {printable(outputs["--out"])}')


def write_files(outputs: dict[str, str], recording: Recording, layer: Layer, info: PageInfo) -> None:
    """Write the figure of a layer, and the JSON file of all layers, where they are asked for."""
    query = info.query or recording.default_query()
    if '--png' in outputs or '--svg' in outputs:
        view = View(query, info.mode, info.head, info.group, info.top)
        figure = draw(recording, layer, view, f'{info.model}, {layer.name}; {info.subtitle}')
        for kind in ('png', 'svg'):
            if file := outputs.get(f'--{kind}'):
                data = io.BytesIO()
                figure.savefig(data, format=kind)
                write(file, data.getvalue())
                print(printable(file))
    if file := outputs.get('--json'):
        write(file, json.dumps(to_json(recording.size, recording.layers, query), allow_nan=False).encode())
        print(printable(file))


if __name__ == '__main__':
    main()
