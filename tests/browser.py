"""A headless Chromium for tests, driven over the DevTools protocol through two pipes."""

import itertools
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')


class Browser:
    """One page in headless Chromium, with a directory for its profile."""

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM is not None
        read_in, self._write = os.pipe()
        self._read, write_out = os.pipe()
        options = (
            '--headless=new --no-sandbox --disable-gpu --no-first-run --disable-extensions --disable-dev-shm-usage '
            f'--hide-scrollbars --user-data-dir={profile} --remote-debugging-pipe'
        )
        # Chromium reads commands from file descriptor 3 and answers on 4.
        command = f'exec "$0" {options} about:blank 3<&{read_in} 4>&{write_out}'
        self._process = subprocess.Popen(
            ['bash', '-c', command, CHROMIUM],
            pass_fds=(read_in, write_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_in)
        os.close(write_out)
        self._ids, self._buffer, self._session = itertools.count(1), b'', None
        self.problems: list[str] = []  # errors, and messages of the console
        target = next(t for t in self('Target.getTargets')['targetInfos'] if t['type'] == 'page')['targetId']
        self._session = self('Target.attachToTarget', targetId=target, flatten=True)['sessionId']
        for domain in ('Page', 'Runtime', 'Log'):
            self(f'{domain}.enable')

    def __call__(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        message: dict[str, Any] = dict(id=next(self._ids), method=method, params=params)
        if self._session:
            message['sessionId'] = self._session
        os.write(self._write, json.dumps(message).encode() + b'\0')
        while True:
            answer = self._receive()
            if answer.get('id') == message['id']:
                assert 'error' not in answer, answer
                return answer['result']

    def _receive(self) -> dict[str, Any]:
        while b'\0' not in self._buffer:
            data = os.read(self._read, 1 << 20)
            assert data, 'Chromium closed the connection'
            self._buffer += data
        text, self._buffer = self._buffer.split(b'\0', 1)
        message = json.loads(text)
        if message.get('method') in ('Runtime.exceptionThrown', 'Runtime.consoleAPICalled', 'Log.entryAdded'):
            self.problems.append(json.dumps(message['params'])[:1000])
        return message

    def resize(self, width: int, height: int) -> None:
        self('Emulation.setDeviceMetricsOverride', width=width, height=height, deviceScaleFactor=1, mobile=False)

    def open(self, file: Path) -> None:
        """Open a page and wait until it is drawn."""
        self('Page.navigate', url=file.resolve().as_uri())
        self.wait('window.viewer && window.viewer.ready')

    def js(self, expression: str) -> Any:
        """Return the value of a JavaScript expression; promises are awaited."""
        answer = self('Runtime.evaluate', expression=expression, returnByValue=True, awaitPromise=True)
        assert 'exceptionDetails' not in answer, answer['exceptionDetails']
        return answer['result'].get('value')

    def wait(self, expression: str, seconds: float = 120) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.js(f'Boolean({expression})'):
            assert time.monotonic() < end, f'{expression} is not true after {seconds} s: {self.problems}'
            time.sleep(0.1)

    def click(self, x: float, y: float) -> None:
        """Click at a position of the window."""
        for kind in ('mousePressed', 'mouseReleased'):
            self('Input.dispatchMouseEvent', type=kind, x=x, y=y, button='left', clickCount=1)

    def close(self) -> None:
        """End the browser."""
        os.write(self._write, json.dumps(dict(id=next(self._ids), method='Browser.close')).encode() + b'\0')
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._read)
        os.close(self._write)
