"""Let mmengine find the configs of this package, in an installed wheel as in a checkout.

They are in ``.mim`` beside this file, as in OpenMMLab's packages. In a checkout ``.mim`` has links to the directories
at the top.
"""

from pathlib import Path

from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE

CONFIGS = Path(__file__).parent / '.mim' / 'configs'
_PREFIX = 'deformable_vit::'
_get_cfg_path = Config._get_cfg_path


def find_own_configs() -> None:
    """Let ``_base_ = 'deformable_vit::dat/...'`` and ``mmengine.hub.get_config('deformable_vit::dat/...')`` work.

    Importing ``deformable_vit`` calls it. A config is read before its ``custom_imports``: a program that does not
    import ``deformable_vit`` first does not know the prefix.
    """
    # A module in this directory instead of the distribution: mmengine looks for a distribution of that name, finds
    # none, and takes the directory of the module, which is right for editable installs too.
    MODULE2PACKAGE['deformable_vit'] = __name__
    Config._get_cfg_path = staticmethod(_get_config_path)


def _get_config_path(cfg_path: str, filename: str) -> tuple[str, str | None]:
    """Return the path of a base config and the scope in which mmengine builds what it defines.

    Raises:
        FileNotFoundError: This package has no such config.
    """
    if not cfg_path.startswith(_PREFIX):
        return _get_cfg_path(cfg_path, filename)
    path = CONFIGS / cfg_path.removeprefix(_PREFIX)
    if not path.is_file():
        raise FileNotFoundError(f'_base_ = {cfg_path!r}: there is no {path}')
    # None keeps the scopes of the config, mmdet, mmseg or mmpretrain. There are no registries named deformable_vit.
    return str(path), None
