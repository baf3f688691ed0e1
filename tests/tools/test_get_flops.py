"""tools/get_flops.py: parameters and FLOPs in the last two lines of its output."""

import pytest
from running import ROOT

pytestmark = pytest.mark.slow  # it starts processes

CONFIGS = ROOT / 'configs'


def test_last_two_lines_are_parameters_and_flops(tool) -> None:
    for config, args, params, flops in (
        ('dat/dat-tiny_8xb128_in1k.py', (), '28.32', 4.59),
        ('pvt/retinanet_pvt-t_fpn_1x_coco.py', ('--shape', 64, 96), '22.96', None),
        ('demo/fpn_dpt_shapes.py', ('--shape', 128), '2.17', None),
        ('demo/deformable-detr_dat_shapes.py', ('--shape', 128), '5.03', None),
    ):
        *_, first, second = tool('get_flops.py', CONFIGS / config, *args).stdout.splitlines()
        assert first == f'Params: {params} M'
        word, value, unit = second.split()
        assert (word, unit) == ('FLOPs:', 'G')
        assert float(value) == flops if flops else 0.01 < float(value) < 20


def test_invalid_arguments_are_one_line_errors(tool) -> None:
    for args, words in (
        ((CONFIGS / 'dat' / 'gone.py',), 'gone.py does not exist'),
        (
            (CONFIGS / 'dat' / 'dat-tiny_8xb128_in1k.py', '--shape', 20),
            'at least 32 x 32 pixels, got height x width 20 x 20',
        ),
        ((CONFIGS / 'dat' / 'dat-tiny_8xb128_in1k.py', '--shape', 1, 2, 3), '--shape takes a height and a width'),
    ):
        done = tool('get_flops.py', *args, ok=False)
        assert done.returncode == 2
        assert words in done.stderr.splitlines()[-1]
