"""Show where a model looks in an image: sampling locations, patches and attention as one self-contained HTML page."""

import argparse
import io
import json
import os
from pathlib import Path

from mmengine.config import Config

from deformable_vit.apis.inference import load_model
from deformable_vit.checkpoints import write_atomically
from deformable_vit.apis.command_line import add_config_options, one_line_errors
from deformable_vit.apis.config import load_config
from deformable_vit.apis.console import quiet_warnings
from deformable_vit.errors import UserError
from deformable_vit.errors import first_line
from deformable_vit.visualization import Recording, View, build_page, draw, read_overlay, record, to_json

MODES = ('query', 'locations', 'received', 'displacement')


def number_or_all(text: str) -> int | None:
    """Return the index of a number from 1 on, or None for ``all``."""
    if text != 'all' and (not text.isdigit() or int(text) < 1):
        raise argparse.ArgumentTypeError(f'{text!r} is neither a number from 1 on nor all')
    return None if text == 'all' else int(text) - 1


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
    add('--head', type=number_or_all, metavar='N|all', help='head of the view, from 1 (default: all, the mean)')
    add('--group', type=number_or_all, metavar='N|all', help='group of heads of the view, from 1')
    add(
        '--mode',
        choices=MODES,
        default='query',
        help='what the page shows first (default: %(default)s)',
    )
    add('--top', type=int, default=100, metavar='K', help='strongest sampling locations to draw (default: %(default)s)')
    add('--blocks', nargs='+', default=(), metavar='STAGE.BLOCK', help='blocks whose attention the page holds')
    add('--size', type=int, metavar='PIXELS', help="limit of the longer side of the network's input")
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
        if what := seen.get(file.resolve()):
            raise UserError(f'{option} {file} is {what}; choose another file')
        if file.is_dir() or (file.exists() and not overwrite):
            hint = 'is a directory; name a file' if file.is_dir() else 'exists already; pass --overwrite to replace it'
            raise UserError(f'{option} {file} {hint}')
        seen[file.resolve()] = f'the file of {option}'
    for file in outputs.values():
        file.resolve().parent.mkdir(parents=True, exist_ok=True)


def record_image(config: Config, args: argparse.Namespace) -> tuple[Recording, str, list[str]]:
    """Run the model on the image; return what it used, its name and its classes."""
    model = load_model(config, args.checkpoint)
    if config.default_scope == 'mmseg' and model.test_cfg.get('mode') == 'slide':
        print('the config tests crops one by one; here the model sees the whole image at once')
        model.test_cfg['mode'] = 'whole'
    recording, name = record(model, args.image, args.size), type(model.backbone).__name__
    if not recording.layers:
        raise UserError(f'{name} has no layers to show: only DAT, DPT, PVT and multi-scale deformable attention have')
    height, width = recording.size
    if args.query and not (0 <= args.query[0] < width and 0 <= args.query[1] < height):
        raise UserError(f'--query {args.query} is outside the image of {width} x {height} pixels')
    return recording, f'{type(model).__name__} with {name}', [str(c) for c in model.dataset_meta['classes']]


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
    view.mode, view.head, view.top = args.mode, args.head, args.top
    view.group = args.group if args.head is None else None
    layer = layers[view.layer]
    if args.mode not in layer.modes:
        raise UserError(f'--mode {args.mode}: {layer.kind} has no such mode; choose from {", ".join(layer.modes)}')
    for name in ('head', 'group'):
        value, count = getattr(args, name), getattr(layer, f'{name}s', 1)
        if value is not None and value >= count:
            raise UserError(f'--{name} {value + 1}: this {layer.kind} layer has {count}; choose 1 to {count}, or all')
    return view, keep


def visualize(args: argparse.Namespace) -> None:
    outputs = {f'--{kind}': Path(file) for kind in ('png', 'svg', 'json', 'out') if (file := getattr(args, kind))}
    outputs = outputs or {'--out': Path('work_dirs', 'attention', f'{Path(args.image).stem}.html')}
    inputs = dict(config=args.config, checkpoint=args.checkpoint, image=args.image)
    config = load_config(args.config, args.cfg_options)
    check_files(outputs, inputs, args.overwrite)
    try:
        with quiet_console():
            recording, model, classes = record_image(config, args)
    except UserError:
        raise
    except Exception as error:  # a config is a program, and an image may be unreadable
        raise UserError(f'config {args.config}, image {args.image}: {first_line(error)}') from error
    view, keep = choose(recording, args)
    # Names on Linux are bytes; the page is text.
    names = [os.fsencode(Path(name).name).decode(errors='replace') for name in inputs.values()]
    for option, file in outputs.items():
        data = io.BytesIO()
        if option == '--json':
            data.write(json.dumps(to_json(recording.size, recording.layers, view.query), allow_nan=False).encode())
        elif option == '--out':
            overlay = read_overlay(recording.output, classes, args.score_thr)
            page = build_page(recording, view, model, ', '.join(names), Path(names[-1]).stem, overlay, keep=keep)
            data.write(page.encode())
        else:
            title = f'{model}, {recording.layers[view.layer].name}; {", ".join(names)}'
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
