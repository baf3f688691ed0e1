"""Conversion of official state dicts to the names and sizes of this project's models."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..errors import CheckpointError, shown
from .input_channels import adapt_input_channels
from .names import is_official, translate_names
from .resize import resize_to_shapes

# Parameters of official classifiers that a feature backbone may lack.
_CLASSIFIER_ONLY = ('head.', 'stages.3.norm.', 'stages.3.cls_token')


def adapt_to_backbone(
    state_dict: Mapping[str, Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    num_extra: Mapping[str, int],
    log: bool = True,
    adapt_channels: bool = True,
) -> dict[str, Tensor]:
    """Return a state dict with the names of a backbone, and its position embeddings and tables in the backbone's sizes.

    Args:
        state_dict: An official classifier or backbone, or a converted backbone.
        shapes: The shape of each parameter and buffer of the backbone, by name.
        num_extra: Leading entries without a grid position of each position embedding of the backbone, by name.
        log: Log what is resized or adapted.
        adapt_channels: Adapt RGB weights of the first layer to the backbone's number of input channels.

    Returns:
        A new dict without what only classifiers have. Everything else that does not fit stays, for the caller to
        report.
    """
    if is_official(state_dict):
        # The last norm of an official detector has the same name here as a classifier's; it must be reported.
        surplus = (*_CLASSIFIER_ONLY, 'norms.3.') if 'cls_norm.norm.weight' in state_dict else _CLASSIFIER_ONLY
        translated = translate_names(state_dict)
        state_dict = {k: v for k, v in translated.items() if k in shapes or not k.startswith(surplus)}
    if adapt_channels:
        state_dict = adapt_input_channels(state_dict, shapes, log)
    return resize_to_shapes(state_dict, shapes, num_extra, log)


def convert_state_dict(
    model: nn.Module, state_dict: Mapping[str, Any], *, log: bool = False, adapt_channels: bool = False
) -> dict[str, Any]:
    """Return a state dict in the names and sizes of a model, as the load hooks of its backbones make it.

    A model converts what it loads by itself; this compares a state dict before. A converted one stays as it is.

    Args:
        model: A backbone of this project, or a model that contains one.
        state_dict: Of the model, with official or converted names.
        log: Log what is resized or adapted.
        adapt_channels: Adapt RGB weights of the first layers, too; without, they stay as they are, for the caller to
            refuse them.
    """
    converted = dict(state_dict)
    parts = [name for name, _ in model.named_children() if name in ('student', 'teacher')]
    if parts and not any(name.startswith(('student.', 'teacher.')) for name in converted):
        # Semi-supervised detectors of mmdet load a detector into both.
        converted = {f'{part}.{name}': value for part in parts for name, value in converted.items()}
    for name, module in model.named_modules():
        adapt = getattr(module, 'adapt_state_dict', None)
        if adapt is not None:
            prefix = f'{name}.' if name else ''
            part = {key[len(prefix) :]: converted.pop(key) for key in list(converted) if key.startswith(prefix)}
            converted.update({prefix + key: value for key, value in adapt(part, log, adapt_channels).items()})
    return converted


def convert_model(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return an official classifier, detector or segmentor, or mmdet's detector with PVT, in this project's names.

    Raises:
        CheckpointError: The names are those of none.
    """
    prefix = 'backbone.'
    part = {name.removeprefix(prefix): value for name, value in state_dict.items() if name.startswith(prefix)}
    if not is_official(part):
        return convert_classifier(state_dict)
    translated = {prefix + name: value.clone() for name, value in translate_names(part).items()}
    return translated | {name: value.clone() for name, value in state_dict.items() if not name.startswith(prefix)}


def convert_classifier(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return an official ImageNet classifier as the state dict of this project's ``ImageClassifier`` config.

    A converted one stays as it is.

    Raises:
        CheckpointError: The names are not those of an official classifier.
    """
    if 'head.fc.weight' in state_dict and any(key.startswith('backbone.') for key in state_dict):
        return dict(state_dict)
    translated = translate_names(state_dict) if is_official(state_dict) else {}
    if 'head.weight' not in translated:
        first = ', '.join(map(shown, list(state_dict)[:4]))
        raise CheckpointError(f'not an official PVT, DPT or DAT classifier; its names begin with {first}')
    return {
        key.replace('head.', 'head.fc.') if key.startswith('head.') else f'backbone.{key}': value.clone()
        for key, value in translated.items()
    }
