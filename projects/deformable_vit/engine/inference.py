"""Predictions of a config's model on images, by the inferencers of mmdet, mmseg and mmpretrain.

The inferencers are called step by step, because as a whole they stop at the first file that they cannot read, and keep
all images in memory. Class names are those of the checkpoint or of the config's dataset: without them, mmdet's
inferencer takes COCO's and mmseg's takes Cityscapes'.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dataset import default_collate, pseudo_collate
from mmengine.infer import BaseInferencer
from mmengine.registry import TRANSFORMS
from torch import Tensor, nn

from ..checks import leaf_datasets
from .cli import UserError
from .inputs import UnreadableError, check_readable, swap_channels
from .model import load_model

_TOP = 5
_PREDICTED = 'predicts no {}; predictions are made for detection, instance and semantic segmentation, classification'


class Predictor(ABC):
    """The steps from an image to predictions; :func:`build_predictor` builds the one for a config.

    Attributes:
        inferencer: Of mmdet, mmseg or mmpretrain.
        classes: Names, in the order of the labels.
    """

    task: str
    needs_equal_sizes = False  # in a batch

    def __init__(self, config: Config, inferencer: Any, meta: dict[str, list[Any]]) -> None:
        self.inferencer, self.meta = inferencer, meta
        self.classes = [str(name) for name in meta['classes']]
        self.loader = TRANSFORMS.build(dict(next(t for t in test_dataset(config)['pipeline'] if _loads(t))))

    def read(self, path: Path) -> np.ndarray:
        """Return an image as the config's test pipeline loads it: (H, W, 3), BGR.

        Raises:
            UnreadableError: The file is no image or is damaged.
        """
        check_readable(path)
        try:
            found: np.ndarray | None = (self.loader(dict(img_path=str(path))) or {}).get('img')
        except AssertionError as error:  # OpenCV returned nothing
            raise UnreadableError('it is no image') from error
        except Exception as error:  # OpenCV, Pillow and tifffile raise their own
            raise UnreadableError(str(error).splitlines()[0] if str(error) else type(error).__name__) from error
        if found is None:
            raise UnreadableError('it is no image')
        return found

    def prepare(self, image: np.ndarray) -> dict[str, Any]:
        """Run the test pipeline on an image (H, W, 3), BGR."""
        prepared: dict[str, Any] = self.inferencer.pipeline(image)
        return prepared

    def predict(self, batch: Sequence[dict[str, Any]]) -> list[Any]:
        """Return OpenMMLab's data samples, on the CPU, for results of :meth:`prepare`."""
        return [sample.cpu() for sample in self.inferencer.forward(self.inferencer.collate_fn(list(batch)))]

    @abstractmethod
    def record(self, sample: Any) -> dict[str, Any]:
        """Return a prediction as plain numbers and names, for JSON."""

    @abstractmethod
    def draw(self, image: np.ndarray, sample: Any) -> np.ndarray:
        """Return an image (H, W, 3), BGR, with the prediction drawn into it."""

    def label_map(self, sample: Any) -> np.ndarray | None:
        """Return the labels of all pixels, (H, W), for semantic segmentation."""
        return None


class DetectionPredictor(Predictor):
    """Boxes, and masks if the model predicts them, of mmdet's ``DetInferencer``."""

    task = 'detection'
    score_thr = 0.3

    def predict(self, batch: Sequence[dict[str, Any]]) -> list[Any]:
        samples = super().predict(batch)
        for sample in samples:
            if 'pred_instances' not in sample:
                raise UserError(f'{type(self.inferencer.model).__name__} {_PREDICTED.format("boxes")}')
            instances = sample.pred_instances
            sample.pred_instances = instances[instances.scores >= self.score_thr]
        return samples

    def record(self, sample: Any) -> dict[str, Any]:
        record: dict[str, Any] = self.inferencer.pred2dict(sample)
        return record | dict(label_names=[self.classes[label] for label in record['labels']])

    def draw(self, image: np.ndarray, sample: Any) -> np.ndarray:
        (drawn,) = self.inferencer.visualize([swap_channels(image)], [sample], return_vis=True, pred_score_thr=-1.0)
        return swap_channels(drawn)


class SegmentationPredictor(Predictor):
    """Label maps of mmseg's ``MMSegInferencer``."""

    task = 'semantic segmentation'
    needs_equal_sizes = True

    def predict(self, batch: Sequence[dict[str, Any]]) -> list[Any]:
        samples = super().predict(batch)
        if any('pred_sem_seg' not in sample for sample in samples):
            raise UserError(f'{type(self.inferencer.model).__name__} {_PREDICTED.format("label map")}')
        return samples

    def label_map(self, sample: Any) -> np.ndarray:
        labels: np.ndarray = sample.pred_sem_seg.data[0].numpy()
        return labels.astype(np.uint8 if len(self.classes) <= 256 else np.uint16)

    def record(self, sample: Any) -> dict[str, Any]:
        labels, counts = np.unique(self.label_map(sample), return_counts=True)
        order = np.argsort(-counts, kind='stable')
        found = labels[order].tolist()
        return dict(
            labels=found,
            label_names=[self.classes[label] for label in found],
            areas=(counts[order] / counts.sum()).tolist(),
        )

    def draw(self, image: np.ndarray, sample: Any) -> np.ndarray:
        drawn = self.inferencer.visualize([swap_channels(image)], [sample], return_vis=True, opacity=0.5)
        return swap_channels(drawn[0])


