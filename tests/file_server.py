"""A local server with the habits of those that hold weights."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

PAGE = b'\n<!DOCTYPE html><title>Sign in</title>'


class FileServer(ThreadingHTTPServer):
    """Serve ``content`` at each path, in the manner that the path names; ``asked`` has path and range of requests.

    ``/file``, ``/redirect``, ``/f/0a/?dl=1`` (a page without the query), ``/no-range``, ``/slow``, ``/breaks`` (half of
    what is asked for, until little is left), ``/stalls`` (half, always), ``/page``, ``/page-as-file``; other paths 404.
    """

    content = b''

    def __init__(self) -> None:
        super().__init__(('127.0.0.1', 0), _Handler)
        self.asked: list[tuple[str, str | None]] = []

    def url(self, path: str) -> str:
        return f'http://127.0.0.1:{self.server_port}{path}'


class _Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers['Range']))
        match self.path:
            case '/redirect':
                self.send_response(302)
                self.send_header('Location', '/f/0a/?dl=1')
                self.end_headers()
            case '/file' | '/slow' | '/breaks' | '/stalls' | '/no-range':
                self._send_file()
            case '/f/0a/?dl=1':
                self._send_file('attachment; filename="weights of 2022.pth"')
            case '/page' | '/f/0a/':
                self._send_page('text/html; charset=utf-8')
            case '/page-as-file':
                self._send_page('application/octet-stream')
            case _:
                self.send_error(404)

    def _send_page(self, kind: str) -> None:
        self.send_response(200)
        self.send_header('Content-Type', kind)
        self.send_header('Content-Length', str(len(PAGE)))
        self.end_headers()
        self.wfile.write(PAGE)

    def _send_file(self, disposition: str = '') -> None:
        content, asked = self.server.content, self.headers['Range']
        has_ranges = self.path not in ('/no-range', '/stalls')
        start = int(asked.removeprefix('bytes=').removesuffix('-')) if asked and has_ranges else 0
        if start >= len(content):
            self.send_response(416)
            self.send_header('Content-Range', f'bytes */{len(content)}')
            self.send_header('Content-Length', '0')
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header('Content-Range', f'bytes {start}-{len(content) - 1}/{len(content)}')
        if disposition:
            self.send_header('Content-Disposition', disposition)
        self.send_header('Content-Type', 'application/octet-stream')
        self.send_header('Content-Length', str(len(content) - start))
        self.end_headers()
        rest = content[start:]
        if self.path == '/slow':
            for byte in rest:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                time.sleep(0.01)
        elif (self.path == '/breaks' and len(rest) > 20) or self.path == '/stalls':
            self.wfile.write(rest[: len(rest) // 2])
        else:
            self.wfile.write(rest)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    with FileServer() as served:
        thread = threading.Thread(target=served.serve_forever, kwargs=dict(poll_interval=0.01))
        thread.start()
        try:
            yield served
        finally:
            served.shutdown()
            thread.join()
