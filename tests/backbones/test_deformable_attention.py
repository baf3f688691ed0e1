"""Sampling locations of deformable attention: the grid of keys, and how far offsets move them."""

import torch
from torch import Tensor, nn

from deformable_vit.backbones.dat import DeformableAttention


def attention(**kwargs: object) -> DeformableAttention:
    return DeformableAttention(8, num_heads=4, num_groups=2, **kwargs)


def test_grid_of_keys_has_one_key_per_stride() -> None:
    for kernel, stride in ((3, 1), (5, 2), (7, 4), (4, 4), (1, 1)):
        attn = attention(offset_kernel=kernel, stride=stride)
        for hw in ((8, 8), (9, 14), (1, 5), (3, 2), (1, 1)):
            x = torch.randn(3, hw[0] * hw[1], 8)
            # Kernels that tile the feature map: whole ones only, but at least one.
            keys = tuple(-(-n // stride) if kernel != stride else max(n // stride, 1) for n in hw)
            assert attn.key_locations(x, hw).shape == (3, 2, *keys, 2)
            assert attn(x, hw).shape == x.shape


class ConstantOffsets(nn.Module):
    """Stand in for the network that predicts offsets."""

    def __init__(self, offsets: Tensor) -> None:
        super().__init__()
        self.offsets = offsets

    def forward(self, x: Tensor) -> Tensor:
        return self.offsets.expand(len(x), -1, -1, -1)


def locations_of(y: float, x: float, **kwargs: object) -> Tensor:
    """Return the locations (2, 4, 2) of the keys of a 2 x 4 feature map whose offsets are all (y, x)."""
    attn = attention(**kwargs)
    attn.offset = ConstantOffsets(torch.tensor([y, x]).expand(1, 2, 4, 2))
    locations = attn.key_locations(torch.zeros(1, 8, 8), (2, 4))
    assert torch.equal(locations[0, 0], locations[0, 1])
    return locations[0, 0]


def test_bounded_offsets_by_hand() -> None:
    """Without offsets at the centers of the pixels; at most offset_range half distances away, y first."""
    y, x = torch.tensor([-0.5, 0.5]), torch.tensor([-0.75, -0.25, 0.25, 0.75])
    grid = torch.stack(torch.meshgrid(y, x, indexing='ij'), dim=-1)
    torch.testing.assert_close(locations_of(0, 0), grid)
    torch.testing.assert_close(locations_of(50, -50, offset_range=3), grid + torch.tensor([3 / 2, -3 / 4]))
    torch.testing.assert_close(locations_of(0.5, 0, offset_range=2)[..., 0], grid[..., 0] + torch.tensor(0.5).tanh())
    torch.testing.assert_close(locations_of(50, 50, offset_range=0), grid)


def test_unbounded_offsets_by_hand() -> None:
    """Anywhere on the feature map; without offsets, keys of DAT++ are half a pixel behind the queries."""
    grid_x = (torch.arange(4) + 0.5) / 3 * 2 - 1
    locations = locations_of(0.0, 0.25, offset_range=-1, convention='corners')
    torch.testing.assert_close(locations[..., 1], (grid_x + 0.25).clamp(-1, 1).expand(2, 4))
    torch.testing.assert_close(locations[..., 0], torch.tensor([[0.0], [1.0]]).expand(2, 4))  # row 2 at 2, clamped
    assert locations_of(-9.0, 9.0, offset_range=-1).tolist() == [[[-1.0, 1.0]] * 4] * 2


def test_offsets_are_float32_under_autocast() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast('cpu', dtype):
            assert attention().key_locations(torch.randn(1, 8, 8, dtype=dtype), (2, 4)).dtype == torch.float32
