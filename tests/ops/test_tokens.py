"""Conversions between feature maps and tokens, padding, and resizing of position embeddings."""

import pytest
import torch

from deformable_vit.ops import interleave, map_to_tokens, pad_to_multiple, resize_position_embedding, tokens_to_map


def test_tokens_are_in_row_major_order() -> None:
    x = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    tokens = map_to_tokens(x)
    assert tokens.shape == (2, 20, 3)
    assert tokens[1, 2 * 5 + 3].tolist() == x[1, :, 2, 3].tolist()
    assert torch.equal(tokens_to_map(tokens, (4, 5)), x)


def test_interleaving_restores_every_other_row_and_column() -> None:
    for size in ((4, 6), (5, 6), (5, 7), (2, 1)):
        x = torch.randn(2, 3, *size)
        parts = [[x[..., top::2, left::2] for left in (0, 1)] for top in (0, 1)]
        assert torch.equal(interleave(parts, size), x)


def test_padding_is_at_the_bottom_and_right() -> None:
    x = torch.ones(1, 1, 5, 8)
    padded = pad_to_multiple(x, 4)
    assert padded.shape == (1, 1, 8, 8)
    assert padded[0, 0, :5].eq(1).all()
    assert padded[0, 0, 5:].eq(0).all()
    assert pad_to_multiple(x[..., :4, :], 4).data_ptr() == x.data_ptr()


def test_resized_position_embedding_has_values_by_hand() -> None:
    # One channel on a grid of 1 x 2: 0 and 1. At twice the width, the new centers are at -0.25, 0.25, 0.75 and 1.25 of
    # the old grid, and values outside are those of the border.
    embedding = torch.tensor([[[9.0], [0.0], [1.0]]])
    resized = resize_position_embedding(embedding, (1, 2), (1, 4), num_extra=1)
    assert resized.flatten().tolist() == [9.0, 0.0, 0.25, 0.75, 1.0]
    assert resize_position_embedding(embedding, (1, 2), (1, 2), num_extra=1) is embedding


def test_position_embedding_of_another_grid_is_an_error() -> None:
    with pytest.raises(ValueError, match=r'expected a position embedding of 1 \+ 2 x 4 entries, got 10'):
        resize_position_embedding(torch.zeros(1, 10, 4), (2, 4), (4, 4), num_extra=1)
