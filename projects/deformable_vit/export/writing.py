"""Write a module to ONNX, or by way of ONNX to OpenVINO."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import UserError, first_line
from .inputs import Input

OPSET = 20


def write_onnx(module: Any, spec: Input, path: Path, metadata: dict[str, Any]) -> None:
    """Write a module to an ONNX file, with its weights in ``PATH.data`` where they are too large for one file.

    Args:
        module: Takes one tensor, and has ``output_names``.
        spec: Its input.
        path: The file to write.
        metadata: Values for JSON.

    Raises:
        UserError: torch cannot export it.
    """
    try:
        with torch.no_grad():
            program = torch.export.export(module, (spec.example(),), dynamic_shapes=spec.dynamic_shapes())
        onnx = torch.onnx.export(
            program,
            opset_version=OPSET,
            input_names=['image'],
            output_names=list(module.output_names),
            verbose=False,
            optimize=False,
        )
    except Exception as error:  # of torch and onnxscript, which have many
        hint = '; fix the size, with --shape H W and without --dynamic' if spec.is_dynamic else ''
        raise UserError(f'{_name(module)} cannot be exported: {first_line(error)}{hint}') from error
    assert onnx is not None
    _simplify(onnx.model)
    names = {str(dim): name for dim, name in zip(onnx.model.graph.inputs[0].shape or (), spec.shape, strict=True)}
    onnx.rename_axes({dim: name for dim, name in names.items() if isinstance(name, str)})
    onnx.model.metadata_props.update({key: json.dumps(value) for key, value in metadata.items()})
    onnx.save(path)


def _simplify(model: Any) -> None:
    """Fold constants, and merge equal nodes and weights.

    Inference engines fuse operations by themselves. The rewrite rules of ``optimize=True`` are left out: some of them
    compare each node with all nodes, which takes 6 minutes for DAT-T++.
    """
    from onnx_ir.passes import Sequential, common
    from onnxscript.optimizer import fold_constants, inline

    inline(model)
    fold_constants(model)
    Sequential(
        common.RemoveUnusedNodesPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.RemoveUnusedFunctionsPass(),
        common.RemoveUnusedOpsetsPass(),
    )(model)


def write_openvino(onnx: Path, path: Path, metadata: dict[str, Any]) -> None:
    """Convert an ONNX file to OpenVINO's ``.xml`` and ``.bin``, in float32."""
    import openvino

    model = openvino.convert_model(onnx)
    for key, value in metadata.items():
        model.set_rt_info(json.dumps(value), ['deformable_vit', key])
    openvino.save_model(model, path, compress_to_fp16=False)


def _name(module: nn.Module) -> str:
    """Return the name of the model in a module."""
    inner: Any = getattr(module, 'module', module)
    return type(getattr(inner, 'model', None) or getattr(inner, 'backbone', inner)).__name__
