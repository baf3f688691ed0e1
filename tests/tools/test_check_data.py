"""tools/check_data.py: good data passes, and problems are found in every layout."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from deformable_vit.engine.data_checks.check import check_datasets
from own_data import CLASSES, SEG_CLASSES, fill_in, write_coco, write_masks, write_voc
from PIL import Image

from deformable_vit.engine import UserError, load_config, quick_check


def shown(report) -> list[str]:
    return [str(problem) for problem in report.errors]


@pytest.mark.parametrize('demo', ['mask-rcnn_pvt_shapes.py', 'fpn_pvt_shapes.py', 'pvt_shapes.py'])
def test_built_in_data_has_no_problems(config: Callable[..., Path], demo: str) -> None:
    loaded = load_config(str(config(demo)), {})
    seen: list[tuple[int, int]] = []
    report = check_datasets(loaded, progress=lambda done, total: seen.append((done, total)))
    assert report.problems == []
    assert seen[-1] == (report.checked['images'], report.checked['images'])
    assert report.checked['images'] >= 10
    assert check_datasets(loaded, quick=True).problems == []
    quick_check(loaded, demo)


def test_own_data_has_no_problems(shapes: Path, tmp_path: Path) -> None:
    for template, write, classes in (
        ('detection', write_coco, CLASSES),
        ('voc', write_voc, CLASSES),
        ('segmentation', write_masks, SEG_CLASSES),
    ):
        root = tmp_path / template
        write(shapes, root)
        path = fill_in(tmp_path / f'{template}.py', template, root, classes=classes)
        report = check_datasets(load_config(str(path), {}))
        assert shown(report) == [], template
        assert report.checked['images'] == 12


def test_problems_of_annotations_and_images(shapes: Path, tmp_path: Path) -> None:
    root = tmp_path / 'coco'
    write_coco(shapes, root)
    path = fill_in(tmp_path / 'detection.py', 'detection', root, classes=CLASSES)
    content = json.loads((root / 'train.json').read_text())
    content['annotations'][0]['bbox'][2] = 'wide'
    content['images'][1]['width'] = 300
    (root / 'train.json').write_text(json.dumps(content))
    (root / 'train' / content['images'][2]['file_name']).unlink()
    found = shown(check_datasets(load_config(str(path), {})))
    assert len(found) == 3
    assert f'annotation {content["annotations"][0]["id"]}: a box is not four finite numbers' in ' '.join(found)
    assert f'image {content["images"][1]["id"]}: the annotation file has another size' in ' '.join(found)
    assert f'{content["images"][2]["file_name"]}: the image does not exist' in ' '.join(found)
    with pytest.raises(UserError, match='and 2 more; python tools/check_data.py x.py lists all problems, --no-check'):
        quick_check(load_config(str(path), {}), 'x.py')


def test_problems_of_masks(shapes: Path, tmp_path: Path) -> None:
    root = tmp_path / 'masks'
    write_masks(shapes, root)
    path = fill_in(tmp_path / 'segmentation.py', 'segmentation', root, classes=SEG_CLASSES)
    first, second, *_ = sorted((root / 'annotations' / 'training').glob('*.png'))
    Image.open(first).resize((20, 20)).save(first)
    second.unlink()
    found = ' '.join(shown(check_datasets(load_config(str(path), {}))))
    assert f'{first}: the mask has another size than the image (20 x 20' in found
    assert f'{second}: the mask does not exist' in found


@pytest.mark.slow
def test_the_tool(tool, config: Callable[..., Path], shapes: Path, tmp_path: Path) -> None:
    cfg = config('pvt_shapes.py')
    done = tool('check_data.py', cfg, '--json', 'good.json')
    images = [file for file in (shapes / 'imagenet').rglob('*') if file.suffix in ('.jpg', '.png')]
    assert f'checked {len(images)} images: 0 errors, 0 warnings' in done.stdout.splitlines()[-1]
    assert json.loads((tmp_path / 'good.json').read_text())['problems'] == []

    done = tool('check_data.py', cfg, '--json', 'bad.json', '--cfg-options', 'model.head.num_classes=4', ok=False)
    assert done.returncode == 1
    assert 'another number of classes than the config' in done.stdout
    assert json.loads((tmp_path / 'bad.json').read_text())['errors'] == 3  # of each dataloader
    done = tool('train.py', cfg, '--cfg-options', 'model.head.num_classes=4', ok=False)
    assert done.returncode == 2
    assert 'train.py: error: train_dataloader: ' in done.stderr
    assert 'Traceback' not in done.stderr
