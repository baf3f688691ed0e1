"""Predict on images and videos with a detector, segmentor or classifier: drawn images, and one file of JSON.

The exit status is 1 if a file could not be read; the others are done then, and the last lines name it.
"""

import argparse
import glob
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
from mmengine.device import get_device
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from deformable_vit.apis.command_line import add_config_options, config_errors, one_line_errors
from deformable_vit.apis.config import load_config
from deformable_vit.apis.drawing import draw_prediction
from deformable_vit.apis.inference import TASKS, Predictor
from deformable_vit.apis.prediction_formats import FORMATS, check_format, write_format
from deformable_vit.apis.tiles import TiledPredictor, check_tiles
from deformable_vit.checkpoints import write_atomically
from deformable_vit.engine import write_label_map
from deformable_vit.errors import UserError, first_line

IMAGES = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif', '.tiff', '.webp')  # of mmdet's inferencer
Image.MAX_IMAGE_PIXELS = None  # large images are no attack here
VIDEOS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg', '.wmv')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file with the model and its test pipeline')
    parser.add_argument('checkpoint', help="checkpoint of the config's model, of this project or official")
    parser.add_argument('inputs', nargs='+', metavar='INPUT', help='image, directory of images, glob pattern, or video')
    parser.add_argument('--out', required=True, metavar='DIR', help='directory for vis/, label_maps/, predictions.json')
    parser.add_argument('--overwrite', action='store_true', help='replace files of an earlier run in --out')
    parser.add_argument('--no-images', action='store_true', help='do not draw images and videos')
    parser.add_argument('--score-thr', type=float, default=0.3, help='least score of a box (default: %(default)s)')
    parser.add_argument(
        '--batch-size', type=int, default=1, metavar='N', help='images or tiles per forward (default: 1)'
    )
    parser.add_argument('--format', choices=FORMATS, help='also write the boxes as annotations for other tools')
    parser.add_argument('--tile', type=int, metavar='PIXELS', help='detect in tiles of this width and height, too')
    parser.add_argument('--overlap', type=float, help='of neighboring tiles, as a fraction (default: 0.2)')
    parser.add_argument('--device', help='cpu, cuda or cuda:N (default: cuda if there is a GPU)')
    add_config_options(parser)
    return parser.parse_args()


def find_inputs(arguments: Sequence[str]) -> dict[Path, str]:
    """Return the images and videos that the arguments name, each with the name of its drawn file, which is unique.

    A directory gives its images, without its subdirectories; ``**`` in a pattern matches subdirectories.
    """
    names: dict[Path, str] = {}
    for argument in arguments:
        path = Path(argument).expanduser()
        found = [path]
        if path.is_dir() or (not path.exists() and glob.has_magic(argument)):
            kinds = IMAGES if path.is_dir() else IMAGES + VIDEOS
            found = sorted(path.iterdir() if path.is_dir() else map(Path, glob.glob(str(path), recursive=True)))
            found = [p for p in found if p.suffix.lower() in kinds and p.name[0] != '.' and not p.is_dir()]
            if not found:
                raise UserError(f'input {argument} has no images ({", ".join(IMAGES)})')
        elif not path.exists() and not path.is_symlink():
            raise UserError(f'input {argument} does not exist')
        for one in found:
            names.setdefault(one, one.stem + ('.mp4' if one.suffix.lower() in VIDEOS else '.jpg'))
    stems = Counter(Path(name).stem for name in names.values())  # a/1.jpg and b/1.jpg
    return {one: name if stems[Path(name).stem] == 1 else f'{i}_{name}' for i, (one, name) in enumerate(names.items())}


def check_outputs(out: Path, inputs: Iterable[Path], overwrite: bool) -> None:
    """Check that no file of the user's is lost, and create the directory of the drawn images."""
    if not overwrite and out.is_dir() and not all(path.is_dir() for path in out.rglob('*')):
        raise UserError(
            f'--out {out} is not empty; choose another, or pass --overwrite to replace files of the same name'
        )
    for path in inputs:
        if {(out / 'vis').resolve(), (out / 'label_maps').resolve()} & set(path.resolve().parents):
            raise UserError(f'--out {out}: the input {path} could be overwritten; choose another directory')
    (out / 'vis').mkdir(parents=True, exist_ok=True)


def frames_of(path: Path) -> Iterator[tuple[dict[str, Any], str | np.ndarray]]:
    """Yield the path of an image, or the frames of a video in BGR, each with what it is; damaged files are errors."""
    if path.suffix.lower() not in VIDEOS:
        try:
            with Image.open(path) as image:
                image.load()  # OpenCV fills what a truncated file lacks with gray
        except UnidentifiedImageError:
            if path.suffix.lower() not in ('.tif', '.tiff'):  # of bands and types that only other readers have
                raise
        yield dict(image=str(path)), str(path)
        return
    video, count = mmcv.VideoReader(str(path)), 0
    for count, frame in enumerate(video, 1):
        yield dict(video=str(path), frame=count - 1), frame
    # The announced number is duration times rate, which is not exact for every file.
    if count == 0 or count < 0.95 * video.frame_cnt - 1:
        raise ValueError(f'the video ends after {count} of {video.frame_cnt} frames')


