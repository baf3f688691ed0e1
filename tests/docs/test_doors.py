"""Packages import only what docs/architecture.md allows, so that nothing points back."""

import ast
from pathlib import Path

from running import ROOT

PACKAGE = ROOT / 'projects' / 'deformable_vit'
MAY_IMPORT = {
    'ops': set(),
    'layers': {'ops'},
    'checkpoints': {'ops'},
    'backbones': {'checkpoints', 'layers', 'ops'},
    'datasets': set(),
    'engine': {'checkpoints'},
    'checks': {'checkpoints', 'engine'},
    'apis': {'checkpoints', 'checks', 'engine', 'ops'},
    'export': {'apis', 'ops'},
    'visualization': {'apis', 'backbones', 'checkpoints', 'engine', 'layers', 'ops'},
}


def imported(file: Path) -> set[str]:
    """Return the packages and modules of deformable_vit that a file imports anywhere."""
    own = ('deformable_vit', *file.relative_to(PACKAGE).with_suffix('').parts)
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = '.'.join(own[: len(own) - node.level]) if node.level else ''
            module = '.'.join(part for part in (base, node.module) if part)
            names |= {f'{module}.{alias.name}' for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {parts[1] for name in names if (parts := name.split('.'))[0] == 'deformable_vit' and len(parts) > 1}


def test_packages_import_what_they_may() -> None:
    assert {p.parent.name for p in PACKAGE.glob('*/__init__.py')} <= set(MAY_IMPORT)
    found = {
        str(file.relative_to(PACKAGE)): wrong
        for package, allowed in MAY_IMPORT.items()
        for file in (PACKAGE / package).rglob('*.py')
        if (wrong := {n for n in imported(file) if not n.startswith('_')} - allowed - {package, 'errors'})
    }
    assert found == {}
