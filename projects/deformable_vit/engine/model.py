"""Build the model of a config for predictions, with a checkpoint and the names of the classes."""

import logging
from typing import Any

import numpy as np
import torch
from mmcv.ops import get_compiling_cuda_version
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.runner import load_checkpoint

from ..checks import leaf_datasets, numbers_of_classes
from .cli import UserError
from .config import check_checkpoint


def check_device(name: str | None) -> str:
    """Return the device to predict on: ``name``, else CUDA where there is a GPU, else the CPU.

    Raises:
        UserError: There is no such device, or mmcv has no ops for it.
    """
    name = name or ('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ('cpu', 'cuda'):
        raise UserError(f'--device {name} is unknown; use cpu, cuda or cuda:N')
    if device.type == 'cpu':
        return 'cpu'
    count = torch.cuda.device_count()
    if (device.index or 0) >= count:
        known = f'there are {count} GPUs, from cuda:0' if count else 'there is no GPU; use cpu'
        raise UserError(f'--device {name}: {known}')
    if get_compiling_cuda_version() == 'not available':
        raise UserError(f'--device {name}: mmcv was built without CUDA ops; run make setup, or use --device cpu')
    return name


def load_model(config: Config, checkpoint: str, device: str = 'cpu') -> Any:
    """Build the model of a config for evaluation, and load a checkpoint after comparing it with the model.

    ``model.dataset_meta`` has the names of the ``classes`` and the ``palette``.

    Args:
        config: For mmdet, mmseg or mmpretrain; ``model.data_preprocessor`` is set if it is at the top level.
        checkpoint: Path or URL; of this project or official.
        device: As in ``torch.device``.

    Raises:
        CheckpointError: The file cannot be read safely.
        UserError: It belongs to another model, or its dataset has another number of classes.
    """
    init_default_scope(config.default_scope)
    if config.default_scope == 'mmpretrain':
        config.model.setdefault('data_preprocessor', config.get('data_preprocessor'))
    model = MODELS.build(config.model)
    check_checkpoint(model, checkpoint, strict=True)
    loaded = load_checkpoint(model, checkpoint, map_location='cpu', logger=logging.getLogger(__name__))
    model.dataset_meta = dataset_meta(config, loaded)
    return revert_sync_batchnorm(model).to(device).eval()


def dataset_meta(config: Config, checkpoint: dict[str, Any]) -> dict[str, list[Any]]:
    """Return ``classes`` (names) and ``palette`` (RGB) of a checkpoint, else of the config's test dataset.

    Without names, which a message says, classes are called ``class 0``, ``class 1``. Without a color for each, classes
    that the type of the test dataset knows get its colors; others are random, and the same in every run.

    Raises:
        UserError: The number of names is not the model's number of classes.
    """
    meta = checkpoint.get('meta') or {}
    # OpenMMLab's checkpoints before mmengine have CLASSES and PALETTE.
    saved = {str(k).lower(): v for k, v in {**meta, **(meta.get('dataset_meta') or {})}.items()}
    where, found = 'the checkpoint', saved
    if not found.get('classes'):
        where, found = "the config's test_dataloader", _config_meta(config)
    classes, numbers = list(found.get('classes') or ()), dict(numbers_of_classes(config.model))
    if not classes:
        if not numbers:
            raise UserError(
                'neither the checkpoint nor the config says which classes there are; set '
                'test_dataloader.dataset.metainfo.classes in the config'
            )
        classes = [f'class {i}' for i in range(max(numbers.values()))]
        print_log('neither the checkpoint nor the config names the classes; they are called class 0, class 1, ...')
    elif numbers and len(classes) not in numbers.values():
        key, number = next(iter(numbers.items()))
        shown = ', '.join(map(str, classes[:3]))
        raise UserError(
            f'{where} names {len(classes)} classes ({shown}, ...) and {key} is {number}; set '
            'test_dataloader.dataset.metainfo.classes in the config to the names of the classes'
        )
    palette = _colors(found.get('palette'))
    if len(palette) != len(classes):
        palette = list(map(tuple, np.random.default_rng(42).integers(0, 256, (len(classes), 3)).tolist()))
        # A subset of the dataset's classes keeps the palette of all.
        known = _known_colors(config)
        palette = [known.get(name, color) for name, color in zip(classes, palette, strict=True)]
    return dict(classes=classes, palette=palette)


def _colors(palette: Any) -> list[tuple[int, int, int]]:
    """Return a palette as triples, or nothing for another kind, such as mmdet's ``random``."""
    if not isinstance(palette, (list, tuple)) or any(np.shape(color) != (3,) for color in palette):
        return []
    return [(int(r), int(g), int(b)) for r, g, b in palette]


def _known_colors(config: Config) -> dict[Any, tuple[int, int, int]]:
    """Return the colors of the classes that the type of the config's test dataset knows."""
    for dataset in leaf_datasets((config.get('test_dataloader') or {}).get('dataset')):
        meta = {key.lower(): value for key, value in (getattr(_dataset_type(dataset, config), 'METAINFO', {})).items()}
        classes, palette = meta.get('classes') or (), _colors(meta.get('palette'))
        if len(classes) == len(palette) > 0:
            return dict(zip(classes, palette, strict=True))
    return {}


def _config_meta(config: Config) -> dict[str, Any]:
    """Return the ``metainfo`` of the test dataset, without building it: its files may not exist here."""
    for dataset in leaf_datasets((config.get('test_dataloader') or {}).get('dataset')):
        kind = _dataset_type(dataset, config)
        if kind is not None:
            found = dict(kind._load_metainfo(dataset.get('metainfo')))
            return found | ({'classes': dataset['classes']} if 'classes' in dataset else {})
    return {}


def _dataset_type(dataset: dict[str, Any], config: Config) -> Any:
    """Return the class of a dataset; None for an unknown name."""
    kind = dataset['type']
    if isinstance(kind, str):
        with DATASETS.switch_scope_and_registry(config.get('default_scope')) as registry:
            kind = registry.get(kind)
    return kind
