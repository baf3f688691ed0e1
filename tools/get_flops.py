"""Count the parameters and FLOPs of a model; deformable_vit.apis.flops says what counts as a FLOP."""

import argparse
from functools import partial
from typing import Any

import torch
from mmengine.config import Config
from torch import nn

from deformable_vit.apis.command_line import add_config_options, one_line_errors
from deformable_vit.apis.config import load_config
from deformable_vit.apis.flops import count_flops, count_parameters
from deformable_vit.apis.inference import load_model
from deformable_vit.errors import UserError, first_line

# (height, width) of the FLOPs in the DAT paper's tables.
SHAPES = {'mmdet': (800, 1280), 'mmseg': (512, 2048)}


def tested_shape(config: Config) -> tuple[int, int]:
    """Return the (height, width) of the images that a classifier is tested on."""
    for transform in reversed(config.test_dataloader.dataset.pipeline):
        if transform['type'] in ('CenterCrop', 'Resize'):
            size = transform.get('crop_size', transform.get('scale'))
            return (size, size) if isinstance(size, int) else (size[-1], size[0])
    raise UserError('the test pipeline of this config has no CenterCrop or Resize to take the size from; set --shape')


def unwrapped(model: nn.Module) -> Any:
    """Return the model with a backbone in a wrapper: a student and teacher, a tracker, test-time augmentation, LoRA.

    Raises:
        UserError: No model has one.
    """
    if hasattr(model, 'backbone'):
        return model
    for name in ('student', 'detector', 'module'):
        if isinstance(inner := getattr(model, name, None), nn.Module):
            return unwrapped(inner)
    raise UserError(f'{type(model).__name__} has no backbone, so this tool cannot count its FLOPs')


def forward_arguments(scope: str, model: Any, shape: tuple[int, int]) -> dict[str, Any]:
    """Return the arguments of a model's forward besides the images."""
    if type(getattr(model, 'decode_head', None)).__name__ == 'Mask2FormerHead':
        # Its forward requires an argument that it does not read and that mmseg does not pass in this mode.
        model.decode_head.forward = partial(model.decode_head.forward, batch_data_samples=[])
    if scope != 'mmdet':
        return dict(mode='tensor')
    from mmdet.structures import DetDataSample

    size = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape'), shape)
    samples = [DetDataSample(metainfo=dict(size, scale_factor=(1.0, 1.0)))]
    if type(getattr(model, 'rpn_head', None)).__name__ == 'EmbeddingRPNHead':
        model.rpn_head.init_weights()  # before, the proposals of Sparse R-CNN may have negative sizes
        return dict(mode='predict', data_samples=samples)  # its tensor mode computes losses
    return dict(mode='tensor', data_samples=samples)


@one_line_errors
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config of MMDetection, MMSegmentation or MMPreTrain')
    parser.add_argument(
        '--shape',
        type=int,
        nargs='+',
        metavar=('H', 'W'),
        help='image size in pixels, one number for a square (default: 800 1280 for detection, 512 2048 for '
        'segmentation, the size of the test pipeline for classification)',
    )
    add_config_options(parser)
    args = parser.parse_args()
    config = load_config(args.config, args.cfg_options)
    if args.shape and (len(args.shape) > 2 or min(args.shape) < 1):
        raise UserError(f'--shape takes a height and a width of at least 1, or one number for both, got {args.shape}')
    shape = (args.shape[0], args.shape[-1]) if args.shape else SHAPES.get(config.default_scope) or tested_shape(config)
    whole = load_model(config)
    model = unwrapped(whole)
    channels = next((m.in_channels for m in model.backbone.modules() if isinstance(m, nn.Conv2d)), 3)
    inputs = torch.zeros(1, channels, *shape)
    try:
        flops = count_flops(model, inputs, **forward_arguments(config.default_scope, model, shape))
    except ValueError as error:
        raise UserError(f'--shape {shape[0]} {shape[1]}: {first_line(error)}') from error

    within = '' if model is whole else f' in {type(whole).__name__}'
    size = f'{shape[0]} x {shape[1]}'
    print(f'{type(model).__name__} with {type(model.backbone).__name__}{within}, one image of {size} pixels')
    for name, child in model.named_children():
        if parameters := count_parameters(child):
            print(f'  {name}: {parameters / 1e6:.2f} M parameters')
    print(f'Params: {count_parameters(model) / 1e6:.2f} M')
    print(f'FLOPs: {flops / 1e9:.2f} G')


if __name__ == '__main__':
    main()
