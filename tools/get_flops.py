"""Count the parameters and FLOPs of a model; deformable_vit.engine.flops says what counts as a FLOP."""

import argparse
import importlib
from functools import partial

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from deformable_vit.engine import UserError, add_config_options, load_config, one_line_errors
from deformable_vit.engine.cli import first_line
from deformable_vit.engine.flops import count_flops, count_parameters

# (height, width) of the FLOPs in the DAT paper's tables.
SHAPES = {'mmdet': (800, 1280), 'mmseg': (512, 2048)}


def parse_args() -> argparse.Namespace:
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
    return parser.parse_args()


def tested_shape(config: Config) -> tuple[int, int]:
    """Return the (height, width) of the images that a classifier is tested on."""
    for transform in reversed(config.test_dataloader.dataset.pipeline):
        if transform['type'] in ('CenterCrop', 'Resize'):
            size = transform.get('crop_size', transform.get('scale'))
            return (size, size) if isinstance(size, int) else (size[-1], size[0])
    raise UserError('the test pipeline of this config has no CenterCrop or Resize to take the size from; set --shape')


def forward_arguments(scope: str, shape: tuple[int, int]) -> dict:
    """Return the arguments of a model's forward besides the images."""
    if scope != 'mmdet':
        return dict(mode='tensor')
    from mmdet.structures import DetDataSample

    size = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape'), shape)
    return dict(mode='tensor', data_samples=[DetDataSample(metainfo=dict(size, scale_factor=(1.0, 1.0)))])


@one_line_errors
def main() -> None:
    args = parse_args()
    config = load_config(args.config, args.cfg_options)
    scope = config.default_scope
    if args.shape is None:
        shape = SHAPES.get(scope) or tested_shape(config)
    elif len(args.shape) > 2 or min(args.shape) < 1:
        raise UserError(f'--shape takes a height and a width of at least 1, or one number for both, got {args.shape}')
    else:
        shape = (args.shape[0], args.shape[-1])

    init_default_scope(scope)
    config.model.backbone.pop('init_cfg', None)  # FLOPs do not depend on the weights
    model = importlib.import_module(f'{scope}.registry').MODELS.build(config.model)
    if config.model.get('decode_head', {}).get('type') == 'Mask2FormerHead':
        # Its forward requires an argument that it does not read and that mmseg does not pass in this mode.
        model.decode_head.forward = partial(model.decode_head.forward, batch_data_samples=[])
    inputs = torch.zeros(1, config.model.backbone.get('in_channels', 3), *shape)
    arguments = forward_arguments(scope, shape)
    if config.model.get('rpn_head', {}).get('type') == 'EmbeddingRPNHead':
        model.rpn_head.init_weights()  # before, the proposals of Sparse R-CNN may have negative sizes
        arguments['mode'] = 'predict'  # its tensor mode computes losses
    try:
        flops = count_flops(model, inputs, **arguments)
    except ValueError as error:
        raise UserError(f'--shape {shape[0]} {shape[1]}: {first_line(error)}') from error

    print(f'{type(model).__name__} with {type(model.backbone).__name__}, one image of {shape[0]} x {shape[1]} pixels')
    for name, child in model.named_children():
        if parameters := count_parameters(child):
            print(f'  {name}: {parameters / 1e6:.2f} M parameters')
    print(f'Params: {count_parameters(model) / 1e6:.2f} M')
    print(f'FLOPs: {flops / 1e9:.2f} G')


if __name__ == '__main__':
    main()