class ClassificationPredictor(Predictor):
    """The five classes with the highest scores, of mmpretrain's ``ImageClassificationInferencer``."""

    task = 'classification'

    def prepare(self, image: np.ndarray) -> dict[str, Any]:
        size = image.shape[:2]
        return super().prepare(dict(img=image, img_shape=size, ori_shape=size))  # type: ignore[arg-type]

    def predict(self, batch: Sequence[dict[str, Any]]) -> list[Any]:
        samples = super().predict(batch)
        for sample in samples:
            # mmpretrain draws the classes of pred_label.
            sample.pred_label = sample.pred_score.topk(min(_TOP, len(self.classes))).indices
        return samples

    def record(self, sample: Any) -> dict[str, Any]:
        labels: Tensor = sample.pred_label
        return dict(
            labels=labels.tolist(),
            label_names=[self.classes[label] for label in labels],
            scores=sample.pred_score[labels].tolist(),
        )

    def draw(self, image: np.ndarray, sample: Any) -> np.ndarray:
        drawn = self.inferencer.visualizer.visualize_cls(
            swap_channels(image), sample, classes=self.classes, draw_gt=False
        )
        return swap_channels(drawn)


def build_predictor(config: Config, checkpoint: str, device: str = 'cpu', score_thr: float = 0.3) -> Predictor:
    """Load a checkpoint into the model of a config, and return its predictor.

    Args:
        config: For mmdet, mmseg or mmpretrain, with a ``test_dataloader``.
        checkpoint: Path or URL.
        device: As in ``torch.device``.
        score_thr: Boxes with lower scores are left out.

    Raises:
        CheckpointError: The checkpoint cannot be read safely.
        UserError: It does not fit, or the config has no test pipeline.
    """
    dataset = test_dataset(config)
    model = load_model(config, checkpoint, device)
    # The inferencers look for the pipeline here, not within wrappers such as ConcatDataset.
    config.test_dataloader.dataset = dataset
    # Not the config's visualizer, which may write to TensorBoard or W&B.
    if config.default_scope == 'mmdet':
        from mmdet.apis import DetInferencer

        config.visualizer = dict(type='DetLocalVisualizer', name='visualizer')
        detector = DetectionPredictor(config, _around(DetInferencer, model, config, device), model.dataset_meta)
        detector.score_thr = score_thr
        return detector
    if config.default_scope == 'mmseg':
        from mmseg.apis import MMSegInferencer

        config.visualizer = dict(type='SegLocalVisualizer', name='visualizer')
        inferencer = _around(MMSegInferencer, model, config, device, **model.dataset_meta)
        inferencer.visualizer._get_center_loc = _label_position
        return SegmentationPredictor(config, inferencer, model.dataset_meta)
    from mmpretrain.apis import ImageClassificationInferencer
    from mmpretrain.visualization import UniversalVisualizer

    model._config = config
    classifier = ImageClassificationInferencer(model, classes=model.dataset_meta['classes'])
    classifier.collate_fn, classifier.visualizer = default_collate, UniversalVisualizer()
    return ClassificationPredictor(config, classifier, model.dataset_meta)


def _around(kind: type[BaseInferencer], model: nn.Module, config: Config, device: str, **kwargs: Any) -> BaseInferencer:
    """Return an inferencer around a model that is built and loaded."""

    class Inferencer(kind):
        def _init_model(self, *_args: Any) -> nn.Module:
            return model

        def _init_collate(self, _config: Config) -> Any:
            return pseudo_collate

    return Inferencer(config, device=device, **kwargs)


def test_dataset(config: Config) -> dict[str, Any]:
    """Return the config's test dataset, or the first one of several, whose ``pipeline`` loads images.

    Raises:
        UserError: There is none.
    """
    for dataset in leaf_datasets((config.get('test_dataloader') or {}).get('dataset')):
        if any(_loads(transform) for transform in dataset.get('pipeline') or ()):
            return dataset
    raise UserError('the config has no test_dataloader whose pipeline loads images (LoadImageFromFile)')


def _loads(transform: dict[str, Any]) -> bool:
    return str(transform['type']).endswith('LoadImageFromFile')


def _label_position(mask: np.ndarray) -> np.ndarray:
    """Return (x, y) of the middle of the row with the most pixels, as mmseg does in seconds for large images."""
    y = int(np.argmax((mask == 1).sum(axis=1)))
    xs = np.flatnonzero(mask[y] == 1)
    return np.array([xs[len(xs) // 2], y])