class Run:
    """The predictions so far, and what failed."""

    def __init__(self, predictor: Predictor, names: dict[Path, str], out: Path, draw: bool) -> None:
        self.predictor, self.names, self.out, self.draw = predictor, names, out, draw
        self.records: list[dict[str, Any]] = []
        self.failed: list[dict[str, Any]] = []
        self.videos: dict[Path, cv2.VideoWriter] = {}

    def predict(self, batch: list[tuple[dict[str, Any], str | np.ndarray]]) -> None:
        """Predict a batch, and if that fails one image after the other; write what comes out."""
        try:
            samples = self.predictor.predict([image for _, image in batch])
        except Exception as error:  # what transforms and models raise for an image that they cannot handle
            if len(batch) == 1:
                self.failed.append(batch[0][0] | dict(reason=first_line(error)))
                return
            for one in batch:
                self.predict([one])
            return
        for (what, image), sample in zip(batch, samples, strict=True):
            try:
                self.records.append(self.write(what, image, sample))
            except Exception as error:
                self.failed.append(what | dict(reason=first_line(error)))

    def write(self, what: dict[str, Any], image: str | np.ndarray, sample: Any) -> dict[str, Any]:
        """Write label map and drawn image of a prediction, and return its record."""
        path, (height, width) = Path(what.get('image') or what['video']), sample.ori_shape[:2]
        record = dict(what, width=width, height=height, **self.predictor.record(sample))
        json.dumps(record, allow_nan=False)
        if 'pred_sem_seg' in sample:
            labels = sample.pred_sem_seg.data[0].numpy()
            frame = f'/{what["frame"]:06}' if 'frame' in what else ''
            record['label_map'] = f'label_maps/{Path(self.names[path]).stem}{frame}.png'
            write_label_map(labels, self.out / record['label_map'], len(self.predictor.classes))
        if self.draw:
            record['drawn'] = f'vis/{self.names[path]}'
            drawn = draw_prediction(self.predictor.model, self.predictor.rgb(image), sample)
            drawn = np.ascontiguousarray(drawn[..., ::-1])
            file = f'{self.out}/{record["drawn"]}'
            if 'frame' in what and path not in self.videos:
                rate, code = mmcv.VideoReader(str(path)).fps or 25, cv2.VideoWriter.fourcc(*'mp4v')
                self.videos[path] = cv2.VideoWriter(file, code, rate, drawn.shape[1::-1])
            self.videos[path].write(drawn) if 'frame' in what else mmcv.imwrite(drawn, file)
        return record


def run_predictions(args: argparse.Namespace) -> None:
    config, out, inputs = load_config(args.config, args.cfg_options), Path(args.out), find_inputs(args.inputs)
    if '://' not in args.checkpoint and not Path(args.checkpoint).is_file():
        raise UserError(f'checkpoint {args.checkpoint} does not exist')
    if args.format:
        videos = [path for path in inputs if path.suffix.lower() in VIDEOS]
        check_format(args.format, config, inputs, videos)
    overlap = 0.2 if args.overlap is None else args.overlap
    if args.tile is not None:
        check_tiles(config, args.tile, overlap)
    elif args.overlap is not None:
        raise UserError(f'--overlap {args.overlap} is that of tiles; add --tile PIXELS')
    check_outputs(out, inputs, args.overwrite)
    with config_errors(args.config, lambda: False):
        options = (config, args.checkpoint, args.device or get_device(), args.score_thr)
        if args.tile is None:
            predictor = Predictor(*options)
        else:
            predictor = TiledPredictor(*options, args.tile, overlap, args.batch_size)

    run, batch, complete = Run(predictor, inputs, out, not args.no_images), [], False
    try:
        for path in tqdm(inputs, unit='file', disable=None):
            try:
                for one in frames_of(path):
                    batch.append(one)
                    if len(batch) >= args.batch_size:
                        run.predict(batch)
                        batch = []
            except (ValueError, OSError, SyntaxError) as error:
                kind, reason = 'video' if path.suffix.lower() in VIDEOS else 'image', getattr(error, 'strerror', None)
                run.failed.append({kind: str(path), 'reason': reason or str(error)})
        if batch:
            run.predict(batch)
        complete = True
    finally:  # also after Ctrl-C
        for video in run.videos.values():
            video.release()
        found = dict(task=TASKS[config.default_scope][0], config=args.config, checkpoint=args.checkpoint)
        found |= dict(classes=predictor.classes, predictions=run.records, failed=run.failed, complete=complete)
        write_atomically(out / 'predictions.json', json.dumps(found).encode())
        where = write_format(args.format, out, predictor.classes, run.records) if args.format else ''
    print(f'{len(run.records)} predictions: {out / "predictions.json"}', flush=True)
    if where:
        print(f'{args.format}: {where}', flush=True)
    if run.failed:
        reasons = {one.get('image') or one['video']: one['reason'] for one in run.failed}
        print(f'{Path(sys.argv[0]).name}: {len(reasons)} of {len(inputs)} inputs failed:', file=sys.stderr)
        print('\n'.join(f'  {name}: {reason}' for name, reason in reasons.items()), file=sys.stderr)
        sys.exit(1)


@one_line_errors
def main() -> None:
    try:
        run_predictions(parse_args())
    except OSError as error:
        raise UserError(f'{error.filename}: {error.strerror}') from error


if __name__ == '__main__':
    main()
