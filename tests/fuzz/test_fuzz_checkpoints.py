"""Changed checkpoint files neither crash nor touch anything, for a minute, or ten in the long form."""

from collections.abc import Callable
from pathlib import Path

import pytest
from campaign import IS_LONG
from fuzz_checkpoints import fuzz


@pytest.mark.slow
@pytest.mark.campaign('changed checkpoints (fuzzing)')
def test_changed_checkpoints_load_or_are_refused(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    found = fuzz(600 if IS_LONG else 60, seed=0, keep=tmp_path / 'kept')
    record_property('tried', sum(found.values()))
    assert set(found) == {'loaded', 'refused'}
    assert found['refused'] > 20


@pytest.mark.slow
def test_the_fuzzer_notices_what_must_not_happen(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    found = fuzz(120, seed=0, keep=tmp_path / 'kept', misbehave=True)
    assert found['raised'] >= 1
    assert found['forbidden'] >= 3
    assert found['ended with -6'] + found['ended with -11'] >= 1
    assert set(found) <= {'loaded', 'refused', 'raised', 'forbidden', 'ended with -6', 'ended with -11'}
    assert len(list((tmp_path / 'kept').iterdir())) == sum(found.values()) - found['loaded'] - found['refused']
    said = capsys.readouterr().out
    assert 'raised: ' in said
    assert 'socket' in said
    assert 'os.remove' in said
