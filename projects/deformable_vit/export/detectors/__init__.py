"""Detectors of mmdet as modules of tensors, which ``torch.export`` and the ONNX exporter take."""

from .wrap import wrap_detector

__all__ = ['wrap_detector']
