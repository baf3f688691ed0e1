"""The state of all random number generators of a process, as tensors and plain numbers that load safely."""

import random
from typing import Any, cast

import numpy as np
import torch


def capture() -> dict[str, Any]:
    """Return the states of Python's, numpy's, torch's and, where CUDA is in use, the current device's generator."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = cast(tuple[Any, ...], np.random.get_state(legacy=True))
    state = dict(
        python=dict(version=version, words=torch.tensor(words), gauss=gauss),
        numpy=dict(
            kind=str(kind),
            keys=torch.from_numpy(keys.astype(np.int64)),
            position=int(position),
            has_gauss=int(has_gauss),
            cached=float(cached),
        ),
        torch=torch.get_rng_state(),
    )
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def restore(state: dict[str, Any], set_cuda: bool = True) -> None:
    """Set all generators to what :func:`capture` returned, in this process or in another.

    Args:
        state: The states.
        set_cuda: Whether to set CUDA's generator, or only to check its state.

    Raises:
        KeyError, TypeError, ValueError, RuntimeError: It is not such a state.
    """
    python, numpy = state['python'], state['numpy']
    random.setstate((python['version'], tuple(python['words'].tolist()), python['gauss']))
    keys = numpy['keys'].cpu().numpy().astype(np.uint32)
    np.random.set_state((numpy['kind'], keys, numpy['position'], numpy['has_gauss'], numpy['cached']))
    torch.set_rng_state(state['torch'].cpu())
    if 'cuda' in state:
        cuda = state['cuda'].cpu()
        if cuda.dtype != torch.uint8 or cuda.ndim != 1:  # torch looks when it initializes CUDA, which is too late
            raise ValueError(f'a CUDA state of {cuda.dtype} and shape {tuple(cuda.shape)}')
        if set_cuda and torch.cuda.is_available():
            torch.cuda.set_rng_state(cuda)


def check(state: Any) -> None:
    """Check that :func:`restore` can set a state, and leave the generators as they are.

    Raises:
        ValueError: It cannot.
    """
    before = capture()
    try:
        # Setting CUDA's generator before CUDA is initialized could not be taken back.
        restore(state, set_cuda=False)
    except Exception as error:  # of any form: it comes from a file
        raise ValueError(f'{type(error).__name__}: {error}') from error
    finally:
        restore(before, set_cuda=False)


def seed_all(entropy: tuple[int, ...]) -> None:
    """Seed Python's, numpy's and torch's CPU generator with values that follow from a tuple of non-negative numbers."""
    words = np.random.SeedSequence(entropy).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(words[1])
    # torch.manual_seed would also seed CUDA, which loading of data has no part in.
    torch.default_generator.manual_seed(int(words[2]))
