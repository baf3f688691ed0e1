"""What a command line names as images and videos, and which files are damaged."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from deformable_vit.engine import UserError
from deformable_vit.engine.inputs import UnreadableError, Video, check_readable, find_inputs, swap_channels


def write(path: Path, size: tuple[int, int] = (40, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write_video(path: Path, frames: int = 10, code: str = 'MJPG') -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), 5, (64, 48))
    for i in range(frames):
        writer.write(np.full((48, 64, 3), 20 * (i % 10), np.uint8))
    writer.release()
    return path


def test_a_directory_gives_its_images_in_order(tmp_path: Path) -> None:
    for name in ('b.jpg', 'a.PNG', 'c.tif', '.hidden.jpg', 'sub/d.jpg'):
        write(tmp_path / name)
    (tmp_path / 'notes.txt').touch()
    (tmp_path / 'directory.jpg').mkdir()
    (tmp_path / 'film.mp4').touch()
    (tmp_path / 'link.jpg').symlink_to(tmp_path / 'gone.jpg')  # fails later, by name, and is not skipped
    found = find_inputs([str(tmp_path)])
    assert [one.path.name for one in found] == ['a.PNG', 'b.jpg', 'c.tif', 'link.jpg']
    assert [one.drawn_name for one in found] == ['a.PNG', 'b.jpg', 'c.png', 'link.jpg']


def test_patterns_match_subdirectories_and_a_file_counts_once(tmp_path: Path) -> None:
    for name in ('x/1.jpg', 'y/1.jpg', 'y/z/1.png', 'y/[1].jpg'):
        write(tmp_path / name)
    (tmp_path / 'y' / 'film.avi').touch()
    found = find_inputs([str(tmp_path / '**' / '*'), str(tmp_path / 'x' / '1.jpg')])
    paths = ['x/1.jpg', 'y/1.jpg', 'y/[1].jpg', 'y/film.avi', 'y/z/1.png']
    assert [one.path.relative_to(tmp_path).as_posix() for one in found] == paths
    assert [one.name for one in found] == ['1', '1_2', '[1]', 'film', '1_3']
    assert [one.is_video for one in found] == [False, False, False, True, False]
    assert found[3].drawn_name == 'film.mp4'
    (bracket,) = find_inputs([str(tmp_path / 'y' / '[1].jpg')])  # a file with this name, not a pattern
    assert bracket.path.name == '[1].jpg'


def test_names_of_outputs_are_unique(tmp_path: Path) -> None:
    paths = [write(tmp_path / name) for name in ('a_2.jpg', 'a.jpg', 'a.png', 'a.bmp')]
    names = [one.name for one in find_inputs([str(path) for path in paths])]
    assert names == ['a_2', 'a', 'a_3', 'a_4']


@pytest.mark.parametrize(
    ('argument', 'words'),
    [
        ('nowhere.jpg', 'input nowhere.jpg does not exist'),
        ('a' * 300 + '.jpg', 'input a+.jpg: File name too long'),
        ('~nobody_of_this_name/x.jpg', 'input ~nobody_of_this_name/x.jpg: .*home directory'),
        ('*.jpg', r'input \*.jpg matches no image'),
        ('empty', 'input empty has no images .*subdirectories'),
        ('https://host/image.jpg', 'does not exist; download it first'),
    ],
)
def test_what_names_nothing_is_an_error(
    argument: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'empty').mkdir()
    with pytest.raises(UserError, match=words):
        find_inputs([argument])


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.webp', '.tif', '.bmp'])
def test_truncated_images_are_found(suffix: str, tmp_path: Path) -> None:
    """OpenCV reads the beginning of a truncated JPEG and fills the rest with gray."""
    path = write(tmp_path / f'image{suffix}')
    check_readable(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(UnreadableError):
        check_readable(path)


def test_reasons_for_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / 'empty.jpg').touch()
    with pytest.raises(UnreadableError, match='the file is empty'):
        check_readable(tmp_path / 'empty.jpg')
    with pytest.raises(UnreadableError, match='No such file'):
        check_readable(tmp_path / 'gone.jpg')
    if os.geteuid():
        path = write(tmp_path / 'secret.jpg')
        path.chmod(0)
        with pytest.raises(UnreadableError, match='Permission denied'):
            check_readable(path)


def test_images_that_pillow_finds_too_large_are_left_to_opencv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    path = write(tmp_path / 'large.png')
    for limit in (1000, 100):  # a warning beyond the limit, an error beyond twice the limit
        monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', limit)
        check_readable(path)
    assert not recwarn.list


def test_directories_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr(Path, 'iterdir', refuse)
    with pytest.raises(UserError, match=f'input {tmp_path}: Permission denied'):
        find_inputs([str(tmp_path)])


def test_channels_of_gray_images_are_not_columns() -> None:
    gray, color = np.arange(6, dtype=np.uint8).reshape(2, 3), np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    np.testing.assert_array_equal(swap_channels(gray), np.stack([gray] * 3, axis=-1))
    np.testing.assert_array_equal(swap_channels(color), color[..., ::-1])


def test_frames_of_a_video(tmp_path: Path) -> None:
    video = Video(write_video(tmp_path / 'film.avi'))
    assert (len(video), video.fps) == (10, 5)
    frames = list(video)
    assert [round(float(frame.mean()) / 20) for frame in frames] == list(range(10))


def test_a_truncated_video_gives_its_frames_and_an_error(tmp_path: Path) -> None:
    path = write_video(tmp_path / 'film.avi', frames=40)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames = []
    with pytest.raises(UnreadableError, match=r'the video ends after \d+ of 40 frames|no video'):
        frames.extend(Video(path))
    (tmp_path / 'text.mp4').write_text('no video')
    with pytest.raises(UnreadableError, match='no video'):
        Video(tmp_path / 'text.mp4')
