"""tools/benchmark.py: what it runs, what it says, and what it refuses."""

import json
import subprocess
import sys
from pathlib import Path

import _measure
import pytest
import torch
from _measure import Case, Measurement, Runner, measure_peak, measure_times, parse_model, watch_others
from benchmark import add_peak, comparison, plot, table
from running import ROOT
from torch import Tensor, nn

from deformable_vit.ops import current_path

CASE = Case('pvt-t', 'auto', 'training', 64, 96, 2, 'float32', 'cpu', compile=False)


class Witness(nn.Module):
    """Notes how it is called, on a list that all of its kind share."""

    def __init__(self, seen: list) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.seen = seen

    def forward(self, x: Tensor) -> tuple[Tensor]:
        dtype = torch.get_autocast_dtype('cpu') if torch.is_autocast_enabled('cpu') else torch.float32
        self.seen.append((current_path(), self.training, torch.is_grad_enabled(), dtype, tuple(x.shape)))
        return (x * self.weight,)


class Tupled(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (x,)


def replace(**changes: object) -> Case:
    return Case(**{**CASE.__dict__, **changes})


def test_how_a_case_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list = []
    monkeypatch.setattr(_measure, '_build', lambda *_: Witness(seen))
    cases = [CASE, replace(mode='forward', path='reference', dtype='bfloat16')]
    steps: list = []
    results = measure_times(cases, warmup=1, repeats=2, report=lambda: steps.append(1))
    training = ('auto', True, True, torch.float32, (2, 3, 64, 96))
    forward = ('reference', False, False, torch.bfloat16, (2, 3, 64, 96))
    assert seen == [training, forward] * 3  # in turns
    assert len(steps) == 6
    assert [len(r.seconds) for r in results] == [2, 2]
    assert current_path() == 'auto'


def test_backward_is_part_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """And no gradient is left for the next step's memory."""
    gradients: list = []
    model = Witness([])
    model.weight.register_hook(gradients.append)
    monkeypatch.setattr(_measure, '_build', lambda *_: model)
    Runner(CASE).step()
    assert len(gradients) == 1
    assert model.weight.grad is None


def test_attention_is_that_of_stage_3() -> None:
    runner = Runner(replace(model='attention', height=64, width=100))
    assert [tuple(t.shape) for t in runner.model.tensors] == [
        *[(2, 12, 4 * 7, 32)] * 3,
        (12, 27, 27),
        (2, 3, 28, 2),
    ]
    assert runner.step() > 0


def test_the_tables() -> None:
    results = [
        Measurement(replace(model='dat-t'), 9.0, [1.0, 2.0, 6.0], 100.0),
        Measurement(replace(model='dat-t', path='reference'), 9.0, [8.0], 400.0),
        Measurement(replace(model='swin-t', batch=1), 9.0, [8.0], 400.0),
        Measurement(replace(model='swin-t'), error='out of memory'),
    ]
    assert '| swin-t | 64 x 96 | 2 | float32 | training | out of memory |  |  |  |' in table(results)
    assert '| dat-t | 64 x 96 | 2 | float32 | training | 2 | 1 to 6 | 9 | 100 |' in table(results)
    rows = comparison(results).splitlines()[2:]  # swin-t was run with another batch
    assert rows == ['| dat-t against dat-t:reference | 64 x 96 | 2 | float32 | training | 4.00 | 0.25 | 0.25 |']
    assert comparison(results[:1]) == ''


def test_plot_of_some_sizes(tmp_path: Path) -> None:
    results = [Measurement(replace(width=width), 1.0, [1.0], peak) for width, peak in ((64, 10.0), (128, None))]
    plot(results, tmp_path / 'plot.png')
    assert (tmp_path / 'plot.png').stat().st_size > 5000


def test_peak_holds_what_a_step_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    class Large(Witness):
        def forward(self, x: Tensor) -> tuple[Tensor]:
            return (torch.ones(100, 2**18) * self.weight,)  # 100 MiB, once more in the loss's square

    monkeypatch.setattr(_measure, '_build', lambda *_: Large([]))
    assert 180 < measure_peak(CASE) < 700


def test_a_peak_that_cannot_be_measured() -> None:
    """The process that is to measure it fails; the times stay."""
    result = Measurement(replace(model='gone'), 1.0, [1.0])
    add_peak(result, threads=1)
    assert result.peak is None
    assert result.error == 'no peak: benchmark.py: error: config gone does not exist (exit status 2)'


def test_stopped_in_between(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    """What was measured before Ctrl-C is shown and written; the system does not tell what others do."""
    import benchmark

    def measure(cases: list[Case], *_: object) -> list[Measurement]:
        if cases[0].mode == 'training':
            raise KeyboardInterrupt
        return [Measurement(case, 3.0, [1.5, 2.5]) for case in cases]

    monkeypatch.setattr(benchmark, 'measure_times', measure)
    monkeypatch.setattr(_measure, '_busy_seconds', lambda: None)
    file = tmp_path / 'all.json'
    arguments = ['pvt-t', '--shape', '64x96', '--no-memory', '--json', str(file)]
    monkeypatch.setattr(sys, 'argv', ['benchmark.py', *arguments])
    benchmark.main()
    printed = capsys.readouterr().out
    assert 'stopped; what follows was measured before' in printed
    assert '| pvt-t | 64 x 96 | 1 | float32 | forward | 2 | 1.5 to 2.5 | 3 |  |' in printed
    assert 'Whether others were at work on the machine is not known here.' in printed
    written = json.loads(file.read_text())
    assert [m['case']['mode'] for m in written['measurements']] == ['forward']
    assert written['others_busy_cores'] is None


@pytest.mark.parametrize(('own', 'share'), [(4.0, 0.0), (1.0, 1.5)])
def test_others_are_what_keeps_cores_busy_beside_oneself(
    own: float, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four seconds of work on the machine in two seconds, ``own`` of them one's own."""
    clocks = {'_busy_seconds': [10.0, 14.0], '_own_seconds': [3.0, 3.0 + own]}
    for name, values in clocks.items():
        monkeypatch.setattr(_measure, name, lambda values=values: values.pop(0))
    monkeypatch.setattr(_measure.time, 'perf_counter', lambda: 102.0)
    with watch_others() as others:
        monkeypatch.setattr(_measure.time, 'perf_counter', lambda: 104.0)
    assert others() == pytest.approx(share)


def test_clocks_run() -> None:
    """A child that spins is seen by the system's clock, and by the own one when it is finished."""
    busy, own = _measure._busy_seconds(), _measure._own_seconds()
    subprocess.run([sys.executable, '-c', 'import time\nwhile time.process_time() < 1: pass'], check=True)
    assert _measure._busy_seconds() - busy > 0.9
    assert _measure._own_seconds() - own > 0.9


def test_what_runs_out_of_memory_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class Huge(Witness):
        def forward(self, x: Tensor) -> tuple[Tensor]:
            if len(self.seen) == 1:
                return (torch.empty(2**50) * self.weight,)
            return super().forward(x)

    seen: list = []
    monkeypatch.setattr(_measure, '_build', lambda *_: Huge(seen))
    (result,) = measure_times([CASE], warmup=0, repeats=3, report=lambda: None)
    assert (result.error, result.seconds, result.median) == ('out of memory', [], None)
    assert len(seen) == 1


@pytest.mark.parametrize(
    'config', ['pvt/retinanet_pvt-t_fpn_1x_coco.py', 'demo/fpn_dpt_shapes.py', 'demo/dat_shapes.py']
)
def test_the_backbone_of_a_config(config: str) -> None:
    name, path = parse_model(f'{ROOT}/configs/{config}:reference')
    assert path == 'reference'
    assert Runner(replace(model=name, height=64, width=64)).step() > 0


def test_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each model is, however many share their code; the first call says what it takes."""
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


def test_the_whole_tool(tool, tmp_path: Path) -> None:
    args = ['--shape', '64x96', '--mode', 'forward', '--repeats', '2', '--json', 'all.json', '--plot', 'all.png']
    done = tool('benchmark.py', 'pvt-t', 'mmdet-pvt-t', *args)
    assert '| pvt-t against mmdet-pvt-t | 64 x 96 | 1 | float32 | forward |' in done.stdout
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
        (['dat-t:fast'], 'dat-t:fast: behind the colon goes one of auto, reference, blocks, products'),
        (['pvt-t', '--shape', '20'], '--shape 20: a height and a width of at least 32 pixels'),
        (['pvt-t', '--shape', '64,64'], '--shape 64,64: a height and a width'),
        (['pvt-t', '--repeats', '0'], '--repeats must be at least 1, got 0'),
        (['pvt-t', '--batch', '0'], '--batch and --threads must be at least 1'),
        (['pvt-t', '--threads', '-1'], '--batch and --threads must be at least 1'),
        (['swin-t:reference'], 'swin-t:reference: swin-t is of a host and goes one way only'),
        (['pvt-t:blocks'], 'blocks is a way of deformable attention, which pvt-t has not'),
        (['gone.py'], 'config gone.py does not exist'),
        (['pvt-t', '--plot', 'all.foo'], '--plot all.foo: name a picture that ends with one of '),
        (['pvt-t', '--device', 'cuda'], '--device cuda: torch sees no CUDA device'),
        (['pvt-t', '--json', 'gone/all.json'], 'gone/all.json: its folder does not exist'),
        (['pvt-t', '--json', 'a.png', '--plot', './a.png'], '--json and --plot both name a.png'),
        (['pvt-t', '--json', __file__], f'{__file__} is there already; name another file'),
    ],
)
def test_errors(args: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    import benchmark

    monkeypatch.setattr(sys, 'argv', ['benchmark.py', *args])
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(SystemExit) as stopped:
        benchmark.main()
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err
