"""README.md and docs/*.md: links, paths, commands, flags and snippets exist and run."""

import argparse
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from pages import LINKED_PAGES, PAGES, Block, anchors, blocks, inline_code, links, prose, read, table
from PIL import Image
from running import ROOT

import deformable_vit

README = Path('README.md')
MAKEFILE = (ROOT / 'Makefile').read_text()
TARGETS = set(re.findall(r'^([a-z][a-z-]*):', MAKEFILE, re.MULTILINE))


class Stopped(BaseException):
    """Raised in place of running a tool, once its command line is parsed."""


def parser_of(monkeypatch: pytest.MonkeyPatch, tool: str, args: list[str] | None) -> argparse.ArgumentParser:
    """Return the parser of a tool after it has parsed a command line; None: without parsing one."""
    original, parsers = argparse.ArgumentParser.parse_args, []

    def parse_args(self: argparse.ArgumentParser, *a: object, **k: object) -> None:
        parsers.append(self)
        if args is not None:
            original(self, *a, **k)
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, 'parse_args', parse_args)
        patch.setattr(sys, 'argv', [tool, *(args or [])])
        with pytest.raises(Stopped):
            runpy.run_path(str(ROOT / tool), run_name='__main__')
    return parsers[0]


def commands() -> list[tuple[str, list[str]]]:
    """Return each command of the bash blocks and of inline code, with the page that it is on."""
    lines = [(b.page, line) for b in blocks('bash') for line in b.text.replace('\\\n', ' ').splitlines()]
    lines += [
        (page, code if code.startswith(('python ', 'make ')) else f'python {code}')
        for page in PAGES
        for code in inline_code(prose(page))
        if re.match(r'(python |make [a-z]|tools/\w+\.py \S)', code)
    ]
    found = []
    for page, line in lines:
        for command in line.split('&&'):
            if words := shlex.split(command, comments=True):
                found.append((str(page), words))
    return found


COMMANDS = commands()
TOOL_COMMANDS = [
    (page, words[1:]) for page, words in COMMANDS if words[0].endswith('python') and words[1].startswith('tools/')
]


def test_pages_have_commands_of_each_kind() -> None:
    assert len(TOOL_COMMANDS) > 10
    assert {words[0] for _, words in COMMANDS} >= {'make', 'python', 'bash', 'source'}
    assert len(blocks('python')) > 3


@pytest.mark.parametrize('page', LINKED_PAGES, ids=str)
def test_relative_links_resolve(page: Path) -> None:
    for target in links(page):
        if re.match(r'(https?|mailto):', target):
            continue
        name, _, anchor = target.partition('#')
        linked = (ROOT / page.parent / name).resolve() if name else ROOT / page
        assert linked.exists(), f'{page} links to {target}'
        if anchor:
            assert anchor in anchors(linked.relative_to(ROOT)), f'{page} links to {target}'


@pytest.mark.parametrize('page', PAGES, ids=str)
def test_named_paths_exist(page: Path) -> None:
    code = inline_code(prose(page)) + [b.text for b in blocks('bash') if b.page == page]
    names = re.findall(
        r'(?<![\w./:-])((?:configs|docs|tests|tools|projects|deformable_vit)/[\w./*-]*)', '\n'.join(code)
    )
    for name in names:
        path = f'projects/{name}' if name.startswith('deformable_vit/') else name
        if 'NAME' not in path and page != Path('CHANGELOG.md'):
            assert any(ROOT.glob(path.rstrip('/'))), f'{page} names {name}'


@pytest.mark.parametrize(('page', 'words'), COMMANDS, ids=lambda x: x if isinstance(x, str) else ' '.join(x)[:60])
def test_commands_exist(page: str, words: list[str]) -> None:
    if words[0] == 'make':
        targets = [word for word in words[1:] if '=' not in word]
        assert set(targets) <= TARGETS or page == 'CHANGELOG.md', f'make {targets}'
    for word in words:
        if word.startswith(('configs/', 'tools/')):
            assert (ROOT / word).exists(), word


