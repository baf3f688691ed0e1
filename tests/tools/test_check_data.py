"""tools/check_data.py: good data passes, and problems are named by file and record; training stops at the first."""

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from own_data import CLASSES, fill_in, write_coco

from deformable_vit.apis.config import load_config
from deformable_vit.checks import check


def test_built_in_data_has_no_problems(config: Callable[..., Path]) -> None:
    for demo in ('mask-rcnn_pvt_shapes.py', 'fpn_pvt_shapes.py', 'pvt_shapes.py'):
        loaded = load_config(str(config(demo)), {})
        seen: list[tuple[int, int]] = []
        report = check(loaded, progress=lambda done, total, seen=seen: seen.append((done, total)))
        assert list(report) == list(check(loaded, quick=True)) == []
        assert seen[-1] == (report.checked['images'], report.checked['images'])


@pytest.mark.slow
def test_bad_annotations_and_images_are_named(tool, shapes: Path, tmp_path: Path) -> None:
    root = tmp_path / 'coco'
    write_coco(shapes, root)
    path = fill_in(tmp_path / 'detection.py', 'detection', root, classes=CLASSES)
    assert check(load_config(str(path), {})).summary().endswith('2 annotation files, 12 images: 0 errors, 0 warnings')
    content = json.loads((root / 'train.json').read_text())
    boxes = Counter(a['category_id'] for a in content['annotations'])
    wheel = next(c['id'] for c in content['categories'] if c['name'] == 'wheel')
    done = tool('check_data.py', path, '--only', 'train', '--json', 'good.json')
    assert re.search(rf'^wheel +\d+ +{boxes[wheel]} +[\d.]+ x [\d.]+ +[\d.]+ x [\d.]+$', done.stdout, re.MULTILINE)
    assert re.search(r'^window \(no class\) +\d+', done.stdout, re.MULTILINE)
    counts = json.loads((tmp_path / 'good.json').read_text())['counts']['train_dataloader']
    assert (counts['wheel']['boxes'], counts['window']['is_class']) == (boxes[wheel], False)
    for annotation in content['annotations']:
        del annotation['iscrowd']
    (root / 'train.json').write_text(json.dumps(content))
    done = tool('check_data.py', path, '--only', 'train', '--fix', 'new.json')
    assert f'{len(content["annotations"]):>7}  annotation: iscrowd=0 added' in done.stdout
    assert f"set train_dataloader.dataset.ann_file to '{tmp_path / 'new.json'}'" in done.stdout
    assert 'the file exists' in tool('check_data.py', path, '--only', 'train', '--fix', 'new.json', ok=False).stderr
    content = json.loads((tmp_path / 'new.json').read_text())
    content['annotations'][0]['bbox'][2] = 'wide'
    content['images'][1]['width'] = 300
    (root / 'train.json').write_text(json.dumps(content))
    gone, damaged = (root / 'train' / content['images'][i]['file_name'] for i in (2, 3))
    gone.unlink()
    damaged.write_bytes(damaged.read_bytes()[:-200])
    done = tool('check_data.py', path, '--json', 'bad.json', ok=False)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == 'checked 2 annotation files, 12 images: 4 errors, 0 warnings'
    problems = {
        (p['file'], p['record']): p['kind'] for p in json.loads((tmp_path / 'bad.json').read_text())['problems']
    }
    first = f'annotation {content["annotations"][0]["id"]}'
    assert problems[f'{root}/train.json', first] == 'a box is not four finite numbers'
    assert problems[str(gone), 'image 3'] == 'the image does not exist'
    assert problems[str(damaged), 'image 4'] == 'the image is truncated or broken'
    assert 'the annotation file has another size than the image' in done.stdout
    done = tool('train.py', path, ok=False)
    assert done.returncode == 2
    assert 'Traceback' not in done.stderr
    assert 'train.py: error: train_dataloader: ' in done.stderr
    assert 'a box is not four finite numbers' in done.stderr
