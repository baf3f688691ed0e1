"""Files around the code: pre-commit, CI, issue forms, citation, changelog."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from pages import table
from running import ROOT

import deformable_vit

MAKEFILE = (ROOT / 'Makefile').read_text()
TARGETS = set(re.findall(r'^([a-z][a-z-]*):', MAKEFILE, re.MULTILINE))


def load(path: str) -> dict:
    return yaml.safe_load((ROOT / path).read_text())


def test_pre_commit_runs_what_make_lint_runs() -> None:
    (recipe,) = re.findall(r'^lint:.*\n((?:\t.*\n)+)', MAKEFILE, re.MULTILINE)
    in_make = re.findall(r'\.venv/bin/(ruff check|ruff format|mypy|codespell)', recipe)
    hooks = [hook['entry'] for repo in load('.pre-commit-config.yaml')['repos'] for hook in repo['hooks']]
    assert [entry.removeprefix('.venv/bin/').removesuffix(' --force-exclude') for entry in hooks] == in_make
    assert len(in_make) == 4


def test_ci_runs_existing_targets() -> None:
    steps = load('.github/workflows/ci.yml')['jobs']['test']['steps']
    events = {step['run']: re.findall(r"event_name == '(\w+)'", step.get('if', '')) for step in steps if 'run' in step}
    assert events == {
        'make setup': [],
        'make lint test-fast': ['push', 'pull_request'],
        'make test': ['schedule', 'workflow_dispatch'],
    }
    assert {target for run in events for target in run.split()[1:]} <= TARGETS
    setup = (ROOT / 'tools' / 'setup.sh').read_text()
    caches = {step['with']['path'] for step in steps if 'actions/cache' in step.get('uses', '')}
    assert caches == {'~/.cache/deformable-vit'}
    assert '${XDG_CACHE_HOME:-$HOME/.cache}/deformable-vit/wheels' in setup


def test_ci_runs_every_supported_stack() -> None:
    job = load('.github/workflows/ci.yml')['jobs']['test']
    assert job['strategy']['fail-fast'] is False
    rows = job['strategy']['matrix']['include']
    classifiers = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['classifiers']
    assert {f'Programming Language :: Python :: {row["python"]}' for row in rows} <= set(classifiers)
    assert [row['name'] for row in rows] == [cells[0] for cells in table(Path('README.md'), 'stack')]

    # Each variable of the job is one that the set-up reads, and makes a cache of its own.
    setup = (ROOT / 'tools' / 'setup.sh').read_text()
    (key,) = (step['with']['key'] for step in job['steps'] if step.get('id') == 'mmcv')
    for variable, field in {'PYTHON': 'python', 'TORCH': 'torch', 'STACK': 'stack'}.items():
        assert f'${{{{ matrix.{field} }}}}' in job['env'][variable]
        assert f'${{{{ matrix.{field} }}}}' in key
        assert f'${{{variable}:-' in setup
    (python,) = (step for step in job['steps'] if 'setup-python' in step.get('uses', ''))
    assert python['with']['python-version'] == '${{ matrix.python }}'


@pytest.mark.parametrize('name', ['bug', 'feature', 'question'])
def test_issue_forms_have_what_github_requires(name: str) -> None:
    form = load(f'.github/ISSUE_TEMPLATE/{name}.yml')
    assert {'name', 'description', 'body'} <= set(form)
    ids = [field['id'] for field in form['body'] if field['type'] != 'markdown']
    assert len(ids) == len(set(ids)) > 0
    assert all('label' in field['attributes'] for field in form['body'] if field['type'] != 'markdown')


def test_citation_has_the_papers_of_the_bibtex() -> None:
    citation = load('CITATION.cff')
    assert citation['license'] == 'Apache-2.0'
    assert {'cff-version', 'message', 'title', 'authors'} <= set(citation)
    bibtex = re.findall(r'^  title += \{(.+)\},', (ROOT / 'docs' / 'citation.md').read_text(), re.MULTILINE)
    titles = [re.sub(r'[{}]', '', title) for title in bibtex]
    assert [reference['title'] for reference in citation['references']] == titles
    assert len(titles) == 5


def test_changelog_begins_with_the_version_of_the_package() -> None:
    versions = re.findall(r'^## \[(.+?)\]', (ROOT / 'CHANGELOG.md').read_text(), re.MULTILINE)
    assert next(v for v in versions if v != 'Unreleased') == deformable_vit.__version__