@pytest.mark.parametrize(('page', 'words'), TOOL_COMMANDS, ids=lambda x: x if isinstance(x, str) else ' '.join(x)[:60])
def test_command_lines_parse(page: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert parser_of(monkeypatch, words[0], words[1:])


def test_flags_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    tools = {words[0] for _, words in TOOL_COMMANDS}
    options = {tool: set(parser_of(monkeypatch, tool, None)._option_string_actions) for tool in tools}
    for page in PAGES:
        for line in prose(page).splitlines():
            flags = {code.split()[0] for code in inline_code(line) if code.startswith('--')}
            named = [tool for tool in tools if line.startswith(f'| `{tool}')]
            known = set().union(*(options[tool] for tool in named or tools))
            assert flags <= known, f'{page}: {flags - known}'


@pytest.mark.parametrize('page', PAGES, ids=str)
def test_environment_variables_exist(page: Path) -> None:
    files = [p for directory in ('projects', 'tools') for p in (ROOT / directory).rglob('*')]
    text = '\n'.join(p.read_text() for p in files if p.suffix in ('.py', '.sh'))
    for name in re.findall(r'DEFORMABLE_VIT_[A-Z]+', read(page)):
        assert name in text, f'{page} names {name}'


@pytest.mark.parametrize('block', blocks('python'), ids=str)
def test_python_snippets_compile(block: Block) -> None:
    compile(block.text, str(block.page), 'exec')


def test_first_snippet_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = next(b for b in blocks('python') if b.page == README)
    assert len([line for line in block.text.splitlines() if line]) == 5
    (tmp_path / 'docs').mkdir()
    Image.new('RGB', (96, 64)).save(tmp_path / 'docs' / 'demo.jpg')
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    with torch.no_grad():
        exec(compile(block.text, 'README.md', 'exec'), names)
    sizes = [(1, c, 64 // s, 96 // s) for c, s in zip(names['backbone'].out_channels, (4, 8, 16, 32), strict=True)]
    assert [tuple(feature_map.shape) for feature_map in names['feature_maps']] == sizes


def test_snippet_of_the_recording_runs() -> None:
    (block,) = (b for b in blocks('python') if 'visualization import record' in b.text)
    names: dict = {}
    exec(compile(block.text, 'README.md', 'exec'), names)
    assert names['layer'].kind == 'deformable'
    assert names['locations'].shape == (6, 49, 2)
    assert names['attention'].shape == (24, 1, 49)


def test_backend_snippet_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = (b for b in blocks('python') if b.page == Path('docs/performance.md'))
    exec(compile(block.text, 'performance.md', 'exec'), {})
    assert capsys.readouterr().out.startswith('reference of')
    documented = [row[0].strip('`') for row in table(Path('docs/performance.md'), 'backend')]
    assert documented == list(deformable_vit.ops.BACKENDS)


def test_config_example_trains_every_parameter(tmp_path: Path) -> None:
    """A parameter without gradient stops distributed training; the neck has to use every output."""
    (block,) = (b for b in blocks('python') if b.page == README and '_base_' in b.text)
    file = tmp_path / 'example.py'
    file.write_text(block.text)
    config = Config.fromfile(file)
    assert config.model.backbone.init_cfg.checkpoint.endswith('.pth')
    config.model.backbone.init_cfg = None
    backbone, neck = MODELS.build(config.model.backbone), MODELS.build(dict(config.model.neck, _scope_='mmdet'))
    assert backbone.out_channels == tuple(config.model.neck.in_channels)
    sum(out.square().mean() for out in neck(backbone(torch.randn(1, 3, 64, 64)))).backward()
    assert [name for name, p in backbone.named_parameters() if p.requires_grad and p.grad is None] == []

    optimizer = config.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', 1e-4, 0.05)
    assert 'momentum' not in optimizer
    for key in config.optim_wrapper.paramwise_cfg.custom_keys:
        assert any(key in name for name, _ in backbone.named_parameters()), key


def test_table_of_types() -> None:
    documented: dict[str, list[str]] = {}
    for kind, archs, channels, *_ in table(README, '`type`'):
        for arch in inline_code(archs):
            with torch.device('meta'):
                backbone = MODELS.build(dict(type=kind.strip('`'), arch=arch))
            assert backbone.out_channels == tuple(map(int, channels.split(','))), arch
            documented.setdefault(kind.strip('`'), []).append(arch)
    assert {name: set(archs) for name, archs in documented.items()} == {
        name: set(getattr(deformable_vit, name).arch_zoo) for name in ('PVT', 'PVTv2', 'DPT', 'DAT')
    }


def test_versions_are_those_of_the_requirements() -> None:
    pins = dict(re.findall(r'^(\w+)==(\d+\.\d+)', (ROOT / 'requirements.txt').read_text(), re.MULTILINE))
    names = {'PyTorch': 'torch', 'mmdet': 'mmdet', 'mmseg': 'mmsegmentation', 'mmpretrain': 'mmpretrain'}
    (row,) = (line for line in read(README).splitlines() if line.startswith('| installs with |'))
    assert row.split('|')[2].strip() == ', '.join(f'{name} {pins[pin]}' for name, pin in names.items())


@pytest.mark.parametrize('row', table(README, 'model'), ids=lambda row: row[0])
def test_parameters_in_the_table_of_models(row: list[str]) -> None:
    kind, arch = inline_code(row[1])
    config = dict(type=kind, arch=arch, out_indices=(3,))
    if kind in ('PVT', 'DPT'):
        config['out_type'] = 'cls_token'
    if row[0] == 'DAT-B, 384':
        config.update(pretrain_img_size=384, window_size=12)
    with torch.device('meta'):
        backbone = MODELS.build(config)
    head = 1000 * (backbone.out_channels[0] + 1)
    parameters = sum(p.numel() for p in backbone.parameters()) + head
    assert f'{parameters / 1e6:.2f}' == row[2]
