"""Keep the console to what people read; the log file of the run gets everything.

mmengine's log has hundreds of lines that nobody reads on a console: the environment, the config, the hooks, a line per
parameter of the optimizer, deprecations inside other packages. :func:`quiet_console` leaves them out of standard
output. It also writes to the log file what mmengine only prints: Python's warnings, and tables such as COCO's.
"""

import contextlib
import io
import logging
import os
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from mmengine.logging import MMLogger, print_log

VERBOSE = 'DEFORMABLE_VIT_VERBOSE'

# What a message begins with that a user of the console cannot use, by the package that it comes from.
_NOISE = (
    # mmengine's Runner: pages that are in the log file.
    r'-{60}\nSystem environment:',
    r'Config:\n',
    r'Hooks will be executed in the following order:',
    r'Distributed training is not used, all SyncBatchNorm',
    r'Exp name: ',
    # mmengine's optimizer constructor and those with layer decay, a line per parameter; see `optimizer_summary`.
    r'paramwise_options -- ',
    r'\S+ is skipped since its requires_grad=False',
    r'set param \S+ as id \d+',
    r'self\.paramwise_cfg is ',
    r'Build (LearningRate|LayerWise)DecayOptim\w+Constructor',
    r'Param groups = ',
    # mmengine's checkpoint functions, which log the loaded file once more.
    r'Loads checkpoint by \w+ backend from path: ',
    # mmengine's CheckpointHook, about its own use of FileClient.
    r'"FileClient" will be deprecated in future',
    r'"HardDiskBackend" is the alias of "LocalBackend"',
    # pycocotools, around its table of metrics.
    r'loading annotations into memory\.\.\.$',
    r'Done \(t=',
    r'creating index\.\.\.$',
    r'index created!$',
    r'Loading and preparing results\.\.\.$',
    r'DONE \(t=',
    r'Running per image evaluation\.\.\.$',
    r'Evaluate annotation type ',
    r'Accumulating evaluation results\.\.\.$',
    # mmengine's BaseMetric, about metrics of mmseg.
    r'The prefix is not set in metric class ',
    # Warnings of mmseg about its own calls and defaults, which configs follow on purpose.
    r'UserWarning: ``build_loss`` would be deprecated soon',
    r'UserWarning: `reduce_zero_label` will be deprecated',
    r'UserWarning: Default ``avg_non_ignore`` is False',
    r'UserWarning: The draw is False, it means that the hook for visualization will not take effect',
    # mmengine's Visualizer: boxes and masks that touch the border of an image.
    r'UserWarning: Warning: The (bbox|polygon) is out of bounds',
    # torch, about calls in OpenMMLab's packages.
    r'UserWarning: torch\.meshgrid: in an upcoming release, it will be required to pass the indexing argument',
)
_IS_NOISE = re.compile('|'.join(_NOISE))
_COLOR = re.compile(r'\x1b\[[0-9;]*m')
_RECORD = re.compile(r'\d\d/\d\d \d\d:\d\d:\d\d - \S+ - [A-Z]+ - \n?')  # how MMFormatter begins
# Warnings of installed packages that only their authors can act on.
_UNUSABLE = (DeprecationWarning, PendingDeprecationWarning, FutureWarning, SyntaxWarning)
_INSTALLED = tuple(sysconfig.get_path(name) + os.sep for name in ('purelib', 'platlib', 'stdlib'))


def is_noise(message: str) -> bool:
    """Return whether a message, without time and level, is left out of the console."""
    return _IS_NOISE.match(message.strip('\n')) is not None


class _Console(io.TextIOBase):
    """Standard output without noise; copies to the log file what no logger writes there."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.text = ''  # the beginning of a message
        self.early: list[str] = []  # messages from before the log file exists
        self.announced = False

    def write(self, text: str) -> int:
        """Collect a message, which ends with a line break: `print` writes the two separately."""
        self.text += text
        if '\r' in text:  # a progress bar
            self.flush()
        elif self.text.endswith('\n'):
            message, self.text = self.text, ''
            self.show(message)
        return len(text)

    def flush(self) -> None:
        text, self.text = self.text, ''
        if text and '\r' not in text:
            self.log(text)
        self.stream.write(text)
        self.stream.flush()

    def show(self, message: str) -> None:
        plain = _COLOR.sub('', message)
        record = _RECORD.match(plain)
        self.log(plain, is_record=record is not None)
        if os.environ.get(VERBOSE, '0') in ('', '0') and is_noise(plain[record.end() :] if record else plain):
            self._announce(record[0].strip() if record else '')
        else:
            self.stream.write(message)

    def log(self, message: str, is_record: bool = False) -> None:
        """Write a message to the log file, unless it is a logger's record, which goes there anyway."""
        file = _log_file()
        if file is None:
            self.early.append(message)
            return
        new, self.early = [*self.early, *([] if is_record else [message])], []
        if new:
            with Path(file).open('a') as opened:
                opened.writelines(new)

    def _announce(self, prefix: str) -> None:
        file = _log_file()
        if file and prefix and not self.announced:
            self.announced = True
            self.stream.write(f'{prefix} all messages, environment and config: {file} ({VERBOSE}=1 shows them here)\n')

    # mmengine's colors and others ask whether this is a terminal.
    def isatty(self) -> bool:
        return self.stream.isatty()

    def fileno(self) -> int:
        return self.stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.stream.encoding


def _log_file() -> str | None:
    """Return the log file of the run, or ``None`` if there is none yet or another process writes it."""
    files = [h.baseFilename for h in MMLogger.get_current_instance().handlers if isinstance(h, logging.FileHandler)]
    return files[0] if files else None


@contextlib.contextmanager
def quiet_console() -> Iterator[None]:
    """Leave noise out of standard output, and log Python's warnings; ``DEFORMABLE_VIT_VERBOSE=1`` shows everything."""
    console, show = _Console(sys.stdout), warnings.showwarning

    def log_warning(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if file is not None:
            return show(message, category, filename, lineno, file, line)
        installed = next((path for path in _INSTALLED if filename.startswith(path)), '')
        text = f'{category.__name__}: {" ".join(str(message).split())} ({filename.removeprefix(installed)}:{lineno})'
        deprecated = issubclass(category, _UNUSABLE)
        if installed and deprecated and os.environ.get(VERBOSE, '0') in ('', '0'):
            console.log(f'{text}\n')
        else:
            print_log(text, 'current', logging.WARNING)

    with contextlib.redirect_stdout(console):
        warnings.showwarning = log_warning
        try:
            yield
        finally:
            warnings.showwarning = show
            console.flush()
