"""Downloads end with the whole file or with an error, and continue where they broke off."""

import socket
import sys
import threading
import types
from pathlib import Path

import pytest
from file_server import FileServer

from deformable_vit.checkpoints import download as module
from deformable_vit.checkpoints.download import direct_url, download
from deformable_vit.errors import CheckpointError

CONTENT = bytes(range(97, 197))
DRIVE = 'https://drive.google.com/file/d/1Wku-anD_x/view?usp=sharing'


@pytest.fixture(autouse=True)
def _content(server: FileServer) -> None:
    server.content = CONTENT


def partial(path: Path, content: bytes) -> Path:
    path.with_name(f'{path.name}.part').write_bytes(content)
    return path


def visible(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if not path.name.startswith('.'))


@pytest.mark.parametrize('habit', ['/file', '/redirect', '/f/0a/', '/f/0a/?dl=1', '/no-range', '/slow'])
def test_the_whole_file_arrives_under_its_name(server: FileServer, tmp_path: Path, habit: str) -> None:
    path = tmp_path / 'new' / 'x.pth'
    download(server.url(habit), path)
    assert path.read_bytes() == CONTENT
    assert visible(path.parent) == ['x.pth']
    download(server.url('/404'), path)  # it exists
    assert server.asked[0] == ('/f/0a/?dl=1' if habit.startswith('/f/') else habit, None)


def test_a_connection_that_breaks_off_is_continued(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.time, 'sleep', lambda _: None)
    download(server.url('/breaks'), tmp_path / 'x.pth')
    assert (tmp_path / 'x.pth').read_bytes() == CONTENT
    assert [asked for _, asked in server.asked] == [None, 'bytes=50-', 'bytes=75-', 'bytes=87-']


@pytest.mark.parametrize(
    ('habit', 'first', 'asked'),
    [
        ('/file', CONTENT[:60], ['bytes=60-']),
        ('/no-range', CONTENT[:60], ['bytes=60-']),
        ('/file', CONTENT, ['bytes=100-']),  # killed before the name was given
        ('/file', b'of another file' * 9, ['bytes=135-', None]),
    ],
    ids=['half', 'without ranges', 'whole', 'longer'],
)
def test_a_later_run_continues(server: FileServer, tmp_path: Path, habit: str, first: bytes, asked: list) -> None:
    path = partial(tmp_path / 'x.pth', first)
    download(server.url(habit), path)
    assert path.read_bytes() == CONTENT
    assert visible(tmp_path) == ['x.pth']
    assert [header for _, header in server.asked] == asked


@pytest.mark.parametrize(
    ('habit', 'message'),
    [
        ('/gone', 'the server answers 404'),
        ('/page', 'is a web page, not a file'),
        ('/page-as-file', 'is a web page, not a file'),
        ('/stalls', 'broke off at 50 of 100 bytes.* from which the next try continues'),
    ],
)
def test_what_is_not_the_whole_file_gets_no_name(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, habit: str, message: str
) -> None:
    monkeypatch.setattr(module.time, 'sleep', lambda _: None)
    with pytest.raises(CheckpointError, match=message) as caught:
        download(server.url(habit), partial(tmp_path / 'x.pth', CONTENT[:10]))
    assert '\n' not in str(caught.value)
    assert visible(tmp_path) == ['x.pth.part']
    assert (tmp_path / 'x.pth.part').read_bytes() == CONTENT[: 50 if habit == '/stalls' else 10]


def test_without_a_network_the_line_says_so(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(('127.0.0.1', 0))
        url = f'http://127.0.0.1:{unused.getsockname()[1]}/file'
        with pytest.raises(CheckpointError, match='cannot be downloaded: URLError: .*refused'):
            download(url, tmp_path / 'x.pth')
    assert visible(tmp_path) == []


def test_a_file_that_does_not_pass_its_check_is_removed(server: FileServer, tmp_path: Path) -> None:
    seen: list[bytes] = []

    def refuse(path: Path) -> None:
        seen.append(path.read_bytes())
        raise CheckpointError('is of another model')

    with pytest.raises(CheckpointError, match='of another model'):
        download(server.url('/file'), tmp_path / 'x.pth', refuse)
    assert seen == [CONTENT]
    assert visible(tmp_path) == []


def test_one_of_several_processes_downloads(server: FileServer, tmp_path: Path) -> None:
    url = server.url('/slow')
    threads = [threading.Thread(target=download, args=(url, tmp_path / 'x.pth')) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.asked == [('/slow', None)]
    assert (tmp_path / 'x.pth').read_bytes() == CONTENT


def test_google_drive_is_left_to_gdown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    gdown = types.ModuleType('gdown')

    def fetch(id: str, output: str, resume: bool, quiet: bool, timeout: float, retries: int) -> str:
        asked.append(id)
        if len(asked) == 1:
            raise RuntimeError('too many\nusers')
        Path(output).write_bytes(CONTENT)
        return output

    gdown.download = fetch
    monkeypatch.setitem(sys.modules, 'gdown', None)
    with pytest.raises(CheckpointError, match=r"pip install 'deformable-vit\[weights\]'"):
        download(DRIVE, tmp_path / 'x.pth')
    monkeypatch.setitem(sys.modules, 'gdown', gdown)
    with pytest.raises(CheckpointError, match='RuntimeError: too many users'):
        download(DRIVE, tmp_path / 'x.pth')
    download(DRIVE, tmp_path / 'x.pth')
    assert asked == ['1Wku-anD_x'] * 2
    assert visible(tmp_path) == ['x.pth']


def test_links_of_seafile_clouds_become_downloads() -> None:
    assert direct_url('https://cloud.example.org/f/01ab/') == 'https://cloud.example.org/f/01ab/?dl=1'
    assert direct_url('https://cloud.example.org/f/01ab') == 'https://cloud.example.org/f/01ab/?dl=1'
    for url in ('https://cloud.example.org/f/01ab/?dl=1', 'https://example.org/f/x.pth', 'https://example.org/d/01ab/'):
        assert direct_url(url) == url
