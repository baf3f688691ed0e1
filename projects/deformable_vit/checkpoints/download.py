"""Downloads that continue where they broke off; a file under its own name is whole."""

import os
import re
import sys
import time
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from filelock import FileLock
from mmengine.logging import print_log

from ..errors import CheckpointError, first_line, shown

_TIMEOUT = 30  # seconds without a byte
_CHUNK = 1 << 20
_DRIVE = re.compile(r'https://drive\.google\.com/(?:file/d/|open\?id=|uc\?(?:.*&)?id=)([\w-]+)')
_SEAFILE = re.compile(r'https?://[^/]+/f/[0-9a-f]+/?')


def download(url: str, path: Path, check: Callable[[Path], object] | None = None) -> None:
    """Download a file, unless it exists; one of several processes does, and the others wait.

    It grows as ``PATH.part``, from which a later call continues, and gets its name when it is whole.

    Args:
        url: A file, or the page of a file on Google Drive or in a Seafile cloud.
        path: Where to save it.
        check: Raises a ``CheckpointError`` for a whole file that is not what the name says. It is removed.

    Raises:
        CheckpointError: No network, no such file, no space, a web page instead of a file; the message follows a name.
    """
    partial = path.with_name(f'{path.name}.part')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f'.{path.name}.lock')):
            if path.exists():
                return
            print_log(f'downloading {shown(url)} to {path}', 'current')
            if found := _DRIVE.match(url):
                _fetch_from_drive(found[1], partial)
            else:
                _fetch(direct_url(url), partial)
            if check is not None:
                try:
                    check(partial)
                except CheckpointError:
                    partial.unlink()
                    raise
            os.replace(partial, path)
    except OSError as error:
        raise CheckpointError(f'cannot be downloaded: {first_line(error)}') from error


def direct_url(url: str) -> str:
    """Return the URL of the file for the link to its page in a Seafile cloud; others stay."""
    return f'{url.rstrip("/")}/?dl=1' if _SEAFILE.fullmatch(url) else url


def _fetch(url: str, partial: Path) -> None:
    """Receive the rest of a file, as often as the connection breaks off after some of it."""
    while True:
        before = _size(partial)
        try:
            total = _receive(url, partial)
            if total is None or _size(partial) == total:
                return
            problem = f'it broke off at {_size(partial)} of {total} bytes'
        except HTTPError as error:
            raise CheckpointError(f'cannot be downloaded: the server answers {error.code} {error.reason}') from error
        except (OSError, HTTPException) as error:
            problem = first_line(error)
        if _size(partial) <= before:
            rest = f'; {partial} has {before} bytes, from which the next try continues' if before else ''
            raise CheckpointError(f'cannot be downloaded: {problem}{rest}')
        time.sleep(1)


def _receive(url: str, partial: Path) -> int | None:
    """Append to a partial file what follows it, and return the size of the whole one if the server tells it."""
    from tqdm import tqdm  # the backbones need it for downloads alone

    offset = _size(partial)
    headers = {'User-Agent': 'deformable-vit', 'Accept-Encoding': 'identity'}
    if offset:
        headers['Range'] = f'bytes={offset}-'
    try:
        response = urlopen(Request(url, headers=headers), timeout=_TIMEOUT)
    except HTTPError as error:
        if not offset or error.code != 416:
            raise
        if (total := _total(error.headers)) == offset:
            return total
        partial.unlink()  # of another file
        return _receive(url, partial)
    with response:
        first = response.read1(_CHUNK)
        if response.headers.get_content_type() == 'text/html' or _is_page(first):
            raise CheckpointError(f'cannot be downloaded: {shown(url)} is a web page, not a file')
        start = re.match(r'bytes (\d+)-', response.headers.get('Content-Range', ''))
        resumes = response.status == 206 and start is not None and int(start[1]) == offset
        if response.status == 206 and not resumes:
            raise CheckpointError('cannot be downloaded: the server sends another part of the file than asked for')
        total = _total(response.headers)
        with (
            partial.open('ab' if resumes else 'wb') as file,
            tqdm(
                desc=partial.stem,
                total=total,
                initial=offset if resumes else 0,
                unit='B',
                unit_scale=True,
                unit_divisor=1024,
                disable=None,
            ) as bar,
        ):
            while first:
                file.write(first)
                bar.update(len(first))
                first = response.read1(_CHUNK)
            file.flush()
            os.fsync(file.fileno())
    return total


def _total(headers: Any) -> int | None:
    """Return the size of the whole file, of which a response may be the end."""
    whole = headers.get('Content-Range', '').rpartition('/')[2] or headers.get('Content-Length', '')
    return int(whole) if whole.isdecimal() else None


def _is_page(start: bytes) -> bool:
    return start.lstrip()[:9].lower().startswith((b'<!doctype', b'<html'))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _fetch_from_drive(file_id: str, partial: Path) -> None:
    """Download from Google Drive, whose large files lie behind a page; gdown keeps a partial file of its own."""
    try:
        import gdown
    except ImportError as error:
        raise CheckpointError(
            "cannot be downloaded: Google Drive needs the package gdown: pip install 'deformable-vit[weights]'"
        ) from error
    try:
        gdown.download(
            id=file_id,
            output=str(partial),
            resume=True,
            quiet=not sys.stderr.isatty(),
            timeout=_TIMEOUT,
            retries=2,
        )
    except Exception as error:  # its own, and those of requests
        raise CheckpointError(f'cannot be downloaded: {first_line(error)}') from error
