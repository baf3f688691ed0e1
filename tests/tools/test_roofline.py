"""tools/dev/roofline.py: numbers by hand, and the operations that torch counts."""

from itertools import chain

import pytest
import roofline
import torch
from roofline import Call, Kernel
from torch.utils.flop_counter import FlopCounterMode

from deformable_vit.ops import FLOP_FORMULAS, deformable_attention

STAGE_3 = dict(roofline.calls())['DAT-T 3, 800 x 1344']


def test_a_kernel_takes_its_longest_part() -> None:
    for kernel in (Kernel(312e9, 1e9, 1e9), Kernel(1e9, 19.5e9, 1e9), Kernel(1e9, 1e9, 2.039e9, 1e12)):
        assert kernel.seconds('A100') == pytest.approx(1e-3)


def test_sizes_by_hand() -> None:
    assert STAGE_3.scores == 4200 * 4200 * 12
    assert STAGE_3.read_along_y * 4 == 272_160_000  # bytes
    for backend, atomics in ((roofline.chunked, 4 * 211_680_000), (roofline.products, 0)):
        assert sum(kernel.atomics for kernel in chain(*backend(STAGE_3))) == atomics
    # A mask in bfloat16, read by attention, beside q, k, v and the output of 4200 x 384 elements each.
    with_mask, without = (roofline.attention(STAGE_3, mask)[0][0].bytes for mask in (2 * STAGE_3.scores, 0))
    assert with_mask - without == 2 * 211_680_000
    assert without == 4 * 2 * 4200 * 384


@pytest.mark.parametrize(('backend', 'name'), [('products', '`products`'), ('chunked', '`chunked`')])
def test_products_are_those_that_torch_counts(backend: str, name: str) -> None:
    call = Call((5, 7), 24, 6, 3, (9, 11), 8)
    q, k = torch.randn(1, 6, 35, 8), torch.randn(1, 6, 24, 8)
    tensors = q, k, k, torch.randn(6, 9, 11), torch.rand(1, 3, 24, 2), torch.rand(5), torch.rand(7)
    formulas = {op: formula for op, formula in FLOP_FORMULAS.items() if 'grid_sampler' not in str(op)}
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        deformable_attention(*tensors, backend=backend)
    forward = roofline.BACKENDS[name](call)[0]
    softmax_and_reads = (roofline.SOFTMAX + (roofline.READ if backend == 'chunked' else 0)) * call.scores
    # In bfloat16 attention is on tensor cores, the bias in float32 is not.
    assert sum(kernel.tensor + kernel.vector for kernel in forward) - softmax_and_reads == counter.get_total_flops()


def test_the_page_has_the_current_table() -> None:
    assert roofline.page() == roofline.PAGE.read_text(), 'run python tools/dev/roofline.py'
