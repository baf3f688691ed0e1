"""Differences between a state dict and a model, and the sentences that report them."""

import torch

from deformable_vit.checkpoints import compare


def test_reports_name_what_differs() -> None:
    model = {k: torch.zeros(2) for k in 'abcdefg'}
    difference = compare({'a': torch.zeros(2), 'b': torch.zeros(3), 'z': torch.zeros(1)}, model)
    assert str(difference) == (
        '1 of 7 parameters match, 5 missing (c, d, e and 2 more), 1 unexpected (z), '
        '1 mismatched (b: (3,) in the checkpoint, (2,) in the model)'
    )
    assert difference.report().splitlines() == [str(difference), '  missing: c (1), d (1), e (1), f (1), g (1)']
    equal = compare(model, model)
    assert not equal
    assert str(equal) == equal.report() == '7 of 7 parameters match, none is unexpected'


def test_long_reports_name_modules() -> None:
    """Ten names at most in a line: whole detectors differ in hundreds."""
    model = {f'roi_head.{part}.{i}.weight': torch.zeros(1) for part in 'abcdefghij' for i in range(4)}
    first, second = compare({}, model).report().splitlines()
    assert first.count('roi_head') == 3
    assert second.count('(4)') == 8
    assert second.endswith('and 2 more')
