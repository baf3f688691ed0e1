"""What is wrong with data and config, before a training starts."""

from .check import check
from .counts import ClassCounts
from .datasets import LOADERS, trains_masks
from .model import check_model, warmup_warning
from .options import check_options
from .problem import Problem, Report
from .repair import Repair, repair_file
from .types import bases, find_type, registered_name

__all__ = [
    'LOADERS',
    'ClassCounts',
    'Problem',
    'Repair',
    'Report',
    'bases',
    'check',
    'check_model',
    'check_options',
    'find_type',
    'registered_name',
    'repair_file',
    'trains_masks',
    'warmup_warning',
]
