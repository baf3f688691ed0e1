"""``init_cfg=dict(type='Pretrained', checkpoint=...)`` of a backbone."""

import logging
from collections.abc import Sequence
from typing import Any

from mmengine.logging import print_log

from ..errors import CheckpointError, shown
from .compare import check_dtypes, compare
from .official import SCHEME, official_file
from .safe_loading import read_state_dict


def load_backbone_weights(backbone: Any, checkpoint: str, prefix: str | None = None, map_location: Any = 'cpu') -> None:
    """Load an official or converted checkpoint into a backbone, and log what was loaded.

    Args:
        backbone: A ``PyramidBackbone``.
        checkpoint: Path, URL or ``official://NAME`` of a classifier, a backbone, or a whole detector or segmentor, in
            which names start with ``backbone.``.
        prefix: Load the names that start with this prefix, without it. ``backbone.`` is detected.
        map_location: As in ``torch.load``.

    Raises:
        CheckpointError: The file cannot be read, or nothing in it fits.
    """
    try:
        if str(checkpoint).startswith(SCHEME):
            checkpoint = str(official_file(checkpoint))
        state_dict = read_state_dict(checkpoint, map_location)
    except CheckpointError as error:
        option = 'pretrained=False' if backbone.pretrained else 'init_cfg=None'
        raise CheckpointError(f'{error}; {option} trains from scratch') from error
    if prefix is None:
        prefix = 'backbone.' if any(key.startswith('backbone.') for key in state_dict) else ''
    elif prefix and not prefix.endswith('.'):
        prefix += '.'
    state_dict = {key[len(prefix) :]: value for key, value in state_dict.items() if key.startswith(prefix)}

    own = backbone.state_dict()
    converted = backbone.adapt_state_dict(state_dict)
    check_dtypes(converted, own, checkpoint)
    difference = compare(converted, own)
    name = type(backbone).__name__
    if not difference.matched:
        raise CheckpointError(f'nothing in checkpoint {shown(checkpoint)} fits this {name}: {difference}')
    fitting = {key: value for key, value in converted.items() if key in own and value.shape == own[key].shape}
    backbone.load_state_dict(fitting, strict=False)
    level, expected = logging.WARNING if difference else logging.INFO, ''
    if difference and not (difference.unexpected or difference.mismatched or _trained(difference.missing)):
        level, expected = logging.INFO, '; expected: an ImageNet classifier has no norms of earlier outputs'
    print_log(f'{name} from {shown(checkpoint)}: {difference.report()}{expected}', 'current', level)


def _trained(missing: Sequence[str]) -> list[str]:
    """Return the missing names that a classifier has: all but DAT's norms of outputs."""
    return [name for name in missing if not name.startswith('norms.')]
