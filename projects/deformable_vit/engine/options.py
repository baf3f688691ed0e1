"""Command-line options that the tools share; an option of ``--cfg-options`` that nothing would read is an error."""

import argparse
import contextlib
import difflib
import importlib
import inspect
import re
from typing import Any

import mmcv.ops
from mmengine.config import Config, DictAction
from mmengine.registry import Registry
from mmengine.runner import Runner

from .._nested import walk
from .cli import UserError

# What OpenMMLab reads at the top level of a config: Runner's arguments and more.
TOP_LEVEL = {
    *inspect.signature(Runner.__init__).parameters,
    *('activation_checkpointing', 'auto_scale_lr', 'compile', 'custom_imports', 'efficient_conv_bn_eval'),
    *('find_unused_parameters', 'init_weights_for_test_or_val', 'model_wrapper_cfg', 'runner_type', 'strategy'),
    *('sync_bn', 'tta_model', 'tta_pipeline'),
} - {'self', 'cfg'}
# Dicts without a type, and what OpenMMLab reads in them.
KNOWN_KEYS = {
    'auto_scale_lr': {'enable', 'base_batch_size'},
    'env_cfg': {'cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'},
    'env_cfg.mp_cfg': {'mp_start_method', 'opencv_num_threads'},
    # Of mmengine, and of the layer decay of mmdet, mmseg and mmpretrain.
    'optim_wrapper.paramwise_cfg': {
        *('custom_keys', 'bias_lr_mult', 'bias_decay_mult', 'norm_decay_mult', 'flat_decay_mult', 'dwconv_decay_mult'),
        *('dcn_offset_lr_mult', 'bypass_duplicate', 'num_layers', 'decay_rate', 'decay_type', 'layer_decay_rate'),
        'force_default_settings',
    },
}
# `dict(...)` or `{'key': ...}` at the beginning of a value or of an element of a list; `{}.pth` is a file name.
_DICT = re.compile(r"""(^|[\[(,])\s*(dict\(|\{\s*(['"]|\w+\s*:))""")


class ConfigOptions(DictAction):
    """Parse ``--cfg-options`` like mmengine's ``DictAction``, and leave dicts, which it misreads, as text.

    Raises:
        UserError: An argument is not KEY=VALUE, or its brackets are unbalanced.
    """

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        options = dict(getattr(namespace, self.dest, None) or {})
        for option in values:
            key, equals, value = option.partition('=')
            if not key or not equals:
                raise UserError(f'--cfg-options: {option!r} is not KEY=VALUE')
            # mmengine reads brackets where a list begins or is continued; run(1).pth is a file name.
            is_list = value.startswith(('(', '[')) or ',' in value
            if is_list and (value.count('(') != value.count(')') or value.count('[') != value.count(']')):
                raise UserError(f'--cfg-options {key}: unbalanced brackets in {value!r}; write lists as KEY="[a,b]"')
            options[key] = value if _is_dict(value) else self._parse_iterable(value)
        setattr(namespace, self.dest, options)


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=ConfigOptions,
        default={},
        metavar='KEY=VALUE',
        help='override settings of the config, such as model.backbone.with_cp=True param_scheduler.0.end=1000; '
        'lists as KEY="[a,b]" or KEY=a,b without blanks',
    )


def common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that training and testing share, with the names that OpenMMLab's tools use."""
    parser.add_argument('--work-dir', help='directory for logs and checkpoints (default: work_dirs/CONFIG)')
    add_config_options(parser)
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    # torch.distributed.launch passes either spelling; torchrun sets the environment variable.
    parser.add_argument('--local-rank', '--local_rank', type=int, default=0, help=argparse.SUPPRESS)


def _is_dict(value: str) -> bool:
    """Return whether the text of an option is a dict or a list with dicts."""
    return bool(_DICT.search(value))


def check_top_level(key: str, where: str) -> None:
    """Raise a :class:`UserError` if ``key`` is not in ``TOP_LEVEL``."""
    if key not in TOP_LEVEL:
        close = difflib.get_close_matches(key, TOP_LEVEL, 1)
        raise UserError(f'{where}: unknown key {key!r}' + (f'; did you mean {close[0]!r}?' if close else ''))


def check_option(key: str, value: Any, config: Config, path: str) -> None:
    """Check one option.

    Args:
        key: With dots, such as ``model.backbone.with_cp``.
        value: As parsed by :class:`.cli.ConfigOptions`, which leaves dicts as text.
        config: The config without the options.
        path: Its file, for messages.

    Raises:
        UserError: The key is unknown or a variable that nothing reads, or the value is a dict.
    """
    top, dot, rest = key.partition('.')
    if top not in config:
        check_top_level(top, '--cfg-options')
    # mmengine's Runner reads data_preprocessor only where the model has none.
    is_variable = top not in TOP_LEVEL or (top == 'data_preprocessor' and top in (config.get('model') or {}))
    readers = [reader + dot + rest for reader in _readers(config, top)] if is_variable else []
    if isinstance(value, str) and _is_dict(value):
        target = readers[0] if readers else key
        raise UserError(
            f'--cfg-options {key}: dicts cannot be written on the command line; {_entry_hint(config, target)}'
            f"write {target} in a config that begins with _base_ = '{path}'"
        )
    if is_variable:
        shown = ', '.join(readers[:3]) + (f' and {len(readers) - 3} more' if len(readers) > 3 else '')
        hint = f'set {shown}' if readers else 'set the keys that were made from it'
        raise UserError(f'--cfg-options {key}: {top!r} is a variable of {path} that nothing reads; {hint}')


