"""Snippets of README.md and docs/*.md, and what they need to run."""

import re
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from running import ROOT


def blocks(page: str, language: str) -> list[str]:
    """Return the code blocks of a page in a language."""
    return re.findall(rf'^```{language}\n(.*?)^```$', (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


def snippet(page: str, part: str) -> str:
    """Return the Python block of a page that contains a text."""
    (found,) = (text for text in blocks(page, 'python') if part in text)
    return found


def run(text: str) -> dict:
    """Run a snippet and return its variables."""
    names: dict = {}
    exec(compile(text, 'snippet', 'exec'), names)
    return names


def write_checkpoint(config: str, path: Path, meta: dict) -> None:
    """Write an untrained model of a config where the snippet expects a checkpoint."""
    loaded = Config.fromfile(config)
    init_default_scope(loaded.default_scope)
    loaded.model.backbone.init_cfg = None
    if loaded.default_scope == 'mmpretrain':
        loaded.model.data_preprocessor = loaded.data_preprocessor
    path.parent.mkdir(parents=True)
    torch.save(dict(state_dict=MODELS.build(loaded.model).state_dict(), meta=meta), path)
