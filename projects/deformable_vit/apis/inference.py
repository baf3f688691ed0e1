"""Predictions of the model of a config, by the inferencers of mmdet, mmseg and mmpretrain."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.runner import load_checkpoint
from mmengine.utils import get_object_from_string

from .._nested import test_dataset, walk
from ..checkpoints import check_dtypes, compare, convert_state_dict, read_state_dict
from ..errors import UserError, shown
from .bands import loading_step, read_rgb, to_rgb
from .fonts import use_font_for

# Task, inferencer and visualizer.
TASKS = dict(
    mmdet=('detection', 'DetInferencer', 'DetLocalVisualizer'),
    mmseg=('semantic segmentation', 'MMSegInferencer', 'SegLocalVisualizer'),
    mmpretrain=('classification', 'ImageClassificationInferencer', 'UniversalVisualizer'),
)


def load_model(config: Config, checkpoint: str | None = None, device: str = 'cpu') -> Any:
    """Return the model of a config for evaluation, with a checkpoint if one is given; see :func:`load_weights`."""
    init_default_scope(config.default_scope)
    if config.default_scope == 'mmpretrain':
        config.model.setdefault('data_preprocessor', config.get('data_preprocessor'))
    model = MODELS.build(config.model)
    model.cfg = config
    if checkpoint is not None:
        load_weights(model, config, checkpoint)
    return revert_sync_batchnorm(model).to(device).eval()


def load_weights(model: Any, config: Config, checkpoint: str) -> None:
    """Load a checkpoint, of this project or official, and set ``model.dataset_meta``; see :func:`dataset_meta`.

    Raises:
        CheckpointError: The file cannot be read safely.
        UserError: It belongs to another model, or its dataset has another number of classes.
    """
    converted, own = convert_state_dict(model, read_state_dict(checkpoint)), model.state_dict()
    check_dtypes(converted, own, checkpoint)
    if difference := compare(converted, own):
        raise UserError(f'checkpoint {shown(checkpoint)} does not fit the model of this config: {difference}')
    loaded = load_checkpoint(model, checkpoint, map_location='cpu', logger='silent')
    model.dataset_meta = dataset_meta(config, loaded.get('meta') or {})
    use_font_for(map(str, model.dataset_meta['classes']))


def dataset_meta(config: Config, saved: dict[str, Any]) -> dict[str, list[Any]]:
    """Return ``classes`` (names) and ``palette`` (RGB) of a checkpoint's ``meta``, else of the config's test dataset.

    The inferencers take COCO's and Cityscapes' instead. Without names, classes are called ``class 0``, ``class 1``;
    without a color for each, colors are random, and the same in every run.

    Raises:
        UserError: The number of names is not the model's number of classes.
    """
    # OpenMMLab's checkpoints before mmengine have CLASSES and PALETTE.
    sources = (saved.get('dataset_meta') or saved, config_metainfo(config))
    metas = [{str(key).lower(): value for key, value in source.items()} for source in sources]
    meta = next((meta for meta in metas if meta.get('classes')), {})
    parts = [part for _, part in walk(config.model, '') if isinstance(part, dict)]
    numbers = [n for part in parts for key in ('num_classes', 'num_things_classes') if (n := part.get(key))]
    classes = list(meta.get('classes') or [f'class {i}' for i in range(max(numbers, default=0))])
    if numbers and len(classes) not in numbers:
        raise UserError(
            f'the checkpoint or the config names {len(classes)} classes, and the model has {numbers[0]}; set '
            'test_dataloader.dataset.metainfo.classes in the config to the names of the classes'
        )
    palette = meta.get('palette') or ()
    if isinstance(palette, str) or len(palette) != len(classes):
        palette = np.random.default_rng(42).integers(0, 256, (len(classes), 3)).tolist()
    return dict(classes=classes, palette=[tuple(color) for color in palette])


def config_metainfo(config: Config) -> dict[str, Any]:
    """Return what the test dataset says about its classes, as far as it can be built without its files."""
    try:
        dataset = DATASETS.build(dict(test_dataset(config), lazy_init=True, _scope_=config.default_scope))
        return dict(dataset.metainfo)
    except Exception:  # whatever a dataset raises, the images can be predicted
        return {}


def select(sample: Any, score_thr: float) -> Any:
    """Return a data sample with its objects of at least a score, and a classifier's five best classes as labels."""
    if 'pred_instances' in sample:
        sample.pred_instances = sample.pred_instances[sample.pred_instances.scores >= score_thr]
    if 'pred_score' in sample:
        sample.pred_label = sample.pred_score.topk(min(5, len(sample.pred_score))).indices
    if 'pred_sem_seg' in sample:  # floating point from one output channel with a threshold
        sample.pred_sem_seg.data = sample.pred_sem_seg.data.long()
    return sample


class Predictor:
    """Predictions for images, each a path or a BGR array (H, W, 3), without boxes of scores below ``score_thr``."""

    def __init__(self, config: Config, checkpoint: str, device: str = 'cpu', score_thr: float = 0.3) -> None:
        self.scope, self.score_thr = config.default_scope, score_thr
        _, inferencer, visualizer = TASKS[self.scope]
        # The inferencers look for the pipeline here, not within wrappers such as ConcatDataset.
        config.test_dataloader.dataset = test_dataset(config)
        self.step = loading_step(config)  # the inferencers change it
        config.visualizer = dict(type=visualizer)  # the config's may write to TensorBoard or W&B
        # No weights yet, and no colors from the files of the dataset.
        options: Any = dict(mmdet=dict(palette='random'), mmpretrain=dict(pretrained=False)).get(self.scope, {})
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', 'Checkpoint is not loaded|weights is None')
            self.inferencer = get_object_from_string(f'{self.scope}.apis.{inferencer}')(
                config, device=device, **options
            )
        self.model = self.inferencer.model
        self.model.cfg = config
        load_weights(self.model, config, checkpoint)
        self.classes = [str(name) for name in self.model.dataset_meta['classes']]

    def predict(self, images: Sequence[str | np.ndarray]) -> list[Any]:
        """Return OpenMMLab's data samples, on the CPU, for images as one batch."""
        (data,) = self.inferencer.preprocess(list(images), batch_size=len(images))
        samples = [sample.cpu() for sample in self.inferencer.forward(data[1] if self.scope == 'mmdet' else data)]
        return [select(sample, self.score_thr) for sample in samples]

    def rgb(self, image: str | np.ndarray) -> np.ndarray:
        """Return an image, a path or a BGR array, as RGB of 8 bits, (H, W, 3), for drawing."""
        return read_rgb(image, self.step) if isinstance(image, str) else to_rgb(image)

    def record(self, sample: Any) -> dict[str, Any]:
        """Return a prediction as plain numbers and names, for JSON."""
        if 'pred_instances' in sample:
            record = self.inferencer.pred2dict(sample)
        elif 'pred_sem_seg' in sample:
            labels, counts = np.unique(sample.pred_sem_seg.data[0].numpy(), return_counts=True)
            order = np.argsort(-counts, kind='stable')
            record = dict(labels=labels[order].tolist(), areas=(counts[order] / counts.sum()).tolist())
        elif 'pred_score' in sample:
            record = dict(labels=sample.pred_label.tolist(), scores=sample.pred_score[sample.pred_label].tolist())
        else:
            raise UserError(f'{type(self.model).__name__} predicts neither objects, label maps nor classes')
        return record | dict(label_names=[self.classes[label] for label in record['labels']])