def check_spelling(options: dict[str, Any], before: Config, after: Config) -> None:
    """Check that no option misspells a key of the config, or names a type that does not exist.

    Many dicts, such as ``test_cfg``, and classes with ``**kwargs`` ignore what they do not know.

    Args:
        options: Of ``--cfg-options``.
        before: The config without the options, whose keys are suggested.
        after: The config with them, whose types say what may be added.

    Raises:
        UserError: A new key resembles one beside it and is no parameter of the type, or a type does not exist.
    """
    for key, value in options.items():
        parent, last = _first_new_part(key, before)
        # Keys of custom_keys are parts of parameters' names; check_settings knows the others.
        if not parent or 'custom_keys' in key or parent in KNOWN_KEYS:
            continue
        node, merged = _node(before, parent), _node(after, parent)
        if not isinstance(node, dict) or not isinstance(merged, dict):
            continue
        if f'{parent}.{last}' != key and f'{parent}.{last}.type' in options:  # a new hook, for example
            continue
        if last == 'type':
            if isinstance(node.get(last), str) and parent != 'optim_wrapper.optimizer':  # see check_settings
                _check_type(key, value, after.default_scope)
        elif last not in node and not {f'{parent}.type', f'{parent}._delete_'} & options.keys():
            # --amp exchanges the wrapper of the optimizer later.
            kinds = [merged.get('type'), *(['AmpOptimWrapper'] if parent == 'optim_wrapper' else [])]
            if any(last in _parameters(kind, after.default_scope) for kind in kinds):
                continue
            if close := difflib.get_close_matches(last, [str(name) for name in node if name != 'type'], 1, 0.75):
                raise UserError(f'--cfg-options {key}: unknown key {last!r}; did you mean {close[0]!r}?')


def _first_new_part(key: str, config: Config) -> tuple[str, str]:
    """Split a key before the first part that a dict of the config does not have, or before its last part."""
    parts = key.split('.')
    for i in range(1, len(parts) - 1):
        parent = '.'.join(parts[:i])
        if isinstance(node := _node(config, parent), dict) and parts[i] not in node:
            return parent, parts[i]
    return '.'.join(parts[:-1]), parts[-1]


def _node(config: Config, key: str) -> Any:
    node: Any = config._cfg_dict
    for part in key.split('.'):
        if isinstance(node, dict):
            node = node.get(part)
        else:
            node = node[int(part)] if isinstance(node, list) and part.isdigit() and int(part) < len(node) else None
    return node


def _check_type(key: str, value: Any, scope: str) -> None:
    if not isinstance(value, str) or '.' in value:  # its own scope and a path to import have a dot
        return
    kinds = _registries(scope)
    if not any(kind.get(value) for kind in kinds) and not hasattr(mmcv.ops, value):
        names = {name for kind in kinds for name in (*kind.module_dict, *(kind.parent or kind).module_dict)}
        close = difflib.get_close_matches(value, names | set(dir(mmcv.ops)), 1)
        hint = f'; did you mean {close[0]!r}?' if close else ''
        raise UserError(f'--cfg-options {key}: there is no {value!r} in the registries of OpenMMLab{hint}')


def _registries(scope: str) -> list[Registry]:
    module = importlib.import_module(f'{scope}.registry')
    return [value for value in vars(module).values() if isinstance(value, Registry)]


def _parameters(kind: Any, scope: str) -> set[str]:
    """Return the names that a constructor takes, with those of its base classes.

    Args:
        kind: The ``type`` of a dict: a registered name, or the class itself.
        scope: The default scope of the config.
    """
    found = kind
    if isinstance(kind, str):
        found = next(filter(None, (registry.get(kind) for registry in _registries(scope))), None)
    classes = inspect.getmro(found) if inspect.isclass(found) else [found] if callable(found) else []
    names = set()
    for cls in classes:
        with contextlib.suppress(ValueError):  # a class of C without a signature
            names |= set(inspect.signature(cls).parameters)
    return names


def _readers(config: Config, name: str) -> list[str]:
    """Return the keys with the value of the variable ``name``, those with its name first."""
    if name not in config:  # a setting of the model, written without `model.`
        return [f'model.{name}']
    value = config[name]
    found = [
        (key, _named_alike(name, key), other == value)
        for top in config
        if top in TOP_LEVEL and top != name
        for key, other in walk(config[top], top)
    ]
    exact = [key for key, alike, equal in found if alike and equal]
    by_value = [key for key, _, equal in found if equal and isinstance(value, (dict, list, tuple)) and value]
    by_name = [key for key, alike, _ in found if alike]
    split = name.partition('_')[0] + '_'  # train_pipeline: what begins with train_
    return exact or by_value or [key for key in by_name if key.startswith(split)] or by_name


def _named_alike(name: str, key: str) -> bool:
    """Return whether a variable such as ``train_pipeline`` is named like the last part of a key, ``pipeline``."""
    last = key.rpartition('.')[2]
    return name == last or name.endswith(f'_{last}')


def _entry_hint(config: Config, key: str) -> str:
    """Return how to set an entry of the dict or of the list of dicts that the config has at ``key``."""
    node: Any = config.to_dict()
    for part in key.split('.'):
        if isinstance(node, dict) and part in node:
            node = node[part]
        elif isinstance(node, (list, tuple)) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        else:
            return ''
    if isinstance(node, (list, tuple)) and node:
        key, node = f'{key}.0', node[0]
    if not isinstance(node, dict) or not node:
        return ''
    return f'set one entry at a time, such as {key}.{next(iter(node))}=VALUE, or '
