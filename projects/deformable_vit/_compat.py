"""What differs between the stacks that this package runs on.

The stacks are OpenMMLab's own packages and their maintained forks (onedl-mmengine, onedl-mmcv, onedl-mmdetection,
onedl-mmsegmentation and onedl-mmpretrain), which have the same import names and other distribution names.

- Configs: :func:`find_configs_by_import_name`.
- Checkpoints: ``_safe_torch_load`` of onedl-mmengine, which :func:`.checkpoints.enable_safe_loading` replaces.
- Python 3.12 and 3.13: nothing. mmengine imports ``distutils``, and mmengine 0.10.7 also ``pkg_resources``; setuptools
  has both for every version of Python, ``pkg_resources`` before setuptools 82. mmdet and mmpretrain have four invalid
  escape sequences, which pip compiles at installation, so that Python does not warn of them again.
"""

from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec

from mmengine.config.utils import MODULE2PACKAGE


def find_configs_by_import_name() -> None:
    """Let ``_base_ = 'mmseg::...'`` find mmseg whatever its distribution is called.

    Importing ``deformable_vit`` calls it.

    mmengine translates the import name to a distribution, ``mmsegmentation``, and asks for that. The fork and a source
    tree on ``PYTHONPATH`` have no such distribution; mmengine looks for a module of that name then. So the import name
    takes the place of the distribution in mmengine's table, for the packages whose distribution is not installed.

    A config is read before its ``custom_imports``. With the forks, configs that inherit from mmseg therefore work where
    ``deformable_vit`` is imported first, as in this repository's tools. mmseg's own tools find the base when they start
    with ``python -c 'import deformable_vit, runpy, sys; del sys.argv[0]; runpy.run_path(sys.argv[0],
    run_name="__main__")' TOOL CONFIG``. Configs that inherit from mmdet and mmpretrain work everywhere: their original
    distributions have the import names.
    """
    for module in ('mmdet', 'mmpretrain', 'mmseg'):
        try:
            distribution(MODULE2PACKAGE[module])
        except PackageNotFoundError:
            if find_spec(module) is not None:
                MODULE2PACKAGE[module] = module
