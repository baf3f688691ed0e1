"""The names of classes and functions that the pickle of a checkpoint may use, and what is wrong with the others."""

from typing import NamedTuple

from .errors import ContentError, refused, shown

ITEM_SIZES = {
    f'torch {kind}Storage': size
    for size, kinds in {1: 'Byte Char Bool', 2: 'Half BFloat16 Short', 4: 'Float Int', 8: 'Double Long'}.items()
    for kind in kinds.split()
}
_NUMPY = ('numpy.core.multiarray', 'numpy._core.multiarray')
HISTORY = 'mmengine.logging.history_buffer HistoryBuffer'
# Objects that are made as numpy and mmengine save them; `values` checks what they hold.
CHECKED_LATER = {f'{module} {name}' for module in _NUMPY for name in ('_reconstruct', 'scalar')} | {'numpy dtype'}
_DTYPES = {f'torch {name}' for name in ('float16', 'bfloat16', 'float32', 'float64', 'uint8', 'int8', 'int16', 'int32')}
_DTYPES |= {'torch int64', 'torch bool'}
GETATTR = ('__builtin__ getattr', 'builtins getattr')
SETS = ('__builtin__ set', 'builtins set')
TENSORS = tuple(f'torch._utils _rebuild_{name}' for name in ('tensor_v2', 'tensor', 'parameter'))
_ALLOWED = {
    *ITEM_SIZES,
    *CHECKED_LATER,
    *_DTYPES,
    *GETATTR,
    *SETS,
    *TENSORS,
    HISTORY,
    'numpy ndarray',
    '_codecs encode',
    'collections OrderedDict',
    'collections Counter',
    'torch Size',
    'torch device',
}
_UNUSABLE = {
    '_rebuild_qtensor': 'a quantized tensor',
    '_rebuild_sparse_tensor': 'a sparse tensor',
    '_rebuild_meta_tensor_no_storage': 'a tensor without values (of the meta device)',
    '_rebuild_nested_tensor': 'a nested tensor',
    '_rebuild_wrapper_subclass': 'a subclass of tensors',
    '_rebuild_from_type_v2': 'a subclass of tensors',
}


class Global(NamedTuple):
    """A class or function that a pickle names, as ``MODULE NAME``."""

    name: str


def allowed(name: str) -> Global:
    """Return a name that is allowed.

    Raises:
        ContentError: It is not.
    """
    if name in _ALLOWED:
        return Global(name)
    module, _, attribute = name.partition(' ')
    if module in ('torch._utils', 'torch._tensor') and attribute in _UNUSABLE:
        raise unusable(_UNUSABLE[attribute])
    if module == 'torch' and attribute.endswith('Storage'):
        kind = 'quantized' if attribute.startswith('Q') else 'complex' if 'Complex' in attribute else shown(attribute)
        raise unusable(f'a {kind} tensor')
    raise refused(
        f'it needs {shown(name.replace(" ", "."))}, and unpickling that could run code. '
        'If you trust its origin, save its weights alone: torch.save(dict(state_dict=...), FILE)'
    )


def unusable(what: str) -> ContentError:
    """Return the error for tensors that are not plain."""
    return refused(f'it holds {what}; save the weights as dense tensors of real numbers on the CPU')
