"""Differences between a state dict and a model, and the sentences that report them."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deformable_vit.checkpoints import compare

state_dicts = st.dictionaries(st.sampled_from('abcdef'), st.integers(1, 2).map(torch.zeros))


def test_reports_name_what_differs() -> None:
    model = {k: torch.zeros(2) for k in 'abcdefg'}
    difference = compare({'a': torch.zeros(2), 'b': torch.zeros(3), 'z': torch.zeros(1)}, model)
    assert str(difference) == (
        '1 of 7 parameters match, 5 missing (c, d, e and 2 more), 1 unexpected (z), '
        '1 mismatched (b: (3,) in the checkpoint, (2,) in the model)'
    )
    assert difference.report().splitlines() == [
        str(difference),
        *(f'  missing: {name}' for name in 'cdefg'),
        '  unexpected: z',
        '  mismatched: b: (3,) in the checkpoint, (2,) in the model',
    ]
    equal = compare(model, model)
    assert not equal
    assert str(equal) == equal.report() == '7 of 7 parameters match, none is unexpected'


@settings(max_examples=50)
@given(state_dicts, state_dicts)
def test_every_name_is_counted_once(state_dict: dict[str, torch.Tensor], model: dict[str, torch.Tensor]) -> None:
    difference = compare(state_dict, model)
    assert difference.matched + len(difference.missing) + len(difference.mismatched) == len(model)
    assert difference.matched + len(difference.unexpected) + len(difference.mismatched) == len(state_dict)
    shapes = ({k: v.shape for k, v in d.items()} for d in (state_dict, model))
    assert bool(difference) == (len({tuple(sorted(s.items())) for s in shapes}) > 1)
