"""Test an exported file with the data and the metrics of a config."""

from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from .._nested import type_name, walk
from ..apis.inference import TASKS
from ..errors import UserError, shown
from .running import ExportedFile


def use_exported(config: Config, path: str) -> None:
    """Put an exported file in the place of the model of a config.

    Raises:
        UserError: The file cannot be read, or is for another task.
    """
    metadata, task = ExportedFile(Path(path)).metadata, TASKS[config.default_scope][0]
    if metadata['task'] != task or metadata['raw']:
        what = "raw outputs of a detector's heads" if metadata['raw'] else metadata['task']
        raise UserError(f'{shown(path)} is for {what}, and the config for {task}')
    preprocessor = dict(config.model.get('data_preprocessor') or config.get('data_preprocessor') or {})
    if metadata['preprocessing']:  # the file normalizes and pads
        unset = dict(mean=None, std=None, bgr_to_rgb=False, rgb_to_bgr=False, to_rgb=False, pad_size_divisor=1)
        preprocessor |= {key: value for key, value in unset.items() if key in preprocessor}
        preprocessor.pop('test_cfg', None)
        config.test_dataloader.batch_size = 1  # a batch is padded before
    build = dict(mmdet=_detector, mmpretrain=_classifier, mmseg=_segmentor)[config.default_scope]
    config.model = ConfigDict(build(config.model, path), data_preprocessor=preprocessor)


def _classifier(model: Any, path: str) -> dict[str, Any]:
    network = dict(type='deformable_vit.export.network.ExportedNetwork', file=path)
    # The file returns logits. What a class is depends on the head: the best one, or each with a probability of its own.
    head = dict(type='ClsHead')
    if 'MultiLabel' in type_name(model.head.type):
        head = dict(type='MultiLabelClsHead', **{key: model.head[key] for key in ('thr', 'topk') if key in model.head})
    return dict(type='ImageClassifier', backbone=network, head=head)


def _segmentor(model: Any, path: str) -> dict[str, Any]:
    read = ('num_classes', 'out_channels', 'threshold', 'align_corners')
    head = {key: value for key, value in model.decode_head.items() if key in read}
    kind = 'deformable_vit.export.mmseg_model.ExportedSegmentor'
    return dict(type=kind, file=path, decode_head=head, test_cfg=model.get('test_cfg'))


def _detector(model: Any, path: str) -> dict[str, Any]:
    found = [
        node['mask_thr_binary'] for _, node in walk(model, '') if isinstance(node, dict) and 'mask_thr_binary' in node
    ]
    kind = 'deformable_vit.export.mmdet_model.ExportedDetector'
    return dict(type=kind, file=path, mask_thr_binary=found[0] if found else 0.5)
