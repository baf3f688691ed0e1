"""A semantic segmentation dataset with classes of your own that mmseg's tools can read.

It needs mmseg; name this module in the ``custom_imports`` of a config.
"""

from typing import Any

import numpy as np
from mmengine.registry import DATASETS, VISUALIZERS
from mmseg.datasets import BaseSegDataset
from mmseg.visualization import SegLocalVisualizer
from numpy.typing import NDArray


@DATASETS.register_module()
class CustomSegDataset(BaseSegDataset):
    """mmseg's ``BaseSegDataset`` with classes from the config.

    Several of mmseg's tools, such as ``browse_dataset.py`` and ``confusion_matrix.py``, read the classes from
    ``METAINFO``, which ``BaseSegDataset`` leaves empty. Here every dataset has its own ``METAINFO``.

    Args:
        metainfo: ``classes``, and optionally ``palette`` with an RGB color for each; by default mmseg picks the colors.
        kwargs: Arguments of ``BaseSegDataset``.
    """

    def __init__(self, metainfo: dict[str, Any], **kwargs: Any) -> None:
        classes = metainfo.get('classes')
        if not classes or isinstance(classes, str):
            raise ValueError(f"metainfo['classes'] must be a tuple of names, such as ('cat',), got {classes!r}")
        super().__init__(metainfo=metainfo, **kwargs)
        self.METAINFO = {key: self.metainfo[key] for key in ('classes', 'palette')}


@VISUALIZERS.register_module()
class ContiguousSegVisualizer(SegLocalVisualizer):
    """mmseg's ``SegLocalVisualizer`` for images of any memory layout.

    ``browse_dataset.py`` of mmseg 1.2.2 passes images that OpenCV refuses to draw on
    (https://github.com/open-mmlab/mmsegmentation/issues/3405).
    """

    def add_datasample(self, name: str, image: NDArray[Any], *args: Any, **kwargs: Any) -> None:
        super().add_datasample(name, np.ascontiguousarray(image), *args, **kwargs)
