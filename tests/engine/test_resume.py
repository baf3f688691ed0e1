"""The checkpoint that ``--resume`` without a path continues from."""

from pathlib import Path

import pytest

from deformable_vit.engine import UserError, latest_checkpoint


def test_latest_checkpoint_is_found_also_in_a_moved_directory(tmp_path: Path) -> None:
    assert latest_checkpoint(str(tmp_path)) is None
    checkpoint = tmp_path / 'epoch_2.pth'
    checkpoint.touch()
    (tmp_path / 'last_checkpoint').write_text(str(checkpoint))
    assert latest_checkpoint(str(tmp_path)) == str(checkpoint)
    (tmp_path / 'last_checkpoint').write_text('/elsewhere/epoch_2.pth')
    assert latest_checkpoint(str(tmp_path)) == str(checkpoint)


def test_missing_latest_checkpoint_is_an_error_that_names_the_others(tmp_path: Path) -> None:
    """With ``max_keep_ckpts=1`` mmengine deletes a checkpoint before it writes the next one."""
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_2.pth'))
    with pytest.raises(
        UserError, match='epoch_2.pth, which .*last_checkpoint names, does not exist; pass a checkpoint'
    ):
        latest_checkpoint(str(tmp_path))
    (tmp_path / 'epoch_1.pth').touch()
    with pytest.raises(UserError, match='pass one of .*epoch_1.pth'):
        latest_checkpoint(str(tmp_path))
