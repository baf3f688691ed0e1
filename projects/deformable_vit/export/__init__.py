"""Export models to ONNX and OpenVINO, check the files, and test them with the metrics of their config.

:mod:`.exporting` goes from config and checkpoint to a file: :mod:`.modules` and :mod:`.detectors` make a model a module
of tensors, :mod:`.writing` writes it, :mod:`.running` runs files, :mod:`.checking` compares.
"""

from .exporting import Options, export
from .modules import wrap_backbone, wrap_classifier, wrap_segmentor
from .running import ExportedFile

__all__ = ['ExportedFile', 'Options', 'export', 'wrap_backbone', 'wrap_classifier', 'wrap_segmentor']
