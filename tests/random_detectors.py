"""Detectors of configs/demo with random weights that find objects, as trained ones do."""

from typing import Any

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope
from running import ROOT
from torch import Tensor, nn

# Mean and standard deviation of what the last layers return: most classes are unlikely, boxes near their priors.
SCORES, BOXES = (-3.0, 1.5), (0.0, 0.5)
LAST_LAYERS = dict(
    retina_cls=SCORES,
    retina_reg=BOXES,
    atss_cls=SCORES,
    atss_reg=BOXES,
    gfl_cls=SCORES,
    gfl_reg=(0.0, 1.5),
    conv_cls=SCORES,
    conv_reg=BOXES,
    rpn_cls=SCORES,
    rpn_reg=BOXES,
    fc_cls=(0.0, 2.5),
    fc_reg=BOXES,
    conv_logits=(0.0, 2.0),
    cls_branches=SCORES,
    reg_branches=BOXES,
)


def random_images(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def data_samples(images: Tensor) -> list[DetDataSample]:
    """Return the data samples of images (B, C, H, W) without padding."""
    size = tuple(images.shape[2:])
    meta = dict(img_shape=size, batch_input_shape=size, ori_shape=size, scale_factor=(1.0, 1.0))
    return [DetDataSample(metainfo=meta) for _ in images]


def demo_config(name: str, **model_options: Any) -> Config:
    """Return ``configs/demo/NAME_shapes.py`` with options merged into its model."""
    config = Config.fromfile(ROOT / f'configs/demo/{name}_shapes.py')
    config.merge_from_dict(dict(model=model_options))
    return config


def build_detector(config: Config) -> Any:
    init_default_scope('mmdet')
    return MODELS.build(config.model)


@torch.no_grad()
def random_detector(config: Config) -> Any:
    """Return a detector in evaluation mode with random weights of which every layer makes a difference."""
    torch.manual_seed(0)
    model = build_detector(config).eval()
    for x in model.parameters():
        if x.dim() > 1:
            x.normal_(std=(x.shape[0] / x.numel()) ** 0.5)  # also what mmdet leaves for init_weights
        else:
            x.add_(torch.randn_like(x) * 0.1)
    for layer, mean, std in _last_layers(model):
        _standardize(model, layer, mean, std)
    return model


def _last_layers(model: nn.Module) -> list[tuple[Any, float, float]]:
    layers = []
    for name, layer in model.named_modules():
        is_hidden = 'reg_branches' in name and isinstance(layer, nn.Linear) and layer.out_features != 4
        if isinstance(layer, (nn.Conv2d, nn.Linear)) and not is_hidden:
            layers += [(layer, *LAST_LAYERS[part]) for part in name.split('.') if part in LAST_LAYERS]
    return layers


def _standardize(model: Any, layer: Any, mean: float, std: float) -> None:
    outputs: list[Tensor] = []
    with layer.register_forward_hook(lambda module, args, output: outputs.append(output.flatten())):
        images = random_images(1, 3, 64, 96)
        model.predict(images, data_samples(images), rescale=False)
    values = torch.cat(outputs)
    factor = std / values.std()
    layer.weight.mul_(factor)
    layer.bias.sub_(values.mean()).mul_(factor).add_(mean)
