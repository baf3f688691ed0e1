"""From a command line to mmengine's ``Runner``: shared by ``tools/train.py``, ``tools/test.py`` and other tools."""

from .cli import UserError, one_line_errors, set_local_rank
from .config import check_checkpoint, load_config, set_work_dir
from .console import quiet_console
from .launch import adapt_to_device, quick_check, run
from .options import add_config_options, common_arguments
from .progress import PROGRESS, RunProgress, read_progress
from .resuming import latest_checkpoint
from .testing import add_out, add_show, add_tta, read_metrics

__all__ = [
    'PROGRESS',
    'RunProgress',
    'UserError',
    'adapt_to_device',
    'add_config_options',
    'add_out',
    'add_show',
    'add_tta',
    'check_checkpoint',
    'common_arguments',
    'latest_checkpoint',
    'load_config',
    'one_line_errors',
    'quick_check',
    'quiet_console',
    'read_metrics',
    'read_progress',
    'run',
    'set_local_rank',
    'set_work_dir',
]
