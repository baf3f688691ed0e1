"""Save the predicted label maps of a test."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from PIL import Image


def write_label_map(labels: np.ndarray, file: str | Path, num_classes: int) -> None:
    """Write labels (H, W) below ``num_classes`` as a gray PNG, of 16 bits where 8 do not hold them."""
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels.astype(np.uint8 if num_classes <= 256 else np.uint16)).save(file)


@HOOKS.register_module()
class LabelMapHook(Hook):
    """Write the label map of each tested image, as a PNG of 8 bits up to 256 classes, else of 16 bits.

    mmseg's metrics write 8 bits, and class 299 as 43. As they do, the hook adds 1 where the dataset's
    ``reduce_zero_label`` took 1 off. A file has the stem of its image; if images of different directories have the same
    one, all files lie in directories as the images do.

    Args:
        out_dir: Directory of the files.
    """

    def __init__(self, out_dir: str) -> None:
        self.out_dir = Path(out_dir)

    def before_test(self, runner: Runner) -> None:
        dataset = runner.test_dataloader.dataset
        self.num_classes = len(dataset.metainfo['classes'])
        paths = [Path(dataset.get_data_info(i)['img_path']).absolute() for i in range(len(dataset))]
        is_unique = max(Counter(path.stem for path in paths).values(), default=1) == 1
        self.root = None if is_unique else Path(os.path.commonpath([path.parent for path in paths]))

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        for sample in outputs or ():
            path, added = Path(sample.img_path).absolute(), int(sample.get('reduce_zero_label', False))
            labels = sample.pred_sem_seg.data[0].cpu().numpy() + added
            name = Path(path.name) if self.root is None else path.relative_to(self.root)
            write_label_map(labels, self.out_dir / name.with_suffix('.png'), self.num_classes + added)
