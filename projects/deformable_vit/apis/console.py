"""Leave out of the console what a user of the tools cannot act on; the log file of the run has everything."""

import logging
import os
import warnings

from mmengine.logging import MMLogger

VERBOSE = 'DEFORMABLE_VIT_VERBOSE'

# What a record of a logger begins with: lines for each parameter, and files that are named a second time.
_RECORDS = (
    'paramwise_options -- ',
    'set param ',
    'Loads checkpoint by ',
    'The prefix is not set in metric class ',
    '"FileClient" will be deprecated',
)
# Warnings of other packages about their own calls and defaults.
_WARNINGS = (
    '.*build_loss.* would be deprecated soon',
    '.*reduce_zero_label.* will be deprecated',
    'Default ``avg_non_ignore`` is False',
    'The draw is False, it means that the hook for visualization will not take effect',
    'Warning: The (bbox|polygon) is out of bounds',
    'torch.meshgrid: in an upcoming release',
)


class _UsefulRecords(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith(_RECORDS)


def quiet_warnings() -> None:
    """Ignore deprecations in other packages; ``DEFORMABLE_VIT_VERBOSE=1`` shows them."""
    if not os.environ.get(VERBOSE):
        for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning, SyntaxWarning):
            warnings.simplefilter('ignore', category)
        for message in _WARNINGS:
            warnings.filterwarnings('ignore', message, UserWarning)


def quiet_log() -> None:
    """Keep lines for each parameter in the log file, off the console, once the runner has made its logger."""
    if not os.environ.get(VERBOSE):
        for handler in MMLogger.get_current_instance().handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.addFilter(_UsefulRecords())
