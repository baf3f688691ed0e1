"""Command-line options that the tools share; an option of ``--cfg-options`` that nothing would read is an error."""

import argparse
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
            if value.count('(') != value.count(')') or value.count('[') != value.count(']'):
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
    is_variable = top not in TOP_LEVEL or (top == 'data_preprocessor' and top in config.model)
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
    _check_spelling(key, value, config)


def _check_spelling(key: str, value: Any, config: Config) -> None:
    """Check that a key is no misspelling of one beside it, and that a type exists.

    Many dicts, such as ``test_cfg``, and classes with ``**kwargs`` ignore what they do not know.
    """
    parent, _, last = key.rpartition('.')
    if not parent or 'custom_keys' in key:  # any part of a parameter's name
        return
    node: Any = config._cfg_dict
    for part in parent.split('.'):
        if isinstance(node, dict):
            node = node.get(part)
        else:
            node = node[int(part)] if isinstance(node, list) and part.isdigit() and int(part) < len(node) else None
    if not isinstance(node, dict):
        return
    if last not in node and last not in _parameters(node.get('type'), config.default_scope):
        if close := difflib.get_close_matches(last, map(str, node), 1, 0.75):
            raise UserError(f'--cfg-options {key}: unknown key {last!r}; did you mean {close[0]!r}?')
    # Its own scope and a path to import have a dot.
    elif last == 'type' and isinstance(value, str) and isinstance(node.get(last), str) and '.' not in value:
        kinds = _registries(config.default_scope)
        if not any(kind.get(value) for kind in kinds) and not hasattr(mmcv.ops, value):
            names = {name for kind in kinds for name in (*kind.module_dict, *(kind.parent or kind).module_dict)}
            close = difflib.get_close_matches(value, names | set(dir(mmcv.ops)), 1)
            hint = f'; did you mean {close[0]!r}?' if close else ''
            raise UserError(f'--cfg-options {key}: there is no {value!r} in the registries of OpenMMLab{hint}')


def _registries(scope: str) -> list[Registry]:
    module = importlib.import_module(f'{scope}.registry')
    return [value for value in vars(module).values() if isinstance(value, Registry)]


def _parameters(kind: Any, scope: str) -> set[str]:
    """Return the names that the constructor of a registered class takes, with those of its base classes."""
    found = next(filter(None, (registry.get(kind) for registry in _registries(scope))), None) if kind else None
    classes = inspect.getmro(found) if inspect.isclass(found) else [found] if found is not None else []
    return {name for cls in classes if cls is not object for name in inspect.signature(cls).parameters}


def _readers(config: Config, name: str) -> list[str]:
    """Return the keys with the value of the variable ``name``, those with its name first."""
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
