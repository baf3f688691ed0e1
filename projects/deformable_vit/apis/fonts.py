"""A font for class names in any script."""

from collections.abc import Iterable
from pathlib import Path

import matplotlib
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from .command_line import is_first_process


def use_font_for(names: Iterable[str]) -> None:
    """Let matplotlib, with which OpenMMLab draws, use an installed font that has the characters of names.

    Nothing changes if its default font has them. If no font has all, a line says what to install.
    """
    wanted = {c for c in ''.join(names) if c.isprintable() and not c.isspace()}
    default = font_manager.findfont(matplotlib.rcParams['font.sans-serif'][0])
    if wanted <= _characters(default):
        return
    wanted |= set(map(chr, range(33, 127)))  # scores and other names
    # Also those installed after matplotlib made its list. A regular sans-serif font comes before others.
    fonts = [font for font in font_manager.findSystemFonts() if 'LastResort' not in font]  # squares for everything
    fonts.sort(key=lambda f: ('Sans' not in f, 'Regular' not in f, f))
    best = max([default, *fonts], key=lambda font: len(wanted & _characters(font)))
    if (missing := wanted - _characters(best)) and is_first_process():
        shown = ' '.join(sorted(missing)[:10])
        print(
            f'no installed font draws {shown} in the class names; install one, such as apt-get install fonts-noto-cjk '
            '(Chinese, Japanese, Korean) or fonts-noto-core (other scripts)'
        )
    if best != default:
        font_manager.fontManager.addfont(best)
        name = font_manager.FontProperties(fname=best).get_name()
        for family in ('font.sans-serif', 'font.monospace'):  # of the visualizers
            matplotlib.rcParams[family] = [name, *matplotlib.rcParams[family]]


@HOOKS.register_module()
class FontHook(Hook):
    """Draw with a font that has the characters of the dataset's class names; see :func:`use_font_for`."""

    def before_test(self, runner: Runner) -> None:
        metainfo = getattr(runner.test_dataloader.dataset, 'metainfo', {})
        use_font_for(map(str, metainfo.get('classes') or ()))


def _characters(font: str | Path) -> set[str]:
    try:
        return set(map(chr, FT2Font(str(font)).get_charmap()))
    except (OSError, RuntimeError):  # a damaged file, or a format that FreeType cannot read
        return set()
