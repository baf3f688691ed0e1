"""The pre-norm block by hand."""

import torch
from torch import Tensor, nn

from deformable_vit.backbones.dat import DATBlock
from deformable_vit.layers import TransformerBlock


class Scale(nn.Module):
    """Stand in for attention or the MLP: multiply the tokens."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        assert hw == (2, 3)
        return x * self.factor


def test_block_adds_both_branches_of_normalized_tokens() -> None:
    block = TransformerBlock(8, Scale(2.0), Scale(-3.0), eps=1e-3)
    x = torch.randn(4, 6, 8)
    y = x + 2 * nn.functional.layer_norm(x, (8,), eps=1e-3)
    torch.testing.assert_close(block(x, (2, 3)), y - 3 * nn.functional.layer_norm(y, (8,), eps=1e-3))


def test_stochastic_depth_drops_a_branch_of_whole_samples() -> None:
    block = TransformerBlock(8, Scale(1.0), Scale(0.0), drop_path=0.5).train()
    x = torch.randn(200, 6, 8)
    branch = nn.functional.layer_norm(x, (8,), eps=1e-6)
    out = block(x, (2, 3)) - x
    kept = out.flatten(1).norm(dim=1) > 0
    assert 60 < kept.sum() < 140
    torch.testing.assert_close(out[kept], 2 * branch[kept])  # by 1 / (1 - rate), so that the expectation stays
    block.eval()
    torch.testing.assert_close(block(x, (2, 3)), x + branch)


def test_layer_scale_and_local_perception_unit_of_dat_by_hand() -> None:
    block = DATBlock(8, Scale(2.0), Scale(-3.0), drop_path=0.0, lpu=True, layer_scale=0.1)
    x = torch.randn(4, 6, 8)
    feature_map = x.transpose(1, 2).reshape(4, 8, 2, 3)
    y = x + block.lpu(feature_map).flatten(2).transpose(1, 2)
    y = y + 0.2 * nn.functional.layer_norm(y, (8,), eps=1e-5)
    torch.testing.assert_close(block(x, (2, 3)), y - 0.3 * nn.functional.layer_norm(y, (8,), eps=1e-5))
