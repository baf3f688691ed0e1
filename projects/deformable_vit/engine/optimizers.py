"""The optimizers of a training, of which there may be several."""

from typing import Any

from mmengine.optim import OptimWrapper, OptimWrapperDict


def single_wrappers(wrapper: Any) -> list[OptimWrapper]:
    """Return mmengine's wrappers of single optimizers; none where another library wraps them, as DeepSpeed does."""
    if isinstance(wrapper, OptimWrapperDict):  # a subclass of OptimWrapper that has few of its attributes
        return list(wrapper.values())
    return [wrapper] if isinstance(wrapper, OptimWrapper) else []
