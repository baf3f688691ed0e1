"""The files of ``tools/predict.py``: drawn images and videos, label maps, and one file of JSON."""

import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import cv2
import mmcv
import numpy as np
from PIL import Image

from .cli import TRACEBACK, UserError
from .inference import Predictor
from .inputs import Input, reason_of

DRAWN, LABEL_MAPS, JSON = 'vis', 'label_maps', 'predictions.json'


def check_outputs(out: Path, file: Path, inputs: Sequence[Input], overwrite: bool) -> None:
    """Make the output directory, and check that no file of the user's is lost.

    Args:
        out: Directory of drawn images and label maps.
        file: JSON file.
        inputs: Images and videos.
        overwrite: Whether files of an earlier run may be replaced; inputs may never.

    Raises:
        UserError: The directory is not empty, or the file exists; one of them cannot be written; an input would be
            overwritten.
    """
    try:
        _check_paths(out, file, inputs, overwrite)
        out.mkdir(parents=True, exist_ok=True)
        file.parent.mkdir(parents=True, exist_ok=True)
        for directory in (out, file.parent):
            if not os.access(directory, os.W_OK):
                raise PermissionError(None, 'Permission denied', str(directory))
    except (OSError, RuntimeError) as error:  # RuntimeError: a symbolic link that leads to itself
        where = getattr(error, 'filename', None)
        raise UserError(f'--out {out} cannot be written: {reason_of(error)}{f" ({where})" if where else ""}') from error


def _check_paths(out: Path, file: Path, inputs: Sequence[Input], overwrite: bool) -> None:
    replace = 'choose another, or pass --overwrite to replace files of the same name'
    if out.is_dir() and not overwrite and any(out.iterdir()):
        raise UserError(f'--out {out} is not empty; {replace}')
    if file.exists() and not overwrite:
        raise UserError(f'--json {file} exists already; {replace}')
    if file.is_dir():
        raise UserError(f'--json {file} is a directory; name a file')
    written = {(out / DRAWN / one.drawn_name).resolve() for one in inputs}
    written |= {(out / LABEL_MAPS / f'{one.name}.png').resolve() for one in inputs}
    if file.resolve() in {(out / name).resolve() for name in (DRAWN, LABEL_MAPS)} | written:
        raise UserError(f'--json {file} is a file or directory that is written for other results; choose another')
    # Label maps of a video's frames have a directory of their own.
    frames = {(out / LABEL_MAPS / one.name).resolve() for one in inputs if one.is_video}
    for one in inputs:
        path = one.path.resolve()
        if path in written | {file.resolve()} or path.parent in frames:
            raise UserError(f'--out {out}: the input {one.path} would be overwritten; choose another directory')


class PredictionsFile:
    """Write predictions to a file of JSON one at a time; use it as a context manager.

    The file gets its name at the end, also when the run is interrupted: it is then complete JSON, with
    ``"complete": false``.
    """

    def __init__(self, file: Path, header: dict[str, Any]) -> None:
        self.file = file
        self.failed: list[dict[str, Any]] = []
        self.count = 0
        self.partial, self.opened = _open_partial(file)
        self.opened.write(json.dumps(header)[:-1] + ',\n"predictions": [')

    def add(self, record: dict[str, Any]) -> None:
        """Write a prediction.

        Raises:
            ValueError: A number is not finite.
        """
        try:
            line = json.dumps(record, allow_nan=False)
        except ValueError as error:
            raise ValueError('a predicted number is infinite or not a number') from error
        self.opened.write(f'{"," if self.count else ""}\n{line}')
        self.count += 1

    def __enter__(self) -> 'PredictionsFile':
        return self

    def __exit__(self, kind: type[BaseException] | None, _error: object, _traceback: TracebackType | None) -> None:
        rest = json.dumps(dict(failed=self.failed, complete=kind is None))
        try:
            self.opened.write(f'\n],\n{rest[1:]}\n')
            self.opened.close()
            os.replace(self.partial, self.file)
        except OSError as error:
            raise UserError(f'{self.file} cannot be written: {error.strerror}') from error


def _open_partial(file: Path) -> tuple[Path, TextIO]:
    """Create a file beside another one under a name that no file has."""
    for number in itertools.count():
        partial = file.with_name(f'{file.name}.{number}.part')
        try:
            return partial, partial.open('x')
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(f'{file} cannot be written: {error.strerror}') from error
    raise AssertionError


class _VideoWriter:
    """Write frames to an MP4 file; it is created with the first frame."""

    def __init__(self, file: Path, fps: float) -> None:
        self.file, self.fps = file, fps
        self.writer: cv2.VideoWriter | None = None

    def add(self, frame: np.ndarray) -> None:
        """Add a frame (H, W, 3), BGR.

        Raises:
            UserError: OpenCV cannot write videos here.
        """
        if self.writer is None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            code = cv2.VideoWriter.fourcc(*'mp4v')
            self.writer = cv2.VideoWriter(str(self.file), code, self.fps, frame.shape[1::-1])
            if not self.writer.isOpened():
                raise UserError(f'OpenCV cannot write {self.file}; pass --no-images to write predictions only')
        self.writer.write(frame)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.release()
            self.writer = None


@dataclass
class Job:
    """An image (H, W, 3), BGR, or a frame of a video, and what the test pipeline makes of it."""

    source: Input
    frame: int | None
    image: np.ndarray
    data: dict[str, Any]

    def where(self) -> dict[str, Any]:
        return self.source.where() | ({} if self.frame is None else {'frame': self.frame})


class Outputs:
    """Where predictions go.

    Args:
        out: Directory of drawn images and label maps.
        file: All predictions.
        draw: Whether to draw images and videos.
    """

    def __init__(self, out: Path, file: PredictionsFile, draw: bool = True) -> None:
        self.out, self.file, self.draw = out, file, draw
        self.video: _VideoWriter | None = None

    def write(self, predictor: Predictor, job: Job, sample: Any) -> None:
        """Write a prediction.

        Raises:
            UserError: A file cannot be written.
            ValueError: A number of the prediction is not finite.
        """
        source = job.source
        height, width = job.image.shape[:2]
        record: dict[str, Any] = dict(job.where(), width=width, height=height, **predictor.record(sample))
        try:
            if (labels := predictor.label_map(sample)) is not None:
                frame = '' if job.frame is None else f'/{job.frame:06}'
                record['label_map'] = f'{LABEL_MAPS}/{source.name}{frame}.png'
                (self.out / record['label_map']).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(labels).save(self.out / record['label_map'])
            if self.draw:
                record['drawn'] = f'{DRAWN}/{source.drawn_name}'
                self._write_drawn(self.out / record['drawn'], predictor.draw(job.image, sample))
        except OSError as error:
            raise UserError(f'--out {self.out} cannot be written: {error.strerror or error}') from error
        self.file.add(record)

    def _write_drawn(self, file: Path, drawn: np.ndarray) -> None:
        if self.video is not None:
            self.video.add(drawn)
        elif not mmcv.imwrite(drawn, str(file)):
            raise OSError(f'OpenCV cannot write {file}')

    def fail(self, where: dict[str, Any], reason: str, error: Exception | None = None) -> None:
        """Note what has no prediction, and why."""
        if error is not None and os.environ.get(TRACEBACK):
            raise error
        self.file.failed.append(where | {'reason': reason})

    def begin(self, source: Input, fps: float) -> None:
        """Begin a video."""
        self.video = _VideoWriter(self.out / DRAWN / source.drawn_name, fps) if self.draw else None

    def end(self) -> None:
        """End the video."""
        if self.video is not None:
            self.video.close()
            self.video = None
