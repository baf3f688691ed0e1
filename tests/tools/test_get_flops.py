"""tools/get_flops.py: parameters and FLOPs in the last two lines of its output."""

from pathlib import Path

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


def test_wrappers_have_the_flops_of_their_model(call, tmp_path: Path) -> None:
    """Those of a semi-supervised detector are its student's, with its channels."""
    demo = CONFIGS / 'demo' / 'retinanet_pvt_shapes.py'
    semi = "dict(_delete_=True, type='SemiBaseDetector', detector=_base_.model, semi_train_cfg={}, semi_test_cfg={})"
    tta = "dict(_delete_=True, type='DetTTAModel', tta_cfg={}, module=_base_.model)"
    found = []
    for text in ('dict()', semi, tta):
        path = tmp_path / 'wrapped.py'
        path.write_text(f'_base_ = {str(demo)!r}\n_base_.model.backbone.in_channels = 4\nmodel = {text}\n')
        code, out, err = call('get_flops.py', path, '--shape', 64)
        assert code == 0, err
        found.append(out.splitlines())
    assert found[0][-2:] == found[1][-2:] == found[2][-2:]
    assert any('RetinaNet with PVT in SemiBaseDetector' in line for line in found[1])


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
