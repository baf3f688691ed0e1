"""Check that something reads each option of ``--cfg-options``, and each key of the config."""

import contextlib
import copy
import difflib
import inspect
from typing import Any

from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from .._nested import walk
from ..errors import UserError
from .old_keys import RENAMED, unread_variables
from .types import find_type

# What OpenMMLab reads at the top level of a config: Runner's arguments and more.
TOP_LEVEL = {
    *inspect.signature(Runner.__init__).parameters,
    *('activation_checkpointing', 'auto_scale_lr', 'compile', 'custom_imports', 'efficient_conv_bn_eval'),
    *('find_unused_parameters', 'init_weights_for_test_or_val', 'model_wrapper_cfg', 'runner_type', 'strategy'),
    *('sync_bn', 'tta_model', 'tta_pipeline'),
} - {'self', 'cfg'}


_DATALOADER = {*inspect.signature(DataLoader).parameters, 'num_batch_per_epoch'}


def check_options(options: dict[str, Any], config: Config, path: str) -> None:
    """Check the options and the keys of a config; a key that is a class's argument or resembles none is accepted.

    Args:
        options: Values by dotted key, such as ``model.backbone.with_cp``.
        config: The config at ``path``, without the options.

    Raises:
        UserError: A key is unknown, or a variable that nothing reads.
    """
    for key in options:
        _check_option(key, config, path)
    for key, beside in unread_variables(config).items():
        # A name such as train_dataloader_old is one of the user's own, optim_wraper is a typing error.
        close = [] if key in TOP_LEVEL else difflib.get_close_matches(key, TOP_LEVEL, 1, 0.9)
        if close and close[0] not in key and close[0] not in beside:
            raise UserError(f'config {path}: unknown key {key!r}; did you mean {close[0]!r}?')
    merged = copy.deepcopy(config)
    with contextlib.suppress(Exception):  # options that do not fit the config, which the caller merges as well
        merged.merge_from_dict(options)
    scope = merged.get('default_scope') or 'mmengine'
    # mmengine refuses misspelled arguments of most classes when it builds them. A class with **kwargs, such as
    # CheckpointHook, takes any: it fails hours later, or never.
    for top in sorted(TOP_LEVEL & set(merged)):
        for key, node in walk(merged[top], top):
            if isinstance(node, dict) and 'type' in node:
                known = _arguments(node['type'], node.get('_scope_', scope))
            elif isinstance(node, dict) and key.endswith('_dataloader'):
                known = _DATALOADER
            else:
                continue
            for name in map(str, node.keys() - known - {'type'} if known else ()):
                # A part of a model may take its `pretrained` out of the dict before it builds that.
                if (new := RENAMED.get(name)) and ('_dataloader' in key or key == 'model'):
                    raise UserError(f'config {path}: {key}: unknown key {name!r}; today it is {new}')
                if close := difflib.get_close_matches(name, known, 1, 0.85):
                    raise UserError(f'config {path}: {key}: unknown key {name!r}; did you mean {close[0]!r}?')
    optimizer = (merged.get('optim_wrapper') or {}).get('optimizer')
    kind = optimizer.get('type') if isinstance(optimizer, dict) else None
    # Of an unknown optimizer mmengine says: None is not a callable object.
    if isinstance(kind, str) and 'constructor' not in merged.optim_wrapper and find_type(kind, scope) is None:
        raise UserError(f'optim_wrapper.optimizer.type: there is no optimizer {kind!r}')


def _check_option(key: str, config: Config, path: str) -> None:
    top, dot, rest = key.partition('.')
    if top not in config and top not in TOP_LEVEL:
        close = difflib.get_close_matches(top, TOP_LEVEL, 1)
        raise UserError(f'--cfg-options: unknown key {top!r}' + (f'; did you mean {close[0]!r}?' if close else ''))
    # mmengine's Runner reads data_preprocessor only where the model has none.
    if top not in TOP_LEVEL or (top == 'data_preprocessor' and top in (config.get('model') or {})):
        readers = [reader + dot + rest for reader in _readers(config, top)]
        shown = ', '.join(readers[:3]) + (f' and {len(readers) - 3} more' if len(readers) > 3 else '')
        raise UserError(f'--cfg-options {key}: {top!r} is a variable of {path} that nothing reads; set {shown}')


def _arguments(kind: Any, scope: str) -> set[str]:
    """Return the names that a constructor takes, with those of its base classes; nothing where it may take others."""
    found = find_type(kind, scope)
    if not inspect.isclass(found):
        return set()
    with contextlib.suppress(ValueError):  # a class of C without a signature
        owners = [cls for cls in inspect.getmro(found) if '__init__' in vars(cls) and cls not in (nn.Module, object)]
        constructors = [vars(cls)['__init__'] for cls in owners]
        signatures = [inspect.signature(constructor).parameters for constructor in constructors]
        # Where **kwargs goes to no base class it goes elsewhere; CheckpointHook passes it on to a function that fails.
        is_open = signatures and any(p.kind is p.VAR_KEYWORD for p in signatures[-1].values())
        is_decorated = any(hasattr(c, '__wrapped__') for c in constructors)  # which may take older names, too
        if not is_decorated and (not is_open or found is CheckpointHook):
            return {name for parameters in signatures for name in parameters}
    return set()


def _readers(config: Config, name: str) -> list[str]:
    """Return the keys that may have been made from the variable ``name``, by name and, if any, by value."""
    if name not in config:  # a setting of the model, written without `model.`
        return [f'model.{name}']
    keys = [(key, value) for top in config if top in TOP_LEVEL - {name} for key, value in walk(config[top], top)]
    # A variable such as train_pipeline is named like the last part of a key, pipeline.
    alike = [(k, v) for k, v in keys if name == (last := k.rpartition('.')[2]) or name.endswith(f'_{last}')]
    return [key for key, value in alike if value == config[name]] or [key for key, _ in alike]
