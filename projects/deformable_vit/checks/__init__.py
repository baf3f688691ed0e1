"""What is wrong with data and config, before a training starts."""

from .check import check
from .datasets import LOADERS, trains_masks
from .model import check_model, warmup_warning
from .options import check_options
from .problem import Problem, Report

__all__ = [
    'LOADERS',
    'Problem',
    'Report',
    'check',
    'check_model',
    'check_options',
    'trains_masks',
    'warmup_warning',
]
