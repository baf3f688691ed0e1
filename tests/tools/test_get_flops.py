"""tools/get_flops.py: parameters and FLOPs in the last two lines of its output."""

import pytest
from running import ROOT

pytestmark = pytest.mark.slow
CONFIGS = ROOT / 'configs'


def test_last_two_lines_are_parameters_and_flops(call) -> None:
    for config, args, params, flops in (
        ('dat/dat-tiny_8xb128_in1k.py', (), '28.32', 4.59),
        ('pvt/retinanet_pvt-t_fpn_1x_coco.py', ('--shape', 64, 96), '22.96', None),
        ('demo/fpn_dpt_shapes.py', ('--shape', 128), '2.17', None),
        ('demo/deformable-detr_dat_shapes.py', ('--shape', 128), '5.03', None),
    ):
        *_, first, second = call('get_flops.py', CONFIGS / config, *args)[1].splitlines()
        assert first == f'Params: {params} M'
        word, value, unit = second.split()
        assert (word, unit) == ('FLOPs:', 'G')
        assert float(value) == flops if flops else 0.01 < float(value) < 20


def test_invalid_arguments_are_one_line_errors(call) -> None:
    for args, words in (
        ((CONFIGS / 'dat' / 'gone.py',), 'gone.py does not exist'),
        (
            (CONFIGS / 'dat' / 'dat-tiny_8xb128_in1k.py', '--shape', 20),
            'at least 32 x 32 pixels, got height x width 20 x 20',
        ),
        ((CONFIGS / 'dat' / 'dat-tiny_8xb128_in1k.py', '--shape', 1, 2, 3), '--shape takes a height and a width'),
    ):
        code, _, err = call('get_flops.py', *args)
        assert code == 2
        assert words in err.splitlines()[-1]
