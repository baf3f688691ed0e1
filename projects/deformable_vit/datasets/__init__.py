"""The built-in data set: drawn scenes in the layouts of COCO, ADE20K and ImageNet."""

from .scenes import CLASSES, Scene, draw_portrait, draw_scene
from .writing import ADE_CLASSES, ShapesSettings, write_shapes

__all__ = ['ADE_CLASSES', 'CLASSES', 'Scene', 'ShapesSettings', 'draw_portrait', 'draw_scene', 'write_shapes']
