"""What a checkpoint holds after reading: usable tensors, and the keys of mmengine with values of the right type."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .._nested import walk
from .errors import damaged, refused, shown
from .values import CheckpointDtype, CheckpointHistory, restore_histories

_DEEPEST = 64
_LARGEST = 2_000_000
_LONGEST_NAME = 1000
_STATE_DICTS = ('state_dict', 'ema_state_dict')
_PLAIN = (Tensor, torch.nn.Parameter)
_HUB = ('log_scalars', 'runtime_info', 'resumed_keys')


def normalize(checkpoint: Any) -> Any:
    """Check what a file holds and bring it to the form that mmengine expects.

    Programs are dropped: ``resume`` of mmengine evaluates ``meta.config``, its inferencers evaluate ``meta.cfg`` and
    ``message_hub.runtime_info.cfg`` when they get no config. The weights of ``model`` (official checkpoints) move to
    ``state_dict``. Log histories become ``HistoryBuffer`` again.

    Raises:
        ContentError: The content is not that of a checkpoint, or not usable.
    """
    _check_structure(checkpoint)
    if not isinstance(checkpoint, dict):
        return checkpoint
    if 'state_dict' not in checkpoint and isinstance(checkpoint.get('model'), dict):
        checkpoint['state_dict'] = checkpoint.pop('model')
    named = [checkpoint[key] for key in _STATE_DICTS if key in checkpoint]
    for weights in named or [checkpoint]:
        if not isinstance(weights, dict):
            raise refused(f'its state_dict is {_described(weights)}')
        _check_weights(weights, is_bare=not named)
    if 'meta' in checkpoint:
        _check_meta(checkpoint['meta'])
    if 'message_hub' in checkpoint:
        _check_message_hub(checkpoint['message_hub'])
    for where, value in walk(checkpoint.get('optimizer'), 'optimizer'):
        if isinstance(value, Tensor):
            _check_finite(where, value)
    return checkpoint


def _check_structure(root: Any) -> None:
    """Check names and tensors everywhere, and that no container holds itself or, expanded, millions of items.

    mmengine copies and walks through checkpoints recursively, without memory of what it has seen.
    """
    sizes: dict[int, int] = {}  # expanded, of the containers that are done
    open_: set[int] = set()
    todo: list[tuple[Any, bool]] = [(root, False)]
    while todo:
        value, is_done = todo.pop()
        if not isinstance(value, (dict, list, tuple, set)):
            _check_leaf(value)
            continue
        children = [*value.values()] if isinstance(value, dict) else [*value]
        if is_done:
            open_.discard(id(value))
            sizes[id(value)] = size = 1 + sum(sizes.get(id(child), 1) for child in children)
            if size > _LARGEST:
                raise refused(f'expanded, it has more than {_LARGEST} items')
        elif id(value) in open_:
            raise refused('a container in it holds itself')
        elif id(value) not in sizes:
            if isinstance(value, dict):
                for key in value:
                    _check_key(key)
            open_.add(id(value))
            if len(open_) > _DEEPEST:
                raise refused(f'it is nested more than {_DEEPEST} levels deep')
            todo.append((value, True))
            todo += [(child, False) for child in children]


def _check_key(key: Any) -> None:
    if isinstance(key, str) and (len(key) > _LONGEST_NAME or not key.isprintable()):
        raise refused(f'it has the name {shown(key)}, which could change a terminal or a log')


def _check_leaf(value: Any) -> None:
    if isinstance(value, CheckpointHistory):
        raise damaged('a log history without its values')
    if isinstance(value, CheckpointDtype):
        raise damaged('a dtype without an array')
    if isinstance(value, Tensor):
        if value.layout is not torch.strided or value.is_quantized or value.is_meta or type(value) not in _PLAIN:
            raise refused(f'it holds a tensor that is not dense or has no values: {_described(value)}')
        if value._backward_hooks:
            raise refused('it holds a tensor with hooks')


def _check_weights(weights: Mapping[Any, Any], is_bare: bool = False) -> None:
    for name, value in weights.items():
        if not isinstance(name, str):
            raise refused(f'its state_dict has the name {shown(repr(name))}, which is not text')
        is_parameter = name.endswith(('.weight', '.bias'))
        if isinstance(value, Tensor):
            if is_parameter and not value.is_floating_point():
                raise refused(f'{name} is {_described(value)}; weights are floating-point numbers')
            # Masks of attention hold -inf where nothing is attended to.
            _check_finite(name, value, may_be_infinite=name.endswith('mask'))
        # What is beside a bare state dict, such as the epoch, or an attribute that a module saves by itself.
        elif is_parameter or not (is_bare or name.endswith('_extra_state')):
            raise refused(f'{name} in its state_dict is {_described(value)}, not a tensor')
    # Versions of modules, which torch reads from this attribute.
    metadata = getattr(weights, '_metadata', None)
    if metadata is not None and not (
        isinstance(metadata, dict) and all(isinstance(versions, dict) for versions in metadata.values())
    ):
        raise damaged('_metadata of its state_dict is not a dict of dicts')


def _check_finite(name: str, tensor: Tensor, may_be_infinite: bool = False) -> None:
    if not tensor.is_floating_point() or tensor.isfinite().all():
        return
    if tensor.isnan().any() or not may_be_infinite:
        number = int((~tensor.isfinite()).sum())
        raise refused(
            f'{shown(name)} has {number} of {tensor.numel()} values that are NaN or infinite: the training that wrote '
            'it diverged, or the file is damaged'
        )


def _check_meta(meta: Any) -> None:
    if not isinstance(meta, dict):
        raise refused(f'its meta is {_described(meta)}, not a dict')
    for program in ('config', 'cfg'):
        meta.pop(program, None)
    for key in ('epoch', 'iter'):
        if key in meta and (type(meta[key]) is not int or not 0 <= meta[key] < 2**40):
            raise refused(f'its meta.{key} is {shown(repr(meta[key]))}, not a number of epochs or iterations')
    if 'seed' in meta and meta['seed'] is not None and type(meta['seed']) is not int:
        raise refused(f'its meta.seed is {shown(repr(meta["seed"]))}, not a whole number')
    data = meta.get('dataset_meta')
    if data is not None and not (isinstance(data, dict) and all(isinstance(key, str) for key in data)):
        raise refused(f'its meta.dataset_meta is {_described(data)}, not a dict')


def _check_message_hub(hub: Any) -> None:
    if not isinstance(hub, dict) or not all(isinstance(hub.get(key), dict) for key in _HUB):
        raise refused(f'its message_hub does not hold the dicts {", ".join(_HUB)}')
    for key in _HUB:
        if wrong := [name for name in hub[key] if not isinstance(name, str)]:
            raise refused(f'its message_hub.{key} has the name {shown(repr(wrong[0]))}')
    if wrong := [name for name, is_resumed in hub['resumed_keys'].items() if type(is_resumed) is not bool]:
        raise refused(f'its message_hub.resumed_keys.{wrong[0]} is {_described(hub["resumed_keys"][wrong[0]])}')
    hub['runtime_info'].pop('cfg', None)
    hub['resumed_keys'].pop('cfg', None)
    restore_histories(hub['log_scalars'])


def _described(value: Any) -> str:
    """Return the type of a value, with the shape, dtype and device of tensors."""
    if isinstance(value, Tensor):
        kind = '' if type(value) in _PLAIN else f'{type(value).__name__} '
        return f'{kind}{value.dtype} of shape {tuple(value.shape)}, {value.layout}, on {value.device}'
    return f'of type {type(value).__name__}'
