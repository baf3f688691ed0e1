"""Where deformable attention reads: the grid of keys, and how far offsets take them."""

import pytest
import torch
from torch import nn

from deformable_vit.layers import DeformableAttention
from deformable_vit.layers.deformable_attention import OffsetNet


def attention(**kwargs: object) -> DeformableAttention:
    return DeformableAttention(8, num_heads=4, num_groups=2, **kwargs)


@pytest.mark.parametrize('hw', [(8, 8), (9, 14), (1, 5), (3, 2), (1, 1)])
@pytest.mark.parametrize(('kernel', 'stride'), [(3, 1), (5, 2), (7, 4), (4, 4), (1, 1)])
def test_the_grid_of_keys(kernel: int, stride: int, hw: tuple[int, int]) -> None:
    attn = attention(offset_kernel=kernel, stride=stride)
    points = attn.points(torch.randn(3, hw[0] * hw[1], 8), hw)
    assert points.shape == (3, 2, *attn.key_size(hw), 2)
    if kernel != stride:
        assert attn.key_size(hw) == tuple(-(-n // stride) for n in hw)
    else:  # whole kernels alone, but at least one
        assert attn.key_size(hw) == tuple(max(n // stride, 1) for n in hw)
    assert attn(torch.randn(3, hw[0] * hw[1], 8), hw).shape == (3, hw[0] * hw[1], 8)


class Told(nn.Module):
    """Stands in for the network that predicts offsets."""

    def __init__(self, offsets: torch.Tensor) -> None:
        super().__init__()
        self.offsets = offsets

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.offsets.expand(len(x), -1, -1, -1)


def told(y: float, x: float, **kwargs: object) -> torch.Tensor:
    """Places of the keys of a 2 x 4 map whose offsets are all (y, x), (2, 4, 2)."""
    attn = attention(**kwargs)
    attn.offset = Told(torch.tensor([y, x]).expand(1, 2, 4, 2))
    points = attn.points(torch.zeros(1, 8, 8), (2, 4))
    assert torch.equal(points[0, 0], points[0, 1])
    return points[0, 0]


def test_bounded_offsets_by_hand() -> None:
    """At rest at the centres of the pixels; at most offset_range half distances away, y first."""
    y, x = torch.tensor([-0.5, 0.5]), torch.tensor([-0.75, -0.25, 0.25, 0.75])
    rest = torch.stack(torch.meshgrid(y, x, indexing='ij'), dim=-1)
    torch.testing.assert_close(told(0, 0), rest)
    torch.testing.assert_close(told(50, -50, offset_range=3), rest + torch.tensor([3 / 2, -3 / 4]))
    torch.testing.assert_close(told(0.5, 0, offset_range=2)[..., 0], rest[..., 0] + torch.tensor(0.5).tanh())
    torch.testing.assert_close(told(50, 50, offset_range=0), rest)


def test_free_offsets_by_hand() -> None:
    """Anywhere, but not off the map; DAT++'s keys at rest lie half a pixel behind the queries."""
    rest_x = (torch.arange(4) + 0.5) / 3 * 2 - 1
    free = told(0.0, 0.25, offset_range=-1, coordinates='corners')
    torch.testing.assert_close(free[..., 1], (rest_x + 0.25).clamp(-1, 1).expand(2, 4))
    torch.testing.assert_close(free[..., 0], torch.tensor([[0.0], [1.0]]).expand(2, 4))  # 2 on the second row, cut
    assert told(-9.0, 9.0, offset_range=-1).tolist() == [[[-1.0, 1.0]] * 4] * 2


def test_offsets_by_hand() -> None:
    """A depthwise convolution that hands pixels on, no norm, GELU and a projection."""
    net = OffsetNet(2, kernel_size=1, stride=1)
    net.norm = nn.Identity()
    with torch.no_grad():
        net.dwconv.weight.fill_(1)
        net.dwconv.bias.zero_()
        net.proj.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, -2.0]]))
    x = torch.randn(1, 2, 3, 4)
    seen = nn.functional.gelu(x)
    torch.testing.assert_close(net(x), torch.stack([seen[:, 0], -2 * seen[:, 1]], dim=-1))
