"""The README's snippets with the inferencers of mmdet, mmseg and mmpretrain run as they stand there."""

import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from pages import Block, blocks
from PIL import Image
from running import ROOT

SNIPPETS = [block for block in blocks('python') if 'Inferencer(' in block.text]
CLASSES = ('wheel', 'roof', 'window', 'decoration', 'tire')


def write_checkpoint(config: str, path: Path, **meta: object) -> None:
    """Write an untrained model of a config where the snippet expects a checkpoint."""
    loaded = Config.fromfile(config)
    init_default_scope(loaded.default_scope)
    loaded.model.backbone.init_cfg = None
    if loaded.default_scope == 'mmpretrain':
        loaded.model.data_preprocessor = loaded.data_preprocessor
    model = MODELS.build(loaded.model)
    path.parent.mkdir(parents=True)
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)


@pytest.mark.slow
@pytest.mark.parametrize('block', SNIPPETS, ids=str)
def test_snippet_runs(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    (tmp_path / 'docs').mkdir()
    Image.new('RGB', (120, 90), (90, 40, 20)).save(tmp_path / 'docs' / 'demo.jpg')
    config = next(line for line in block.text.splitlines() if line.startswith('config = ')).split("'")[1]
    checkpoint = next(word for word in block.text.split("'") if word.endswith('.pth'))
    name = Path(config).name
    if name.startswith('mask-rcnn'):
        meta = dict(dataset_meta=dict(classes=CLASSES))
    elif name.startswith('fpn'):
        meta = dict(dataset_meta=dict(classes=('ground', *CLASSES), palette=[[40 * i, 0, 0] for i in range(6)]))
    else:
        meta = {}  # a converted checkpoint; the names are ImageNet's
    write_checkpoint(config, Path(checkpoint), **meta)

    names: dict = {}
    exec(compile(block.text, 'README.md', 'exec'), names)
    if 'detector' in names:
        found = names['found']
        assert {'bboxes', 'scores', 'labels', 'masks'} == set(found)
        assert set(names['names']) <= set(CLASSES)
        assert (tmp_path / 'predicted' / 'vis' / 'demo.jpg').is_file()
    elif 'segmentor' in names:
        assert names['label_map'].shape == (90, 120)
        assert names['names']
        assert set(names['names']) <= {'ground', *CLASSES}
        assert len(list((tmp_path / 'predicted' / 'vis').iterdir())) == 1
    else:
        assert names['result']['pred_class'] == names['classifier'].classes[names['result']['pred_label']]
        assert names['result']['pred_scores'].shape == (1000,)
    shutil.rmtree(tmp_path / checkpoint.split('/')[0])


def test_there_is_a_snippet_per_inferencer() -> None:
    kinds = ('DetInferencer(', 'MMSegInferencer(', 'ImageClassificationInferencer(')
    assert [sum(kind in block.text for block in SNIPPETS) for kind in kinds] == [1, 1, 1]
