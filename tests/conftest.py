import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from unittest import mock

import cores  # noqa: F401  before torch
import pytest
import torch
from campaign import (  # noqa: F401  hooks of pytest
    pytest_collection_modifyitems,
    pytest_generate_tests,
    pytest_terminal_summary,
)
from file_server import server  # noqa: F401  a fixture
from hypothesis import register_random, settings
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from small_models import SMALL_BACKBONES, build_small

from deformable_vit.apis.config import find_bases
from deformable_vit.backbones import PyramidBackbone

torch.set_num_threads(int(os.environ['OMP_NUM_THREADS']))
find_bases()  # of the maintained forks, for tests that read configs themselves

# Timing says nothing while other tests run beside these; the examples are the same on every machine.
settings.register_profile('suite', deadline=None, derandomize=True, database=None, print_blob=True)
settings.load_profile('suite')


class _TorchRandom:
    """Let hypothesis seed torch before each example, so that a failing example fails again."""

    seed = staticmethod(torch.manual_seed)
    getstate = staticmethod(torch.get_rng_state)
    setstate = staticmethod(torch.set_rng_state)


_TORCH_RANDOM = _TorchRandom()  # hypothesis holds a weak reference
register_random(_TORCH_RANDOM)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _process_state() -> Iterator[None]:
    """Start without mmengine's global instances and restore what tests change, so that they pass in any order.

    The instances are the default scope, loggers, which write to the captured streams of their first test, and message
    hubs.
    """
    managers = {manager: manager._instance_dict for manager in (DefaultScope, MMLogger, MessageHub)}
    for manager in managers:
        manager._instance_dict = OrderedDict()
    dtype, threads, grad = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()
    deterministic = torch.are_deterministic_algorithms_enabled()
    with mock.patch.dict(os.environ):
        yield
    for manager, instances in managers.items():
        manager._instance_dict = instances
    torch.set_default_dtype(dtype)
    torch.set_num_threads(threads)
    torch.set_grad_enabled(grad)
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture
def _fresh_dynamo() -> Iterator[None]:
    """Compile as in a new process: torch.compile limits the recompilations of a function."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture(params=SMALL_BACKBONES)
def small_backbone(request: pytest.FixtureRequest) -> Callable[..., PyramidBackbone]:
    """Build a small backbone of each kind; keyword arguments are those of its constructor."""
    return partial(build_small, request.param)
