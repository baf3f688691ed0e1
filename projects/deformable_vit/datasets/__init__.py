"""Built-in data: synthetic shapes in the layouts of COCO, ADE20K and ImageNet."""

from .shapes import CLASSES, SyntheticImage, draw_image, draw_object
from .writing import SEG_CLASSES, ShapesSettings, write_shapes

__all__ = [
    'CLASSES',
    'SEG_CLASSES',
    'ShapesSettings',
    'SyntheticImage',
    'draw_image',
    'draw_object',
    'write_shapes',
]
