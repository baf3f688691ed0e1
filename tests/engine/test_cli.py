"""engine/cli.py: how errors of users and Ctrl-C end a tool."""

import pytest

from deformable_vit.engine import UserError, one_line_errors
from deformable_vit.engine.cli import TRACEBACK


@pytest.mark.parametrize(
    ('error', 'status', 'line'),
    [
        (UserError('config a.py does not exist'), 2, 'train.py: error: config a.py does not exist'),
        (KeyboardInterrupt(), 130, 'train.py: interrupted'),
    ],
)
def test_errors_of_users_and_ctrl_c_are_one_line(
    error: BaseException,
    status: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    @one_line_errors
    def main() -> None:
        raise error

    monkeypatch.setattr('sys.argv', ['tools/train.py'])
    monkeypatch.delenv('RANK', raising=False)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == status
    assert capsys.readouterr().err == f'{line}\n'
    monkeypatch.setenv(TRACEBACK, '1')
    with pytest.raises(type(error)):
        main()


def test_other_errors_keep_their_traceback() -> None:
    @one_line_errors
    def main() -> None:
        raise ValueError('a defect')

    with pytest.raises(ValueError, match='a defect'):
        main()
