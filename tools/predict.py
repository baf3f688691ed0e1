"""Predict on images and videos with a detector, segmentor or classifier: drawn images, and one file of JSON.

The exit status is 1 if a file could not be read; the others are done then, and the last lines name it.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _progress import Display

from deformable_vit.checkpoints import CheckpointError
from deformable_vit.engine import (
    RunProgress,
    UserError,
    add_config_options,
    load_config,
    one_line_errors,
    quiet_console,
)
from deformable_vit.engine.cli import TRACEBACK, first_line
from deformable_vit.engine.inference import build_predictor
from deformable_vit.engine.inputs import find_inputs, is_file
from deformable_vit.engine.model import check_device
from deformable_vit.engine.predict import predict
from deformable_vit.engine.predictions import DRAWN, JSON, LABEL_MAPS, Outputs, PredictionsFile, check_outputs


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file with the model and its test pipeline')
    parser.add_argument('checkpoint', help="checkpoint of the config's model, of this project or official")
    parser.add_argument(
        'inputs',
        nargs='+',
        metavar='INPUT',
        help='image, directory of images (without its subdirectories), glob pattern, or video file',
    )
    parser.add_argument(
        '--out',
        required=True,
        metavar='DIR',
        help=f'directory for {DRAWN}/ (drawn images and videos), {LABEL_MAPS}/ (semantic segmentation: PNG), {JSON}',
    )
    parser.add_argument('--json', metavar='FILE', help=f'file for the predictions (default: {JSON} in --out)')
    parser.add_argument('--overwrite', action='store_true', help='replace files of an earlier run in --out')
    parser.add_argument('--no-images', action='store_true', help='do not draw images and videos')
    parser.add_argument(
        '--score-thr',
        type=float,
        metavar='SCORE',
        help='detection: leave boxes with lower scores out of images and predictions (default: 0.3; 0 keeps all)',
    )
    parser.add_argument('--batch-size', type=int, default=1, metavar='N', help='images per forward (default: 1)')
    parser.add_argument('--device', help='cpu, cuda or cuda:N (default: cuda if there is a GPU)')
    add_config_options(parser)
    return parser.parse_args()


@one_line_errors
@quiet_console()
def main() -> None:
    args = parse_args()
    if args.batch_size < 1:
        raise UserError(f'--batch-size must be at least 1, got {args.batch_size}')
    if args.score_thr is not None and not 0 <= args.score_thr <= 1:
        raise UserError(f'--score-thr must be from 0 to 1, got {args.score_thr}')
    inputs = find_inputs(args.inputs)
    device = check_device(args.device)
    out = Path(args.out)
    file = Path(args.json) if args.json else out / JSON
    if '://' not in args.checkpoint and not is_file('checkpoint', args.checkpoint):
        raise UserError(f'checkpoint {args.checkpoint} does not exist')
    is_file('config', args.config)  # load_config says more about a missing one
    config = load_config(args.config, args.cfg_options)
    if args.score_thr is not None and config.default_scope != 'mmdet':
        raise UserError(f'--score-thr is for detection, and config {args.config} is for {config.default_scope}')
    check_outputs(out, file, inputs, args.overwrite)
    try:
        predictor = build_predictor(config, args.checkpoint, device, 0.3 if args.score_thr is None else args.score_thr)
    except Exception as error:  # a config is a program: building what it says can raise anything
        if os.environ.get(TRACEBACK) or isinstance(error, (UserError, CheckpointError)):
            raise
        raise UserError(f'config {args.config}: {first_line(error)} ({TRACEBACK}=1 shows the traceback)') from error

    header = dict(task=predictor.task, config=args.config, checkpoint=args.checkpoint, classes=predictor.classes)
    with Display() as display, PredictionsFile(file, header) as predictions:
        total = sum(one.count() for one in inputs)
        task = display.start('predict', unit='image')
        predict(
            predictor,
            inputs,
            Outputs(out, predictions, draw=not args.no_images),
            args.batch_size,
            lambda done: display.update(task, RunProgress('test', min(done, total), total)),
        )
        display.finish(task)

    drawn = '' if args.no_images else f', images in {out / DRAWN}'
    print(f'{predictions.count} predictions: {file}{drawn}')
    sys.stdout.flush()
    if predictions.failed:
        lines = failures(predictions.failed)
        names = {failure.get('image', failure.get('video')) for failure in predictions.failed}
        print(f'{Path(sys.argv[0]).name}: {len(names)} of {len(inputs)} inputs failed:', file=sys.stderr)
        for line in lines:
            print(f'  {line}', file=sys.stderr)
        sys.exit(1)


def failures(failed: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line for each input that failed; frames of a video that failed for the same reason share one."""
    frames: dict[tuple[str, str], list[int]] = {}
    for failure in failed:
        found = frames.setdefault((failure.get('image', failure.get('video')), failure['reason']), [])
        found += [failure['frame']] if 'frame' in failure else []
    lines = []
    for (name, reason), numbers in frames.items():
        more = f' and {len(numbers) - 1} more' if len(numbers) > 1 else ''
        lines.append(f'{name}{f", frame {numbers[0]}{more}" if numbers else ""}: {reason}')
    return lines


if __name__ == '__main__':
    main()
