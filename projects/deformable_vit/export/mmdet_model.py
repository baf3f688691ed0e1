"""An exported file as a detector of mmdet."""

from typing import Any

from mmdet.models import BaseDetector, FCNMaskHead
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.registry import MODELS
from mmengine.structures import InstanceData
from torch import Tensor

from .network import ExportedNetwork


@MODELS.register_module()
class ExportedDetector(BaseDetector):
    """An exported file as a detector.

    Args:
        file: A file that ``tools/export.py`` wrote.
        data_preprocessor: That of the model.
        mask_thr_binary: Least probability of a pixel of a mask.
    """

    def __init__(self, file: str, data_preprocessor: dict[str, Any], mask_thr_binary: float = 0.5) -> None:
        super().__init__(data_preprocessor=data_preprocessor)
        self.network = ExportedNetwork(file)
        self.test_cfg = ConfigDict(mask_thr_binary=mask_thr_binary)
        # Only for its method that pastes masks.
        self.mask_head = FCNMaskHead(
            num_convs=0, in_channels=1, conv_out_channels=1, num_classes=1, class_agnostic=True
        )

    def predict(
        self, batch_inputs: Tensor, batch_data_samples: list[DetDataSample], rescale: bool = True
    ) -> list[DetDataSample]:
        """Add the detections of images (B, C, H, W) to their data samples, in pixels of the images that were read."""
        outputs = dict(zip(self.network.file.output_names, self.network(batch_inputs), strict=True))
        results = []
        for i, sample in enumerate(batch_data_samples):
            meta = dict(sample.metainfo)
            size = outputs['boxes'].new_tensor(meta['img_shape'][1::-1])
            # Neither empty places nor boxes within the padding.
            is_kept = (outputs['labels'][i] >= 0) & (outputs['boxes'][i, :, :2] < size).all(dim=1)
            found = {name: x[i][is_kept] for name, x in outputs.items()}
            result = InstanceData(bboxes=found['boxes'], scores=found['scores'], labels=found['labels'])
            factor = meta.setdefault('scale_factor', (1.0, 1.0))
            if 'masks' in found:  # this rescales the boxes, too
                masks = (found['masks'][:, None].numpy(force=True),)
                self.mask_head.predict_by_feat(masks, [result], [meta], self.test_cfg, rescale, activate_map=True)
            elif rescale:
                result.bboxes /= result.bboxes.new_tensor(factor).repeat(2)
            h, w = meta['ori_shape' if rescale else 'img_shape'][:2]
            result.bboxes[:, 0::2].clamp_(0, w)
            result.bboxes[:, 1::2].clamp_(0, h)
            results.append(result)
        return self.add_pred_to_datasample(batch_data_samples, results)

    def _forward(self, batch_inputs: Tensor, batch_data_samples: Any = None) -> tuple[Tensor, ...]:
        return self.network(batch_inputs)

    def extract_feat(self, batch_inputs: Tensor) -> Any:
        raise NotImplementedError('an exported file has no feature maps')

    def loss(self, batch_inputs: Tensor, batch_data_samples: Any) -> Any:
        raise NotImplementedError('an exported file cannot be trained')
