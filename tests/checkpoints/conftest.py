from collections.abc import Iterator

import pytest
from file_server import FileServer, file_server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    with file_server() as served:
        yield served
