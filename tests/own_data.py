"""Synthetic data laid out as the templates in configs/own_data expect it."""

import json
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
from running import ROOT

# Class names that no built-in dataset has.
NAMES = {'disc': 'wheel', 'triangle': 'roof', 'square': 'window', 'star': 'decoration', 'ring': 'tire'}
CLASSES = ('wheel', 'roof', 'tire')
SEG_CLASSES = ('ground', *NAMES.values())


def fill_in(path: Path, template: str, data_root: Path | None, **variables: object) -> Path:
    """Copy a template to ``path`` and set the variables at its top, as a user does."""
    text = (ROOT / 'configs' / 'own_data' / f'{template}.py').read_text()
    if '_base_' in variables:
        variables['_base_'] = str(ROOT / 'configs' / str(variables['_base_']))
    else:  # relative to configs/own_data
        text = text.replace("'../", f"'{ROOT}/configs/")
    if data_root:  # cityscapes.py has none
        variables['data_root'] = str(data_root)
    for name, value in variables.items():
        pattern = rf'^{name} = (\(\n.*?\n\)|[^\n]*)$'  # on one line, or in parentheses on several
        text, count = re.subn(pattern, lambda _, line=f'{name} = {value!r}': line, text, flags=re.MULTILINE | re.DOTALL)
        assert count == 1, name
    path.write_text(text)
    return path


def fill_in_mask2former(path: Path, template: str, data_root: Path | None, **variables: object) -> Path:
    """Fill in a template and append the lines that configs/own_data/README.md gives for Mask2Former."""
    fill_in(path, template, data_root, **variables)
    section = (ROOT / 'configs' / 'own_data' / 'README.md').read_text().split('## Mask2Former')[1].split('\n## ')[0]
    blocks = re.findall(r'```python\n(.*?)```', section, re.DOTALL)
    lines = dict(zip(('instance_segmentation', 'segmentation'), blocks, strict=True))
    path.write_text(path.read_text() + lines[template])
    return path


def write_coco(shapes: Path, root: Path) -> None:
    """Write images in train/ and val/, and train.json and val.json with other class names."""
    for part in ('train', 'val'):
        shutil.copytree(shapes / 'coco' / f'{part}2017', root / part)
        content = json.loads((shapes / 'coco' / 'annotations' / f'instances_{part}2017.json').read_text())
        for category in content['categories']:
            category['name'] = NAMES[category['name']]
        (root / f'{part}.json').write_text(json.dumps(content))


def write_masks(shapes: Path, root: Path) -> None:
    """Write images/ and annotations/ whose classes begin at 0, with 255 for ignored pixels."""
    shutil.copytree(shapes / 'ade' / 'images', root / 'images')
    for file in (shapes / 'ade' / 'annotations').rglob('*.png'):
        out = root / 'annotations' / file.relative_to(shapes / 'ade' / 'annotations')
        out.parent.mkdir(parents=True, exist_ok=True)
        # uint8 wraps around: unlabeled, 0, becomes 255
        cv2.imwrite(str(out), cv2.imread(str(file), cv2.IMREAD_UNCHANGED) - np.uint8(1))


def write_voc(shapes: Path, root: Path) -> None:
    """Write JPEGImages/, Annotations/ and ImageSets/Main/{train,val}.txt, as labeling tools do."""
    for directory in ('JPEGImages', 'Annotations', 'ImageSets/Main'):
        (root / directory).mkdir(parents=True)
    for part in ('train', 'val'):
        content = json.loads((shapes / 'coco' / 'annotations' / f'instances_{part}2017.json').read_text())
        names = {category['id']: NAMES[category['name']] for category in content['categories']}
        lines = []
        for image in content['images']:
            stem = f'{part}_{Path(image["file_name"]).stem}'
            lines.append(stem)
            shutil.copy(shapes / 'coco' / f'{part}2017' / image['file_name'], root / 'JPEGImages' / f'{stem}.jpg')
            tree = ElementTree.Element('annotation')
            size = ElementTree.SubElement(tree, 'size')
            for key in ('width', 'height'):
                ElementTree.SubElement(size, key).text = str(image[key])
            for annotation in content['annotations']:
                if annotation['image_id'] != image['id']:
                    continue
                instance = ElementTree.SubElement(tree, 'object')
                ElementTree.SubElement(instance, 'name').text = names[annotation['category_id']]
                box = ElementTree.SubElement(instance, 'bndbox')
                x, y, width, height = annotation['bbox']
                # VOC counts pixels from 1
                for key, value in dict(xmin=x + 1, ymin=y + 1, xmax=x + width + 1, ymax=y + height + 1).items():
                    ElementTree.SubElement(box, key).text = str(int(value))
            ElementTree.ElementTree(tree).write(root / 'Annotations' / f'{stem}.xml')
        (root / 'ImageSets' / 'Main' / f'{part}.txt').write_text('\n'.join(lines) + '\n')


def write_cityscapes(shapes: Path, root: Path) -> None:
    """Write leftImg8bit/ and gtFine/ with the masks that mmseg's converter makes."""
    for part, ade_part in (('train', 'training'), ('val', 'validation')):
        images, masks = root / 'leftImg8bit' / part / 'aachen', root / 'gtFine' / part / 'aachen'
        images.mkdir(parents=True)
        masks.mkdir(parents=True)
        for i, file in enumerate(sorted((shapes / 'ade' / 'images' / ade_part).glob('*.jpg'))):
            stem = f'aachen_{i:06d}_000019'
            cv2.imwrite(str(images / f'{stem}_leftImg8bit.png'), cv2.imread(str(file)))
            mask = cv2.imread(str(shapes / 'ade' / 'annotations' / ade_part / f'{file.stem}.png'), cv2.IMREAD_UNCHANGED)
            cv2.imwrite(str(masks / f'{stem}_gtFine_labelTrainIds.png'), mask - np.uint8(1))
