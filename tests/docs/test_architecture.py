"""docs/architecture.md: the packages import what its table says, and the frames are those that run."""

import ast
import re
import sys
from pathlib import Path
from types import FrameType

import pytest
import torch
from pages import inline_code, table
from running import ROOT

from deformable_vit import DAT
from deformable_vit.ops import use_backend

PAGE = Path('docs/architecture.md')
PACKAGE = ROOT / 'projects' / 'deformable_vit'
SHARED = {'_nested'}  # modules that every package may import
MAY_IMPORT = {inline_code(row[0])[0]: set(inline_code(row[2])) for row in table(PAGE, 'package of `deformable_vit`')}


def imported_packages(file: Path) -> set[str]:
    """Return the packages of deformable_vit that a file imports anywhere."""
    own = ('deformable_vit', *file.relative_to(PACKAGE).with_suffix('').parts)
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            # Level 1 is the package of the file.
            base = '.'.join(own[: len(own) - node.level]) if node.level else ''
            module = '.'.join(part for part in (base, node.module) if part)
            names |= {f'{module}.{alias.name}' for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {parts[1] for name in names if (parts := name.split('.'))[0] == 'deformable_vit' and len(parts) > 1}


def test_table_lists_every_package() -> None:
    assert set(MAY_IMPORT) == {p.parent.name for p in PACKAGE.glob('*/__init__.py')}


def test_diagram_agrees_with_the_table() -> None:
    edges = re.findall(r'^ +(\w+)(?:\["[^"]*"\])? --> (\w+)$', (ROOT / PAGE).read_text(), re.MULTILINE)
    between = {(a, b) for a, b in edges if a in MAY_IMPORT and b in MAY_IMPORT}
    assert {a for a, _ in between} == {name for name, allowed in MAY_IMPORT.items() if allowed}
    assert all(b in MAY_IMPORT[a] for a, b in between)
    used = set()
    for file in (ROOT / 'tools').glob('*.py'):
        modules = [n.module for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.ImportFrom)]
        used |= {module.split('.')[1] for module in modules if module and module.startswith('deformable_vit.')}
    assert {b for a, b in edges if a == 'tools'} == used


def test_imported_packages_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], 'PACKAGE', tmp_path)
    file = tmp_path / 'backbones' / 'dat' / 'dat.py'
    file.parent.mkdir(parents=True)
    file.write_text(
        'import torch\nfrom ...layers import MLP\nfrom ..base import X\nfrom . import arch\n'
        'def f():\n    import deformable_vit.engine.cli\n    from deformable_vit import datasets\n'
    )
    assert imported_packages(file) == {'layers', 'backbones', 'engine', 'datasets'}


@pytest.mark.parametrize('package', MAY_IMPORT)
def test_package_imports_what_the_table_allows(package: str) -> None:
    files = sorted((PACKAGE / package).rglob('*.py'))
    assert files
    found = {file.relative_to(PACKAGE).as_posix(): imported_packages(file) - {package} - SHARED for file in files}
    assert {file: names - MAY_IMPORT[package] for file, names in found.items() if names - MAY_IMPORT[package]} == {}
    assert set().union(*found.values()) == MAY_IMPORT[package], 'the table allows what is not used'


@pytest.mark.parametrize('module', sorted(SHARED))
def test_shared_modules_import_nothing(module: str) -> None:
    assert imported_packages(PACKAGE / f'{module}.py') == set()


def test_frames_from_the_backbone_to_the_arithmetic() -> None:
    documented = [(row[0].strip('`'), row[1].strip('`')) for row in table(PAGE, 'frame')]
    backbone, stacks = DAT('tiny', out_indices=(2,)).eval(), []

    def record(frame: FrameType, event: str, _arg: object) -> None:
        if event == 'call' and frame.f_code.co_name == documented[-1][0]:
            stack: list[tuple[str, str]] = []
            caller: FrameType | None = frame
            while caller is not None:
                file = Path(caller.f_code.co_filename)
                if file.is_relative_to(PACKAGE):
                    stack.append((caller.f_code.co_qualname, file.relative_to(PACKAGE).as_posix()))
                caller = caller.f_back
            stacks.append(stack[::-1])

    with torch.no_grad(), use_backend('separable'):
        sys.setprofile(record)
        try:
            backbone(torch.zeros(1, 3, 32, 32))
        finally:
            sys.setprofile(None)
    assert stacks == [documented] * 3  # DAT-T has three deformable blocks in stage 3
    text = (ROOT / PAGE).read_text()
    count = re.search(r'there are (\w+) frames in (\w+) files', text)
    numbers = {'six': 6, 'five': 5, 'four': 4, 'three': 3}
    assert [numbers[word] for word in count.groups()] == [len(documented), len({file for _, file in documented})]
