"""Read configs, and check what can be checked before anything is built."""

import difflib
import sysconfig
import traceback
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.logging import print_log

from .. import errors
from .._nested import walk
from ..checks import bases, check_options, registered_name
from ..errors import UserError, first_line


def load_config(path: str, options: dict[str, Any]) -> Config:
    """Return the config at ``path`` with ``--cfg-options`` merged in.

    Raises:
        UserError: The file is missing or invalid, or nothing reads an option.
    """
    if not Path(path).is_file():
        directory = Path(path).parent
        close = difflib.get_close_matches(Path(path).name, [f.name for f in directory.glob('*.py')], 1, 0.6)
        hint = f'; did you mean {directory / close[0]}?' if close else ''
        raise UserError(f'config {path} {"is a directory" if Path(path).is_dir() else "does not exist"}{hint}')
    find_bases()
    try:
        config = Config.fromfile(path)
        for key in config:
            for _, node in walk(config[key], key):
                # Of `deformable_vit::` bases. Their types are in the registries of the config's own scope.
                if isinstance(node, dict) and node.get('_scope_') == 'deformable_vit':
                    del node['_scope_']
    except Exception as error:  # a config is a program: it can raise anything
        raise UserError(f'config {path} cannot be read: {_reason(error, path)}') from error
    check_options(options, config, path)
    try:
        config.merge_from_dict(options)
    except Exception as error:
        raise UserError(f'--cfg-options do not fit {path}: {first_line(error)}') from error
    for key in ('model', 'default_scope'):
        if config.get(key) is None:
            raise UserError(f'config {path} has no {key!r}')
    if config.default_scope not in ('mmdet', 'mmseg', 'mmpretrain'):
        raise UserError(f'config {path}: default_scope {config.default_scope!r} is not mmdet, mmseg or mmpretrain')
    _name_types(config)
    _adapt_windows(config)
    return config


def _reason(error: Exception, path: str) -> str:
    """Return why a config cannot be read, for ``custom_imports`` the error in the module, which mmengine hides."""
    cause = error.__cause__ if isinstance(error, ImportError) else None
    reason = cause.__context__ if isinstance(cause, ImportError) else None
    if reason is None:
        last = traceback.extract_tb(error.__traceback__)[-1]
        is_library = last.filename.startswith((sysconfig.get_path('stdlib'), sysconfig.get_path('purelib'), '<'))
        return first_line(error) + ('' if is_library else f' ({last.filename}, line {last.lineno})')
    name = str(getattr(reason, 'name', None)).partition('.')[0]
    directories = [d for d in (Path(path).parent, Path()) if (d / f'{name}.py').is_file() or (d / name).is_dir()]
    hint = f'; set PYTHONPATH={directories[0]}' if directories and isinstance(reason, ModuleNotFoundError) else ''
    return f'custom_imports: {cause}: {first_line(reason)}{hint}'


def _name_types(config: Config) -> None:
    """Replace classes by the names that they are registered by.

    In pure-Python configs types are classes, and some tools of OpenMMLab compare them with names.
    """
    for key in config:
        for _, node in walk(config[key], key):
            kind = node.get('type') if isinstance(node, dict) else None
            if isinstance(kind, type) and (name := registered_name(kind, config.default_scope)):
                node['type'] = name


def _adapt_windows(config: Config) -> None:
    """Let mmseg's Mask2Former be tested in windows (``mode='slide'``).

    Its head resizes the masks of a window to ``pad_shape`` where the image has one, the size of the whole image.
    """
    test_cfg, head, preprocessor = (config.model.get(key) for key in ('test_cfg', 'decode_head', 'data_preprocessor'))
    is_slide = isinstance(test_cfg, dict) and test_cfg.get('mode') == 'slide'
    if config.default_scope != 'mmseg' or not is_slide or not isinstance(head, dict) or not preprocessor:
        return
    if 'Mask2FormerHead' in bases(head.get('type'), 'mmseg') and preprocessor.pop('test_cfg', None):
        print_log("Mask2Former with test_cfg.mode='slide': images are not padded (model.data_preprocessor.test_cfg)")


def set_work_dir(config: Config, path: str, work_dir: str | None) -> None:
    """Set ``config.work_dir``: ``--work-dir``, else the config's own, else ``work_dirs/CONFIG``."""
    config.work_dir = work_dir or config.get('work_dir') or str(Path('work_dirs') / Path(path).stem)


def find_bases() -> None:
    """Let ``_base_ = 'mmseg::...'`` find mmseg under the name of its maintained fork, and ``'deformable_vit::...'``.

    mmengine translates the import name to a distribution, ``mmsegmentation``, which the fork ``onedl-mmsegmentation``
    is not. For a name that is no distribution mmengine takes the directory of the module, which is right for editable
    installs, too.
    """
    MODULE2PACKAGE['deformable_vit'] = errors.__name__
    for module in ('mmdet', 'mmpretrain', 'mmseg'):
        try:
            distribution(MODULE2PACKAGE[module])
        except PackageNotFoundError:
            if find_spec(module) is not None:
                MODULE2PACKAGE[module] = module
