"""mmseg's visualizer, with class names in any script."""

from typing import Any

import cv2
import mmcv
import numpy as np
from mmengine.dist import master_only
from mmengine.registry import VISUALIZERS
from mmseg.visualization import SegLocalVisualizer


@VISUALIZERS.register_module()
class LabeledSegVisualizer(SegLocalVisualizer):
    """mmseg's visualizer, with class names in any script and of images of any size.

    mmseg writes names with OpenCV, whose version 4 has ASCII only, and takes seconds to find the place of a name in a
    large image.
    """

    @master_only
    def add_datasample(
        self,
        name: str,
        image: np.ndarray,
        data_sample: Any = None,
        draw_gt: bool = True,
        draw_pred: bool = True,
        show: bool = False,
        wait_time: float = 0,
        out_file: str | None = None,
        step: int = 0,
        with_labels: bool | None = True,
    ) -> None:
        """Draw ground truth and prediction side by side, as mmseg's visualizer does."""
        parts = []
        for kind, is_drawn in (('gt_sem_seg', draw_gt), ('pred_sem_seg', draw_pred)):
            if is_drawn and data_sample is not None and kind in data_sample:
                parts.append(self._draw(image, data_sample, kind, bool(with_labels)))
        drawn = np.concatenate(parts, axis=1) if parts else image
        self.set_image(drawn)
        if show:
            self.show(drawn, win_name=name, wait_time=wait_time)
        if out_file is not None:
            mmcv.imwrite(mmcv.rgb2bgr(drawn), out_file)
        else:
            self.add_image(name, drawn, step)

    def _draw(self, image: np.ndarray, sample: Any, kind: str, with_labels: bool) -> np.ndarray:
        one = SegLocalVisualizer(alpha=self.alpha)
        one.dataset_meta = self.dataset_meta
        is_gt = kind.startswith('gt')
        one.add_datasample('', image, sample, draw_gt=is_gt, draw_pred=not is_gt, with_labels=False)
        if not with_labels:
            return one.get_image()
        labels, classes = sample.get(kind).data[0].cpu().numpy(), self.dataset_meta['classes']
        found = [int(label) for label in np.unique(labels) if label < len(classes)]
        places = [_place(labels == label) for label in found]
        if found:
            one.draw_texts(
                [str(classes[label]) for label in found],
                np.array(places),
                font_sizes=max(8, min(image.shape[:2]) // 40),
                colors='w',
                vertical_alignments='center',
                horizontal_alignments='center',
                bboxes=dict(facecolor='black', alpha=0.6, pad=1, edgecolor='none'),
            )
        return one.get_image()


def _place(mask: np.ndarray) -> tuple[int, int]:
    """Return the pixel (x, y) of a mask (H, W) that is farthest from its border."""
    distance = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)
    y, x = np.unravel_index(distance.argmax(), distance.shape)
    return int(x) - 1, int(y) - 1
