"""Images and videos that a command line names: files, directories and glob patterns."""

import glob
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from .cli import UserError

# The suffixes of mmdet's DetInferencer, in lower case.
IMAGES = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif', '.tiff', '.webp')
VIDEOS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg', '.wmv')
# Suffixes that a drawn image keeps; others become .png.
_WRITTEN = ('.jpg', '.jpeg', '.png', '.webp')


class UnreadableError(Exception):
    """A file that is no image or video, or is damaged; the message is the reason."""


@dataclass(frozen=True)
class Input:
    """An image or a video.

    Attributes:
        path: As the user wrote it, or below the directory that the user named.
        is_video: Whether it is a video, judged by the suffix.
        name: Name of the outputs, without suffix; no other input has it.
    """

    path: Path
    is_video: bool
    name: str

    @property
    def drawn_name(self) -> str:
        """Return the file name of the drawn image or video."""
        if self.is_video:
            return f'{self.name}.mp4'
        suffix = self.path.suffix
        return self.name + (suffix if suffix.lower() in _WRITTEN else '.png')

    def where(self) -> dict[str, str]:
        """Return the path under the key ``image`` or ``video``, for JSON."""
        return {'video' if self.is_video else 'image': str(self.path)}

    def count(self) -> int:
        """Return 1 for an image, and for a video the number of frames that it announces."""
        if not self.is_video:
            return 1
        try:
            return max(len(Video(self.path)), 1)
        except UnreadableError:
            return 1


def is_file(what: str, name: str) -> bool:
    """Return whether a file exists.

    Args:
        what: Its role, for the message.
        name: As the user wrote it.

    Raises:
        UserError: No file can have this name, or its directory may not be searched.
    """
    try:
        return Path(name).expanduser().is_file()
    except (OSError, RuntimeError) as error:
        raise UserError(f'{what} {name}: {reason_of(error)}') from error


def reason_of(error: OSError | RuntimeError) -> str:
    """Return the reason of an error about a file, without the name of the file."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def find_inputs(arguments: Sequence[str]) -> list[Input]:
    """Return the images and videos that the arguments name, each once, in the order of the arguments.

    Args:
        arguments: Files; directories, whose images (not videos, nothing hidden or in subdirectories) are taken in the
            order of their names, as mmdet's inferencers do; glob patterns, in which ``**`` matches subdirectories.

    Raises:
        UserError: An argument names nothing, or cannot be looked up.
    """
    paths: dict[Path, None] = {}
    for argument in arguments:
        try:
            paths.update(dict.fromkeys(_expand(argument)))
        except (OSError, RuntimeError) as error:  # RuntimeError: ~ of a user who does not exist
            raise UserError(f'input {argument}: {reason_of(error)}') from error
    names: set[str] = set()
    inputs = []
    for path in paths:
        name, count = path.stem, 1
        while name in names:  # a/1.jpg and b/1.jpg, or 1.jpg and 1.png
            count += 1
            name = f'{path.stem}_{count}'
        names.add(name)
        inputs.append(Input(path, path.suffix.lower() in VIDEOS, name))
    return inputs


def _expand(argument: str) -> list[Path]:
    path = Path(argument).expanduser()
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if _is_kind(p, IMAGES))
        if not found:
            raise UserError(
                f'input {argument} has no images ({", ".join(IMAGES)}); for those in its subdirectories pass '
                f"'{path / '**' / '*'}', for videos their files"
            )
        return found
    if path.exists() or path.is_symlink():
        return [path]
    if glob.has_magic(argument):
        found = sorted(p for p in map(Path, glob.glob(str(path), recursive=True)) if _is_kind(p, IMAGES + VIDEOS))
        if not found:
            raise UserError(f'input {argument} matches no image ({", ".join(IMAGES)}) and no video')
        return found
    hint = '; download it first' if '://' in argument else ''
    raise UserError(f'input {argument} does not exist{hint}')


def _is_kind(path: Path, suffixes: tuple[str, ...]) -> bool:
    return path.suffix.lower() in suffixes and not path.name.startswith('.') and not path.is_dir()


def check_readable(path: Path) -> None:
    """Raise an error for a damaged image: OpenCV fills what a truncated file lacks with gray.

    Raises:
        UnreadableError: The file cannot be opened, or is empty or truncated.
    """
    try:
        if path.stat().st_size == 0:
            raise UnreadableError('the file is empty')
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', Image.DecompressionBombWarning)
            with Image.open(path) as image:
                image.load()
    except (UnidentifiedImageError, Image.DecompressionBombError):
        return  # OpenCV may know the format, and reads images that Pillow finds too large
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for damaged files
        reason = error.strerror if isinstance(error, OSError) else None
        raise UnreadableError(reason or f'the file is damaged: {error}') from error


def swap_channels(image: np.ndarray) -> np.ndarray:
    """Return an image (H, W, 3) with its channels swapped between BGR and RGB; (H, W) becomes gray (H, W, 3)."""
    if image.ndim == 2:  # a pipeline that loads with color_type='grayscale'
        image = image[..., None].repeat(3, axis=-1)
    return np.ascontiguousarray(image[..., ::-1])


class Video:
    """Frames of a video as (H, W, 3) BGR images; iterate over it once.

    Raises:
        UnreadableError: The file is no video; while iterating, it ends before its last frame.
    """

    def __init__(self, path: Path) -> None:
        self.capture = cv2.VideoCapture(str(path))
        if not self.capture.isOpened():
            raise UnreadableError('it is no video, or in a format that OpenCV does not read')
        self.fps = self.capture.get(cv2.CAP_PROP_FPS) or 25.0

    def __len__(self) -> int:
        """Return the number of frames that the file announces, 0 if it announces none."""
        return max(round(self.capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)

    def __iter__(self) -> Iterator[np.ndarray]:
        announced, count = len(self), 0
        while True:
            is_read, frame = self.capture.read()
            if not is_read:
                break
            count += 1
            yield frame
        self.capture.release()
        # The announced number is duration times rate, which is not exact for every file.
        if count == 0 or count < 0.95 * announced - 1:
            raise UnreadableError(f'the video ends after {count} of {announced} frames')
