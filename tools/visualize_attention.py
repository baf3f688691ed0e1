"""Show where a model looks in an image: sampling locations, patches and attention as one self-contained HTML page."""

import argparse
import io
import json
import os
from pathlib import Path
from typing import Any

from mmengine.config import Config

from deformable_vit.apis.command_line import add_config_options, config_errors, one_line_errors
from deformable_vit.apis.config import load_config
from deformable_vit.apis.drawing import draw_prediction
from deformable_vit.apis.inference import load_model, select
from deformable_vit.checkpoints import write_atomically
from deformable_vit.errors import UserError
from deformable_vit.visualization import Recording, View, build_page, draw, layer_title, record, to_json


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('config', help='config of mmdet, mmseg or mmpretrain')
    add('checkpoint', help="checkpoint of the config's model, official or of this project")
    add('image', help='image file')
    add('--out', metavar='HTML', help='the page (default without other outputs: work_dirs/attention/IMAGE.html)')
    add('--png', metavar='FILE', help='save a figure of the query as PNG')
    add('--svg', metavar='FILE', help='save a figure of the query as SVG')
    add('--json', metavar='FILE', help='save locations, and the attention of the query, of all layers')
    add('--overwrite', action='store_true', help='replace files that exist')
    add(
        '--query', type=float, nargs=2, metavar=('X', 'Y'), help='pixel (default: the best object of a DETR, or center)'
    )
    add('--stage', type=int, help='stage of the view, 1 to 4; 0 for layers outside the backbone')
    add('--block', type=int, help='block of the view, from 1; 0 for the patch embedding')
    heads = parser.add_mutually_exclusive_group()
    heads.add_argument('--head', type=int, metavar='N', help='head of the view, from 1 (default: the mean of all)')
    heads.add_argument('--group', type=int, metavar='N', help='group of heads of the view, from 1 (default: all)')
    add('--top', type=int, default=100, metavar='K', help='strongest sampling locations to draw (default: %(default)s)')
    add(
        '--blocks', nargs='+', default=(), metavar='STAGE.BLOCK', help='blocks that the page has (default: up to 30 MB)'
    )
    add('--score-thr', type=float, default=0.3, help='least score of a predicted object (default: %(default)s)')
    add_config_options(parser)
    return parser.parse_args()


def check_files(outputs: dict[str, Path], inputs: dict[str, str], overwrite: bool) -> None:
    """Check that the inputs exist, and that no file of the user's is lost."""
    seen: dict[Path, str] = {}
    for what, name in inputs.items():
        if '://' not in name and not Path(name).is_file():
            raise UserError(f'{what} {name} does not exist')
        seen[Path(name).resolve()] = f'the {what}'
    for option, file in outputs.items():
        if taken := seen.get(file.resolve()):
            raise UserError(f'{option} {file} is {taken}; choose another file')
        if file.is_dir() or (file.exists() and not overwrite):
            hint = 'is a directory; name a file' if file.is_dir() else 'exists already; pass --overwrite to replace it'
            raise UserError(f'{option} {file} {hint}')
        seen[file.resolve()] = f'the file of {option}'
    for file in outputs.values():
        file.resolve().parent.mkdir(parents=True, exist_ok=True)


def record_image(config: Config, args: argparse.Namespace) -> tuple[Recording, Any]:
    """Run the model on the image; return what it used, and the model."""
    model = load_model(config, args.checkpoint)
    if config.default_scope == 'mmseg' and model.test_cfg.get('mode') == 'slide':
        print('the config tests crops one by one; here the model sees the whole image at once')
        model.test_cfg['mode'] = 'whole'
    recording = record(model, args.image)
    if not recording.layers:
        name = type(model.backbone).__name__
        raise UserError(f'{name} has no layers to show: only DAT, DPT, PVT and multi-scale deformable attention have')
    height, width = recording.size
    if args.query and not (0 <= args.query[0] < width and 0 <= args.query[1] < height):
        raise UserError(f'--query {args.query} is outside the image of {width} x {height} pixels')
    return recording, model


def choose(recording: Recording, args: argparse.Namespace) -> tuple[View, list[int]]:
    """Return the view that the options ask for, and the layers that ``--blocks`` names."""
    layers = recording.layers
    view = View.of(recording)
    view.query = tuple(args.query or view.query)
    found = [i for i, x in enumerate(layers) if args.stage in (None, x.stage) and args.block in (None, x.block)]
    keep = [i for i, x in enumerate(layers) if f'{x.stage}.{x.block}' in args.blocks]
    names = ', '.join(dict.fromkeys(f'{x.stage}.{x.block} ({x.kind})' for x in layers))
    if not found or {f'{layers[i].stage}.{layers[i].block}' for i in keep} < set(args.blocks):
        raise UserError(f'the model has no such --stage, --block or --blocks; it has {names}')
    if (args.stage, args.block) != (None, None):
        view.layer = found[-1]
    view.top, layer = args.top, layers[view.layer]
    for name, count in (('head', layer.heads), ('group', layer.groups)):
        if (number := getattr(args, name)) is not None:
            if not 1 <= number <= count:
                raise UserError(f'--{name} {number}: this {layer.kind} layer has {count}; choose 1 to {count}')
            setattr(view, name, number - 1)
    return view, keep


def visualize(args: argparse.Namespace) -> None:
    outputs = {f'--{kind}': Path(file) for kind in ('png', 'svg', 'json', 'out') if (file := getattr(args, kind))}
    outputs = outputs or {'--out': Path('work_dirs', 'attention', f'{Path(args.image).stem}.html')}
    inputs = dict(config=args.config, checkpoint=args.checkpoint, image=args.image)
    config = load_config(args.config, args.cfg_options)
    check_files(outputs, inputs, args.overwrite)
    with config_errors(f'{args.config}, image {args.image}', lambda: False):  # or the image is unreadable
        recording, model = record_image(config, args)
    view, keep = choose(recording, args)
    name = f'{type(model).__name__} with {type(model.backbone).__name__}'
    # Names on Linux are bytes; the page is text.
    subtitle = ', '.join(os.fsencode(Path(file).name).decode(errors='replace') for file in inputs.values())
    for option, file in outputs.items():
        data = io.BytesIO()
        if option == '--json':
            data.write(json.dumps(to_json(recording.size, recording.layers, view.query), allow_nan=False).encode())
        elif option == '--out':
            assert recording.image is not None
            drawn = draw_prediction(model, recording.image, select(recording.output.cpu(), args.score_thr))
            page = build_page(recording, view, name, subtitle, model.dataset_meta['classes'], drawn, keep=keep)
            data.write(page.encode())
        else:
            title = f'{name}, {layer_title(recording.layers[view.layer])}; {subtitle}'
            draw(recording, view, title).savefig(data, format=option[2:])
        write_atomically(file, data.getvalue())
        print(f'{len(data.getvalue()) / 1e6:.1f} MB: {os.fsencode(file).decode(errors="replace")}')


@one_line_errors
def main() -> None:
    try:
        visualize(parse_args())
    except OSError as error:  # a name that is too long, a full disk
        raise UserError(f'{error.filename}: {error.strerror}') from error


if __name__ == '__main__':
    main()
