"""A hook for the test of distributed training: it reports whether all processes have the same weights."""

import json
from pathlib import Path

import torch
from mmengine.dist import all_gather, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner


@HOOKS.register_module()
class RankAgreement(Hook):
    """Write ``ranks.json``: the largest difference of weights between processes, and the images that each has seen."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        self.seen += [Path(sample.img_path).name for sample in data_batch['data_samples']]

    def after_train(self, runner: Runner) -> None:
        flat = torch.cat([p.detach().flatten() for p in runner.model.parameters()])
        every = all_gather(flat)
        seen = all_gather(torch.tensor([int(Path(name).stem.split('_')[-1]) for name in self.seen]))
        if get_rank() == 0:
            found = dict(
                world_size=get_world_size(),
                backend=torch.distributed.get_backend(),
                apart=max((other - flat).abs().max().item() for other in every),
                seen=[s.tolist() for s in seen],
            )
            (Path(runner.work_dir) / 'ranks.json').write_text(json.dumps(found))
