"""tools/benchmark.py: what it runs, what it prints, and what it rejects."""

import dataclasses
import json
import sys
from pathlib import Path

import _measure
import benchmark
import pytest
import torch
from _measure import Case, Measurement, Runner, measure_times, parse_model
from benchmark import add_peak, comparison, plot, table
from running import ROOT
from torch import Tensor, nn

from deformable_vit.ops import current_backend

CASE = Case('pvt-t', 'auto', 'training', 64, 96, 2, 'float32', 'cpu', compile=False)


class Recorder(nn.Module):
    """Record the conditions of each call in a list."""

    def __init__(self, calls: list) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.calls = calls

    def forward(self, x: Tensor) -> tuple[Tensor]:
        dtype = torch.get_autocast_dtype('cpu') if torch.is_autocast_enabled('cpu') else torch.float32
        self.calls.append((current_backend(), self.training, torch.is_grad_enabled(), dtype, tuple(x.shape)))
        return (x * self.weight,)


class Tupled(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (x,)


def replace(**changes: object) -> Case:
    return dataclasses.replace(CASE, **changes)


def test_cases_run_in_turns_under_their_conditions(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list = []
    monkeypatch.setattr(_measure, '_build', lambda *_: Recorder(calls))
    cases = [CASE, replace(mode='forward', backend='reference', dtype='bfloat16')]
    reports: list = []
    results = measure_times(cases, warmup=1, repeats=2, report=lambda: reports.append(1))
    training = ('auto', True, True, torch.float32, (2, 3, 64, 96))
    forward = ('reference', False, False, torch.bfloat16, (2, 3, 64, 96))
    assert calls == [training, forward] * 3
    assert len(reports) == 6
    assert [len(r.seconds) for r in results] == [2, 2]
    assert current_backend() == 'auto'


def test_reference_models_keep_their_activations(monkeypatch: pytest.MonkeyPatch) -> None:
    backbones: list = []
    monkeypatch.setattr(_measure, '_build', lambda _, backbone: backbones.append(backbone) or Tupled())
    for backend in ('auto', 'reference', 'chunked'):
        _measure.build(replace(model='dat-t', backend=backend))
    dat = dict(type='DAT', arch='tiny')
    assert backbones == [dat, dat | dict(recompute_activation=False), dat]


def test_training_runs_backward_and_frees_the_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    gradients: list = []
    model = Recorder([])
    model.weight.register_hook(gradients.append)
    monkeypatch.setattr(_measure, '_build', lambda *_: model)
    Runner(CASE).step()
    assert len(gradients) == 1
    assert model.weight.grad is None


def test_attention_has_the_sizes_of_stage_3() -> None:
    runner = Runner(replace(model='attention', height=64, width=100))
    assert [tuple(t.shape) for t in runner.model.tensors] == [
        *[(2, 12, 4 * 7, 32)] * 3,
        (12, 27, 27),
        (2, 3, 28, 2),
    ]
    assert runner.step() > 0


def test_tables_show_results_errors_and_ratios() -> None:
    results = [
        Measurement(replace(model='dat-t'), 9.0, [1.0, 2.0, 6.0], 100.0),
        Measurement(replace(model='dat-t', backend='reference'), 9.0, [8.0], 400.0),
        Measurement(replace(model='swin-t', batch=1), 9.0, [8.0], 400.0),
        Measurement(replace(model='swin-t'), error='out of memory'),
    ]
    assert '| swin-t | 64 x 96 | 2 | float32 | training | out of memory |  |  |  |' in table(results)
    assert '| dat-t | 64 x 96 | 2 | float32 | training | 2 | 1 to 6 | 9 | 100 |' in table(results)
    rows = comparison(results).splitlines()[2:]  # without swin-t, which ran with another batch size
    assert rows == ['| dat-t vs. dat-t:reference | 64 x 96 | 2 | float32 | training | 4.00 | 0.25 | 0.25 |']
    assert comparison(results[:1]) == ''


def test_plot_skips_what_was_not_measured(tmp_path: Path) -> None:
    results = [Measurement(replace(width=width), 1.0, [1.0], peak) for width, peak in ((64, 10.0), (128, None))]
    plot(results, tmp_path / 'plot.png')
    assert (tmp_path / 'plot.png').stat().st_size > 5000


@pytest.mark.slow
def test_a_failed_peak_measurement_keeps_the_times() -> None:
    result = Measurement(replace(model='gone'), 1.0, [1.0])
    add_peak(result, threads=1)
    assert result.peak is None
    assert result.error.startswith('no peak memory: ')
    assert result.error.endswith('UserError: config gone does not exist (exit status 1)')
    assert result.seconds == [1.0]


def test_ctrl_c_keeps_the_results_so_far(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    def measure(cases: list[Case], *_: object) -> list[Measurement]:
        if cases[0].mode == 'training':
            raise KeyboardInterrupt
        return [Measurement(case, 3.0, [1.5, 2.5]) for case in cases]

    monkeypatch.setattr(benchmark, 'measure_times', measure)
    file = tmp_path / 'all.json'
    arguments = ['pvt-t', '--shape', '64x96', '--no-memory', '--json', str(file)]
    monkeypatch.setattr(sys, 'argv', ['benchmark.py', *arguments])
    benchmark.main()
    printed = capsys.readouterr().out
    assert 'stopped; these are the results so far' in printed
    assert '| pvt-t | 64 x 96 | 1 | float32 | forward | 2 | 1.5 to 2.5 | 3 |  |' in printed
    assert [m['case']['mode'] for m in json.loads(file.read_text())['measurements']] == ['forward']


@pytest.mark.parametrize(('busy', 'unreliable'), [(0.05, False), (0.5, True)])
def test_busy_machine_makes_the_results_unreliable(
    busy: float, unreliable: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr(benchmark, 'measure_times', lambda cases, *_: [Measurement(c, 1.0, [1.0]) for c in cases])
    monkeypatch.setattr(benchmark.OtherProcesses, 'busy_cores', lambda _: busy)
    file = tmp_path / 'all.json'
    monkeypatch.setattr(sys, 'argv', ['benchmark.py', 'pvt-t', '--no-memory', '--json', str(file)])
    benchmark.main()
    message = 'Unreliable: other processes kept 0.50 cores busy on average.'
    assert (message in capsys.readouterr().out) == unreliable
    assert json.loads(file.read_text())['others_busy_cores'] == busy


def test_a_case_that_runs_out_of_memory_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    class Huge(Recorder):
        def forward(self, x: Tensor) -> tuple[Tensor]:
            if len(self.calls) == 1:
                return (torch.empty(2**50) * self.weight,)
            return super().forward(x)

    calls: list = []
    monkeypatch.setattr(_measure, '_build', lambda *_: Huge(calls))
    (result,) = measure_times([CASE], warmup=0, repeats=3, report=lambda: None)
    assert (result.error, result.seconds, result.median) == ('out of memory', [], None)
    assert len(calls) == 1


@pytest.mark.parametrize(
    'config', ['pvt/retinanet_pvt-t_fpn_1x_coco.py', 'demo/fpn_dpt_shapes.py', 'demo/dat_shapes.py']
)
def test_the_backbone_of_a_config_runs(config: str) -> None:
    name, backend = parse_model(f'{ROOT}/configs/{config}:reference')
    assert backend == 'reference'
    assert Runner(replace(model=name, backend=backend, height=64, width=64)).step() > 0


@pytest.mark.slow
def test_compile_compiles_every_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also beyond torch's limit of recompilations of the same code, which the models share."""
    compiled: list = []

    def backend(graph: torch.fx.GraphModule, _inputs: list) -> object:
        compiled.append(graph)
        return graph.forward

    compile_ = torch.compile
    monkeypatch.setattr(torch, 'compile', lambda model, **kwargs: compile_(model, backend=backend, **kwargs))
    monkeypatch.setattr(_measure, '_build', lambda *_: nn.Sequential(nn.Conv2d(3, next(channels), 1), Tupled()))
    channels = iter(range(1, 13))
    cases = [replace(mode='forward', compile=True)] * 12
    assert all(r.error is None for r in measure_times(cases, warmup=0, repeats=1, report=lambda: None))
    assert len(compiled) >= len(cases)


@pytest.mark.slow
def test_benchmark_writes_a_table_json_and_a_plot(tool, tmp_path: Path) -> None:
    args = ['--shape', '64x96', '--mode', 'forward', '--repeats', '2', '--json', 'all.json', '--plot', 'all.png']
    done = tool('benchmark.py', 'pvt-t', 'mmdet-pvt-t', *args)
    assert '| pvt-t vs. mmdet-pvt-t | 64 x 96 | 1 | float32 | forward |' in done.stdout
    written = json.loads((tmp_path / 'all.json').read_text())
    assert [m['case']['model'] for m in written['measurements']] == ['pvt-t', 'mmdet-pvt-t']
    for measurement in written['measurements']:
        assert len(measurement['seconds']) == 2
        assert measurement['peak'] > 50  # 13 M parameters
    assert (tmp_path / 'all.png').exists()


@pytest.mark.parametrize(
    ('args', 'words'),
    [
        (['resnet'], 'resnet is neither a config file nor one of pvt-t, '),
        (['dat-t:fast'], 'dat-t:fast: the backend must be one of auto, reference, chunked, separable'),
        (['pvt-t', '--shape', '20'], '--shape 20: give a height and a width of at least 32 pixels'),
        (['pvt-t', '--shape', '64,64'], '--shape 64,64: give a height and a width'),
        (['pvt-t', '--repeats', '0'], '--repeats must be at least 1, got 0'),
        (['pvt-t', '--batch', '0'], '--batch and --threads must be at least 1'),
        (['pvt-t', '--threads', '-1'], '--batch and --threads must be at least 1'),
        (['swin-t:reference'], 'swin-t:reference: swin-t has only the backends auto'),
        (['pvt-t:chunked'], 'pvt-t:chunked: pvt-t has only the backends auto, reference'),
        (['dpt-t:separable'], 'dpt-t has only the backends auto, reference, grid_sample, mmcv'),
        (['gone.py'], 'config gone.py does not exist'),
        (['pvt-t', '--plot', 'all.foo'], '--plot all.foo: the file must end with one of '),
        (['pvt-t', '--device', 'cuda'], '--device cuda: torch sees no CUDA device'),
        (['pvt-t', '--json', 'gone/all.json'], 'gone/all.json: its directory does not exist'),
        (['pvt-t', '--json', 'a.png', '--plot', './a.png'], '--json and --plot both name a.png'),
        (['pvt-t', '--json', __file__], f'{__file__} exists; choose another file'),
    ],
)
def test_invalid_arguments_are_one_line_errors(
    args: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys, 'argv', ['benchmark.py', *args])
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(SystemExit) as stopped:
        benchmark.main()
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
