"""Files that attack, exhaust or mislead the program that loads them, and small real ones; see docs/reliability.md."""

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

_NUMPY = np._core.multiarray


class Call:
    """Something that unpickling calls: a function, its arguments, and the state that it sets afterwards."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, state: Any = None) -> None:
        self.function, self.arguments, self.state = function, arguments, state

    def __reduce__(self) -> tuple[Any, ...]:
        return (self.function, self.arguments, self.state)[: 3 if self.state is not None else 2]


def training_state() -> dict[str, Any]:
    """Return what mmengine saves."""
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    hub = dict(
        log_scalars={'train/loss': HistoryBuffer([0.5, 0.25, 0.125], [1, 1, 1])},
        runtime_info=dict(epoch=1, iter=2, best_score=np.float64(0.5), cfg='import os', last_ckpt='x.pth'),
        resumed_keys={'train/loss': True, 'epoch': True, 'cfg': True},
    )
    dataset_meta = dict(classes=('a', 'b'), palette=np.arange(6, dtype='>i2').reshape(2, 3).T)
    meta = dict(epoch=1, iter=2, seed=0, cfg='import os', config='import os', dataset_meta=dataset_meta)
    rest = dict(meta=meta, message_hub=hub, optimizer=optimizer.state_dict(), param_schedulers=[{'last_step': 2}])
    return dict(rest, state_dict=layer.state_dict())


def saved(content: Any, **kwargs: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **kwargs)
    return file.getvalue()


def legacy(content: Any) -> bytes:
    return saved(content, _use_new_zipfile_serialization=False)


def rebuilt(file: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """Return an archive whose pickle is changed, with valid checksums."""
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(file)) as old, zipfile.ZipFile(changed, 'w') as new:
        for record in old.infolist():
            content = old.read(record)
            new.writestr(record.filename, change(content) if record.filename.endswith('data.pkl') else content)
    return changed.getvalue()


def array(dtype: Any, data: bytes, shape: tuple[int, ...] = (1,)) -> Call:
    return Call(_NUMPY._reconstruct, np.ndarray, (0,), b'b', state=(1, shape, dtype, False, data))


def weights(**values: torch.Tensor) -> dict[str, dict[str, torch.Tensor]]:
    return {'state_dict': values}


def _optimizer(value: float) -> dict[str, Any]:
    state = training_state()
    state['optimizer']['state'][0]['exp_avg'][0, 0] = value
    return state


_FIELDS = (3, '|', None, ('a',), {'a': (np.dtype('i8'), -64)}, 8, 1, 0)
_NAN, _INF = float('nan'), float('inf')

# What is saved or written, and a part of the one line that says why it is refused.
HOSTILE: dict[str, tuple[Any, str]] = {
    'program': ({'x': Call(os.system, 'touch victim')}, 'needs posix.system, which could run code'),
    'program as metadata': ({'meta': {'x': Call(eval, '1')}, **weights(x=torch.ones(1))}, 'needs eval, which could'),
    'program, legacy': (legacy({'x': Call(os.system, 'touch victim')}), 'needs posix.system, which could run code'),
    'program in an array': ({'x': array(np.dtype('O'), b'A' * 8)}, "dtype 'O8', which is not numeric"),
    'dtype with fields outside': ({'x': array(Call(np.dtype, 'V8', False, True, state=_FIELDS), b'A' * 8)}, "'V8'"),
    'array of another length': ({'x': array(np.dtype('i8'), b'A' * 8, (9,))}, 'cannot reshape'),
    'array of negative shape': ({'x': array(np.dtype('i8'), b'A' * 8, (-1, -1))}, 'can only specify one'),
    'array of any memory': ({'x': Call(np.ndarray, (2,), 'O')}, 'takes 1 positional argument'),
    'number of another length': ({'x': Call(_NUMPY.scalar, np.dtype('f8'), b'A')}, 'buffer size'),
    'NaN': (weights(x=torch.tensor([1.0, _NAN])), 'state_dict.x has 1 of 2 values that are NaN'),
    'infinite': (weights(x=torch.tensor([_INF])), 'state_dict.x has 1 of 1 values'),
    'infinite mask': (weights(mask=torch.tensor([_INF, -_INF, 0])), 'state_dict.mask has 1 of 3 values'),
    'NaN without a state_dict': ({'x': torch.tensor([_NAN])}, 'x has 1 of 1 values'),
    'NaN under an official key': ({'model': {'x': torch.tensor([_NAN])}}, 'x has 1 of 1 values'),
    'NaN in averaged weights': ({'ema_state_dict': {'x': torch.tensor([_NAN])}}, 'x has 1 of 1 values'),
    'NaN in the optimizer': (_optimizer(_NAN), r'optimizer.state.0.exp_avg has 1 of 6'),
    'name that changes a terminal': (weights(**{'a\x1b[31m\nb': torch.tensor([_NAN])}), r"a\\x1b\[31m\\nb' has 1 of 1"),
    'empty': (b'', 'EOFError'),
    'a web page': (b'<html>not found</html>', 'is refused|not a checkpoint'),
    'nothing but zeros': (bytes(1000), 'is refused|not a checkpoint'),
}


def write_hostile(name: str, path: Path) -> str:
    """Write one of :data:`HOSTILE` and return the pattern of its error."""
    content, pattern = HOSTILE[name]
    path.write_bytes(content if isinstance(content, bytes) else saved(content))
    return pattern
