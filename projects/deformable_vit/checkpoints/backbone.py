"""``init_cfg=dict(type='Pretrained', checkpoint=...)`` of a backbone."""

import logging
from typing import Any

from mmengine.logging import print_log
from torch import nn

from .adapt import adapt_to_backbone, compare
from .files import CheckpointError, read_state_dict


def load_backbone_weights(
    backbone: nn.Module, checkpoint: str, prefix: str | None = None, map_location: Any = 'cpu'
) -> None:
    """Load a file of the authors or of this project into a backbone, and say in the log what was loaded.

    Args:
        backbone: A ``PyramidBackbone``.
        checkpoint: Path or URL of a classifier, a backbone, or a whole detector or segmentor, whose names begin with
            ``backbone.``.
        prefix: Take the names that begin with this, without it; found by itself for ``backbone.``.
        map_location: As in ``torch.load``.

    Raises:
        CheckpointError: The file cannot be read, or nothing in it fits.
    """
    try:
        state_dict = read_state_dict(checkpoint, map_location)
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}; the README.md of the config's folder says where the authors' files are, "
            'and init_cfg=None trains from scratch'
        ) from error
    if prefix is None:
        whole_model = any(k.startswith('backbone.') for k in state_dict)
        prefix = 'backbone.' if whole_model else ''
    elif prefix and not prefix.endswith('.'):
        prefix += '.'
    state_dict = {k[len(prefix) :]: v for k, v in state_dict.items() if k.startswith(prefix)}

    own = backbone.state_dict()
    shapes = {k: tuple(v.shape) for k, v in own.items()}
    adapted = adapt_to_backbone(state_dict, shapes, backbone.num_extra_positions())
    difference = compare(adapted, own)
    name = type(backbone).__name__
    if not difference.matched:
        raise CheckpointError(f'nothing in {checkpoint} fits this {name}: {difference}')
    fits = {k: v for k, v in adapted.items() if k in own and v.shape == own[k].shape}
    backbone.load_state_dict(fits, strict=False)
    level = logging.WARNING if difference else logging.INFO
    print_log(f'{name} from {checkpoint}: {difference.report()}', 'current', level)
