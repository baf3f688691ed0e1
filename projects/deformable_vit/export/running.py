"""Run exported files: ONNX Runtime for ``.onnx``, OpenVINO for ``.xml``, on the CPU with torch's number of threads."""

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError, first_line, shown

FORMATS = {'.onnx': 'onnx', '.xml': 'openvino'}
_PACKAGES = dict(onnx=('onnx', 'onnxscript', 'onnxruntime'), openvino=('onnx', 'onnxscript', 'openvino'))
_EXTRAS = dict(onnx='export', openvino='openvino')

Arrays = list[np.ndarray[Any, Any]]


def format_of(path: Path) -> str:
    """Return ``onnx`` or ``openvino``, by the suffix of a file.

    Raises:
        UserError: It has another one.
    """
    if path.suffix not in FORMATS:
        raise UserError(f'{shown(str(path))}: the suffix is neither .onnx nor .xml (OpenVINO)')
    return FORMATS[path.suffix]


def check_packages(kind: str, *needed: str) -> None:
    """Check that the packages of a format are installed: those that are ``needed``, or all."""
    if missing := [name for name in needed or _PACKAGES[kind] if find_spec(name) is None]:
        raise UserError(f"{kind} needs {', '.join(missing)}: pip install 'deformable-vit[{_EXTRAS[kind]}]'")


def is_exported(path: str) -> bool:
    """Return whether the name of a checkpoint or model is that of an exported file."""
    return Path(path).suffix in FORMATS


def open_file(path: Path) -> tuple[Callable[[Any], Arrays], tuple[str, ...], dict[str, str]]:
    """Load a file that takes one array.

    Returns:
        A function from that array to those of the outputs, the names of the outputs, and the metadata.

    Raises:
        UserError: The file does not exist or cannot be read, or a package is missing.
    """
    kind = format_of(path)
    check_packages(kind, dict(onnx='onnxruntime', openvino='openvino')[kind])
    if not path.is_file():
        raise UserError(f'{shown(str(path))} does not exist')
    try:
        return (_open_onnx if kind == 'onnx' else _open_openvino)(path)
    except Exception as error:  # of the two libraries, which have many
        raise UserError(f'{shown(str(path))} cannot be read: {first_line(error)}') from error


class ExportedFile:
    """An exported file in memory.

    Attributes:
        metadata: What ``tools/export.py`` wrote, such as ``task`` and ``classes``.
        output_names: In the order of the outputs.
    """

    def __init__(self, path: Path) -> None:
        self._run, self.output_names, metadata = open_file(path)
        if 'task' not in metadata:
            raise UserError(f'{shown(str(path))} has no metadata of tools/export.py, such as its task')
        self.metadata = {key: json.loads(value) for key, value in metadata.items()}

    def __call__(self, image: Tensor) -> dict[str, Tensor]:
        """Return the outputs by name, on the CPU."""
        outputs = self._run(np.ascontiguousarray(image.numpy(force=True)))
        return {name: torch.from_numpy(x) for name, x in zip(self.output_names, outputs, strict=True)}


def _open_onnx(path: Path) -> tuple[Callable[[Any], Arrays], tuple[str, ...], dict[str, str]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])
    names = tuple(output.name for output in session.get_outputs())
    metadata = session.get_modelmeta().custom_metadata_map
    name = session.get_inputs()[0].name
    return lambda image: session.run(None, {name: image}), names, metadata


def _open_openvino(path: Path) -> tuple[Callable[[Any], Arrays], tuple[str, ...], dict[str, str]]:
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    names = tuple(output.get_any_name() for output in model.outputs)
    saved = model.get_rt_info(['deformable_vit']).astype(dict) if model.has_rt_info(['deformable_vit']) else {}
    metadata = {key: value.astype(str) for key, value in saved.items()}
    # On some processors OpenVINO computes in bfloat16 unless it is told not to.
    options = dict(INFERENCE_PRECISION_HINT='f32', INFERENCE_NUM_THREADS=torch.get_num_threads())
    compiled = core.compile_model(model, 'CPU', options)
    return lambda image: [np.array(x) for x in compiled([image]).to_tuple()], names, metadata
