"""Show where a model looks in an image: sampling locations, patches and attention as one self-contained HTML page."""

import argparse
import json
import os
import time
from pathlib import Path

from _attention_views import check_head_and_group, choose_blocks, choose_layer
from mmengine.config import Config
from torch import nn
from tqdm import tqdm

from deformable_vit.checkpoints import CheckpointError
from deformable_vit.engine import UserError, adapt_to_device, add_config_options, load_config, one_line_errors
from deformable_vit.engine.cli import TRACEBACK, first_line
from deformable_vit.engine.console import quiet_console
from deformable_vit.engine.model import load_model
from deformable_vit.visualization import PageInfo, Recording, View, build_page, draw, read_predictions, record, to_json
from deformable_vit.visualization.figure import MODES


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
    parser.add_argument(
        '--query', type=float, nargs=2, metavar=('X', 'Y'), help='pixel of the image (default: its center)'
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
    parser.add_argument('--mode', choices=MODES, default='query', help='what the view shows (default: %(default)s)')
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
    except Exception as error:
        if os.environ.get(TRACEBACK):
            raise
        raise UserError(f'image {args.image}: {first_line(error)}') from error
    if not recording.layers:
        name = type(model.backbone).__name__
        raise UserError(f'config {args.config}: {name} has no attention or patches that this tool can show')
    height, width = recording.size
    if args.query and not (0 <= args.query[0] < width and 0 <= args.query[1] < height):
        raise UserError(
            f'--query {args.query[0]:g} {args.query[1]:g} is outside the image of {width} x {height} pixels'
        )
    return recording


@one_line_errors
def main() -> None:
    args = parse_args()
    with quiet_console():
        config = load_config(args.config, args.cfg_options)
        if not Path(args.image).is_file():
            raise UserError(f'image {args.image} does not exist')
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
        subtitle=f'{Path(args.config).name}, {Path(args.checkpoint).name}, {Path(args.image).name}',
        weights=Path(args.checkpoint).name,
        file=Path(args.image).stem,
        query=tuple(args.query) if args.query else None,
        layer=chosen,
        mode=args.mode,
        top=args.top,
    )
    info.head, info.group = check_head_and_group(layers[info.first(layers)], args)
    write_files(args, recording, info)
    out = args.out or (None if args.png or args.svg or args.json else f'work_dirs/attention/{info.file}.html')
    if out:
        start = time.monotonic()
        predictions = read_predictions(recording.output, model.dataset_meta.get('classes') or (), args.score_thr)
        with tqdm(total=len(layers), desc='layers', unit='layer', leave=False, disable=None) as bar:
            page = build_page(
                recording, info, predictions, keep=kept, progress=lambda done, _: bar.update(done - bar.n)
            )
        write(out, page)
        print(f'{len(page) / 1e6:.1f} MB in {time.monotonic() - start:.1f} s: {out}')


def write_files(args: argparse.Namespace, recording: Recording, info: PageInfo) -> None:
    """Write ``--png``, ``--svg`` and ``--json``."""
    height, width = recording.size
    query = info.query or ((width - 1) / 2, (height - 1) / 2)
    layer = recording.layers[info.first(recording.layers)]
    if args.png or args.svg:
        view = View(query, info.mode, info.head, info.group, info.top)
        title = f'{info.model}, {layer.name}; {info.subtitle}'
        try:
            figure = draw(recording, layer, view, title)
        except ValueError as error:
            raise UserError(f'--mode {args.mode}: {error}') from error
        for file, kind in ((args.png, 'png'), (args.svg, 'svg')):
            if file:
                Path(file).parent.mkdir(parents=True, exist_ok=True)
                figure.savefig(file, format=kind)
                print(file)
    if args.json:
        write(args.json, json.dumps(to_json(recording.size, recording.layers, query)))
        print(args.json)


def write(file: str, text: str) -> None:
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_text(text, encoding='utf-8')


if __name__ == '__main__':
    main()
