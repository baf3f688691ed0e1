"""What is wrong with data and config, before a training starts."""

from .check import check
from .datasets import LOADERS, leaf_datasets, numbers_of_classes, trains_masks
from .model import check_model, warmup_warning
from .options import TOP_LEVEL, check_options
from .problem import Problem, Report

__all__ = [
    'LOADERS',
    'TOP_LEVEL',
    'Problem',
    'Report',
    'check',
    'check_model',
    'check_options',
    'leaf_datasets',
    'numbers_of_classes',
    'trains_masks',
    'warmup_warning',
]
