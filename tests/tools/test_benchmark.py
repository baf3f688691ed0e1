"""tools/benchmark.py: what it runs, what it prints, and what it rejects."""

import json
import sys
from pathlib import Path

import benchmark
import openvino
import pytest
import torch
from benchmark import Case, measure_times, parse_model, stepper, table
from mmengine.registry import MODELS
from running import ROOT, exit_status
from torch import Tensor, nn

from deformable_vit.errors import UserError
from deformable_vit.export.running import open_file
from deformable_vit.ops import current_backend

CASE = dict(mode='training', height=64, width=96, batch=2, dtype='float32', device='cpu')
recorded: list = []


@MODELS.register_module(force=True)
class Recorder(nn.Module):
    """Record the conditions of each call."""

    def __init__(self, **arguments: object) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.weight.register_hook(lambda _: recorded.append('backward'))
        self.arguments = arguments

    def forward(self, x: Tensor) -> tuple[Tensor]:
        dtype = torch.get_autocast_dtype('cpu') if torch.is_autocast_enabled('cpu') else torch.float32
        recorded.append(
            (current_backend(), self.training, torch.is_grad_enabled(), dtype, tuple(x.shape), self.arguments)
        )
        if 'large' in self.arguments:
            raise torch.OutOfMemoryError
        return (x * self.weight,)


def test_cases_run_in_turns_under_their_conditions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(benchmark.ZOO, 'recorder', dict(type='Recorder'))
    monkeypatch.setitem(benchmark.ZOO, 'large', dict(type='Recorder', large=True))
    recorded.clear()
    cases = [
        Case('recorder', 'auto', **CASE),
        Case('recorder', 'reference', **CASE | dict(mode='forward', dtype='bfloat16')),
    ]
    measure_times(cases, 2)
    forward = ('reference', False, False, torch.bfloat16, (2, 3, 64, 96), dict(recompute_activation=False))
    assert recorded == [('auto', True, True, torch.float32, (2, 3, 64, 96), {}), 'backward', forward] * 3
    assert [len(case.seconds) for case in cases] == [2, 2]
    assert current_backend() == 'auto'

    recorded.clear()
    large = Case('large', 'auto', **CASE)
    measure_times([large], 3)
    assert (large.error, large.seconds, len(recorded)) == ('out of memory', [], 1)


def test_factors_are_those_to_the_first_model_of_the_same_conditions() -> None:
    cases = [
        Case('dat-t', 'auto', **CASE, seconds=[1.0, 2.0, 6.0], peak=100.0),
        Case('dat-t', 'reference', **CASE, seconds=[8.0], peak=250.0),
        Case('swin-t', 'auto', **CASE, error='out of memory'),
        Case('swin-t', 'auto', **CASE | dict(batch=1), seconds=[8.0]),
    ]
    assert table(cases).splitlines()[2:] == [
        '| dat-t | 64 x 96 | 2 | float32 | training | 2 | 1 to 6 | 1.00 | 100 | 1.00 |  |',
        '| dat-t:reference | 64 x 96 | 2 | float32 | training | 8 | 8 to 8 | 4.00 | 250 | 2.50 |  |',
        '| swin-t | 64 x 96 | 2 | float32 | training |  |  |  |  |  | out of memory |',
        '| swin-t | 64 x 96 | 1 | float32 | training | 8 | 8 to 8 | 1.00 |  |  |  |',
    ]


@pytest.mark.slow
def test_attention_and_the_backbones_of_configs_run() -> None:
    for config in ('pvt/retinanet_pvt-t_fpn_1x_coco', 'demo/fpn_dpt_shapes', 'demo/dat_shapes'):
        name, backend = parse_model(f'{ROOT}/configs/{config}.py:reference')
        stepper(Case(name, backend, **CASE))()
    stepper(Case('attention', 'chunked', **CASE))()


@pytest.mark.slow
@pytest.mark.nightly
def test_benchmark_writes_a_table_and_json(tool, tmp_path: Path) -> None:
    args = ['--shape', '64x96', '--mode', 'forward', '--repeats', '2', '--json', 'all.json']
    done = tool('benchmark.py', 'mmdet-pvt-t', *args)
    assert '| mmdet-pvt-t | 64 x 96 | 1 | float32 | forward |' in done.stdout
    (case,) = json.loads((tmp_path / 'all.json').read_text())
    assert case['model'] == 'mmdet-pvt-t'
    assert len(case['seconds']) == 2
    assert 50 < case['peak'] < 150  # 13 M parameters in float32, and the images


def test_invalid_arguments_are_one_line_errors(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    for args, words in (
        (['resnet'], 'resnet is neither a config file nor one of pvt-t, '),
        (['pvt-t:fast'], 'pvt-t:fast: the backend must be one of auto, reference'),
        (['gone.py'], 'config gone.py does not exist'),
        (['--shape', '20'], "argument --shape: invalid shape value: '20'"),
        (['--device', 'cuda'], "argument --device: invalid choice: 'cuda'"),
    ):
        monkeypatch.setattr(sys, 'argv', ['benchmark.py', *args])
        assert exit_status(benchmark.main) == 2
        assert words in capsys.readouterr().err.splitlines()[-1]


class Twice(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2


@pytest.mark.filterwarnings('ignore')  # of the exporter
def test_exported_files_run_beside_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx, xml, results = (str(tmp_path / name) for name in ('twice.onnx', 'twice.xml', 'results.json'))
    sizes = ({0: 'batch', 2: 'height', 3: 'width'},)
    torch.onnx.export(Twice(), (torch.zeros(2, 3, 32, 64),), onnx, dynamic_shapes=sizes, verbose=False)
    openvino.save_model(openvino.convert_model(onnx), xml)
    image = torch.randn(1, 3, 33, 65)
    for file in (onnx, xml):
        run, *_ = open_file(Path(file))
        assert torch.equal(torch.from_numpy(run(image.numpy())[0]), image * 2)
    arguments = ['--shape', '32x64', '--mode', 'forward', 'training', '--repeats', '1', '--device', 'cpu']
    monkeypatch.setattr(sys, 'argv', ['benchmark.py', 'pvtv2-b0', onnx, xml, *arguments, '--json', results])
    benchmark.main()
    cases = [Case(**case) for case in json.loads(Path(results).read_text())]
    assert [(case.model, case.mode, len(case.seconds)) for case in cases] == [
        ('pvtv2-b0', 'forward', 1),
        (onnx, 'forward', 1),
        (xml, 'forward', 1),
        ('pvtv2-b0', 'training', 1),
    ]
    assert all(case.peak >= 0 and not case.error for case in cases)
    with pytest.raises(UserError, match='missing.onnx'):
        parse_model('missing.onnx')
    torch.onnx.export(Twice(), (torch.zeros(1, 3, 32, 64),), onnx, verbose=False)
    with pytest.raises(UserError, match='does not run with 1 x 3 x 33 x 64'):
        benchmark.stepper(Case(onnx, 'auto', 33, 64, 1, 'float32', 'forward', 'cpu'))()
