"""Adaptation of the first layer of RGB weights to other numbers of input channels, as timm adapts them."""

from collections.abc import Mapping

from mmengine.logging import print_log
from torch import Tensor

# Convolutions of the image, (C, in_channels, k, k): of a patch embedding, and of the convolutional stem of DAT++.
_FIRST_LAYERS = ('stages.0.patch_embed.proj.weight', 'stages.0.patch_embed.first.proj.weight')
_RGB = 3


def adapt_input_channels(
    state_dict: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], log: bool = True
) -> dict[str, Tensor]:
    """Return a state dict whose RGB weights of the first layer have the input channels of a backbone.

    One channel gets the sum of the three, as if an image were gray. n others get R, G, B, R, ... times 3 / n, which
    keeps the scale of the responses.

    Args:
        state_dict: A backbone's, in this project's names.
        shapes: The shape of each parameter and buffer of the backbone, by name.
        log: Log what is adapted.

    Returns:
        A new dict. Weights of other than three channels stay as they are, for the caller to report.
    """
    adapted = dict(state_dict)
    for name in _FIRST_LAYERS:
        value, shape = state_dict.get(name), shapes.get(name)
        if value is None or shape is None or value.ndim != len(shape) or not value.is_floating_point():
            continue
        channels = shape[1]
        if value.shape[1] != _RGB or channels == _RGB or value.shape[::2] != shape[::2]:
            continue
        if channels == 1:
            adapted[name], how = value.sum(dim=1, keepdim=True), 'summed to 1 channel'
        else:
            repeats = -(-channels // _RGB)
            adapted[name] = value.repeat(1, repeats, 1, 1)[:, :channels] * (_RGB / channels)
            how = f'repeated to {channels} channels and scaled by 3/{channels}'
        if log:
            print_log(f'{name}: RGB weights {how}; the first channels are taken as R, G, B', 'current')
    return adapted
