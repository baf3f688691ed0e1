"""From a config and a checkpoint to a checked file."""

import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch import nn

from .._nested import walk
from ..apis.inference import TASKS, load_model
from ..errors import UserError, shown
from .checking import check_file
from .inputs import SMALLEST, Input
from .modules import wrap_backbone, wrap_classifier, wrap_segmentor
from .preprocessing import Preprocessing, WithPreprocessing
from .running import check_packages, format_of
from .writing import OPSET, write_onnx, write_openvino

# Larger than 224, which is one window of DAT at stride 32: one window would become a constant.
DETECTOR_SHAPE, SHAPE = (800, 1344), (256, 352)
# Feature maps of detectors have strides of up to 128.
SMALLEST_OF_DETECTORS = 160


@dataclass(frozen=True)
class Options:
    """What to export.

    Attributes:
        shape: Height and width; None for the defaults.
        dynamic: Whether a detector has a dynamic size; other models have one without ``shape``.
        part: ``'backbone'``, or None for the whole model.
        argmax: Whether a segmentor returns label maps.
        raw: Whether a detector returns the outputs of its heads.
        with_preprocessing: Whether the file takes bytes.
        check: Whether the file is compared with the model.
    """

    shape: tuple[int, int] | None = None
    dynamic: bool = False
    part: str | None = None
    argmax: bool = False
    raw: bool = False
    with_preprocessing: bool = False
    check: bool = True


def export(config: Config, checkpoint: str, out: Path, options: Options, name: str) -> str:
    """Export a model to ``out``, check the file, and return a report.

    Args:
        config: As :func:`.apis.config.load_config` returns it.
        checkpoint: Of the whole model.
        out: A new file, ``.onnx`` or ``.xml``.
        options: What to export.
        name: Of the config, for the metadata.

    Raises:
        UserError: The options do not fit, or the file is not equal to the model; then there is no file.
    """
    kind = format_of(out)
    _check_options(config.default_scope, out, options)
    check_packages(kind)
    model = load_model(config, checkpoint)
    spec = input_of(config, model, options)
    module = _module(model, config.default_scope, spec, options, argmax=options.argmax)
    metadata = metadata_of(config, model, spec, options, name)
    start = time.time()
    staging = Path(tempfile.mkdtemp(dir=out.parent, prefix=f'.{out.name}.'))
    try:
        onnx = (staging / out.name).with_suffix('.onnx')
        write_onnx(module, spec, onnx, metadata)
        if kind == 'openvino':
            write_openvino(onnx, staging / out.name, metadata)
            for file in staging.glob(f'{onnx.name}*'):
                file.unlink()
        seconds = time.time() - start
        table = 'not checked'
        if options.check:
            reference = _module(model, config.default_scope, spec, options, argmax=False)
            found = [node for key, node in walk(config.model, '') if key.endswith('.score_thr')]
            table = check_file(staging / out.name, reference, spec, *found[:1])
        files = sorted(staging.iterdir(), key=lambda file: file.name == out.name)  # the weights first
        for file in files:
            file.rename(out.parent / file.name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    size = sum((out.parent / file.name).stat().st_size for file in files) / 2**20
    sizes = ', '.join(map(str, spec.shape))
    what = f'image ({sizes}) -> {", ".join(module.output_names)}'
    return f'{table}\n{out}: {what}; {size:.1f} MiB, opset {OPSET}, exported in {seconds:.0f} s'


def input_of(config: Config, model: Any, options: Options) -> Input:
    """Return the input of a model's file."""
    is_detector = config.default_scope == 'mmdet' and options.part is None
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    height, width = options.shape or (DETECTOR_SHAPE if is_detector else SHAPE)
    return Input(
        height,
        width,
        Preprocessing.of(config),
        is_dynamic=options.dynamic or (options.shape is None and not is_detector),
        is_bytes=options.with_preprocessing,
        smallest=_smallest(config.default_scope, options),
        channels=first.in_channels if first else 3,
    )


def _smallest(scope: str, options: Options) -> int:
    """Return the smallest dynamic height and width."""
    return SMALLEST_OF_DETECTORS if scope == 'mmdet' and options.part is None else SMALLEST


def metadata_of(config: Config, model: Any, spec: Input, options: Options, name: str) -> dict[str, Any]:
    """Return what a service needs to know, as plain values."""
    from .. import __version__

    preprocessing = spec.preprocessing
    return dict(
        task=options.part or TASKS[config.default_scope][0],
        classes=[str(c) for c in model.dataset_meta['classes']],
        input_shape=list(spec.shape),
        smallest=spec.smallest if spec.is_dynamic else None,
        mean=list(preprocessing.mean),
        std=list(preprocessing.std),
        channel_order=preprocessing.channel_order,
        pad_divisor=preprocessing.divisor,
        preprocessing=spec.is_bytes,
        raw=options.raw,
        config=name,
        version=__version__,
    )


def _module(model: Any, scope: str, spec: Input, options: Options, argmax: bool) -> Any:
    if options.part == 'backbone':
        module: Any = wrap_backbone(model)
    elif scope == 'mmdet':
        from .detectors import wrap_detector

        module = wrap_detector(model, raw=options.raw, is_dynamic=spec.is_dynamic)
    else:
        module = wrap_segmentor(model, argmax) if scope == 'mmseg' else wrap_classifier(model)
    return WithPreprocessing(module, spec.preprocessing).eval() if spec.is_bytes else module


def _check_options(scope: str, out: Path, options: Options) -> None:
    """Check what can be checked before the model is built."""
    if not out.parent.is_dir():
        raise UserError(f'--out {shown(str(out))}: the directory {shown(str(out.parent))} does not exist')
    for path in (out, out.with_suffix('.bin') if out.suffix == '.xml' else out.with_name(f'{out.name}.data')):
        if path.exists():
            raise UserError(f'--out: {shown(str(path))} exists already; choose another name or remove it')
    if options.shape and min(options.shape) < SMALLEST:
        raise UserError(
            f'--shape {options.shape[0]} {options.shape[1]}: height and width are at least {SMALLEST} pixels'
        )
    smallest = _smallest(scope, options)
    if options.shape and options.dynamic and min(options.shape) <= smallest:
        raise UserError(
            f'--dynamic with --shape {options.shape[0]} {options.shape[1]}: export with more than {smallest} pixels'
        )
    whole = options.part is None
    for flag, is_on, task, needed in (
        ('--argmax', options.argmax, 'segmentors', 'mmseg'),
        ('--raw', options.raw, 'detectors', 'mmdet'),
    ):
        if is_on and not (whole and scope == needed):
            raise UserError(
                f'{flag} is for {task}, and this exports {"an " + scope + " model" if whole else "a backbone"}'
            )
