"""A semantic segmentation dataset with classes of your own; import it in a config's ``custom_imports``."""

from typing import Any

from mmengine.registry import DATASETS
from mmseg.datasets import BaseSegDataset


@DATASETS.register_module()
class CustomSegDataset(BaseSegDataset):
    """mmseg's ``BaseSegDataset`` whose classes come from the config.

    Several of mmseg's tools, such as ``browse_dataset.py`` and ``confusion_matrix.py``, read the classes from
    ``METAINFO`` of a dataset class. Here each dataset has a ``METAINFO`` of its own.

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
