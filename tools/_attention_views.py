"""Choose the layer and the view of tools/visualize_attention.py, and check what its command line asks for."""

import argparse
from collections.abc import Sequence

from deformable_vit.engine import UserError
from deformable_vit.visualization import AttentionLayer, Layer, check_mode


def describe(layers: Sequence[Layer]) -> str:
    """Return the stages and blocks that there are, for messages."""
    names = dict.fromkeys(f'{layer.stage}.{layer.block} ({layer.kind})' for layer in layers)
    return ', '.join(names)


def choose_layer(layers: Sequence[Layer], args: argparse.Namespace) -> int | None:
    """Return the index of the layer that ``--stage`` and ``--block`` name; None if neither is given.

    Raises:
        UserError: There is none.
    """
    if args.stage is None and args.block is None:
        return None
    found = [
        i for i, layer in enumerate(layers) if args.stage in (None, layer.stage) and args.block in (None, layer.block)
    ]
    if not found:
        wanted = ' '.join(
            f'--{name} {getattr(args, name)}' for name in ('stage', 'block') if getattr(args, name) is not None
        )
        raise UserError(f'{wanted}: the model has no such layer; it has {describe(layers)}')
    return found[-1]


def choose_blocks(layers: Sequence[Layer], names: Sequence[str]) -> list[int]:
    """Return the indices of the layers that ``--blocks`` names, as STAGE.BLOCK.

    Raises:
        UserError: There is none of a name.
    """
    chosen = []
    for name in names:
        found = [i for i, layer in enumerate(layers) if f'{layer.stage}.{layer.block}' == name]
        if not found:
            raise UserError(f'--blocks {name}: the model has no such block; it has {describe(layers)}')
        chosen += found
    return chosen


def check_head_and_group(layer: Layer, args: argparse.Namespace) -> tuple[int | None, int | None]:
    """Return the indices of ``--head`` and ``--group``, None for all.

    Raises:
        UserError: The layer does not have as many, or the head is in another group.
    """
    groups = layer.groups if isinstance(layer, AttentionLayer) else 1
    numbers = {'head': getattr(layer, 'heads', 1), 'group': groups}
    for name, count in numbers.items():
        value = getattr(args, name)
        if value is not None and value > count:
            raise UserError(f'--{name} {value}: this {layer.kind} layer has {count}; choose 1 to {count}, or all')
    if args.head is not None and args.group is not None and groups > 1:
        per_group = numbers['head'] // groups
        if (own := (args.head - 1) // per_group + 1) != args.group:
            raise UserError(f'--head {args.head} --group {args.group}: head {args.head} is in group {own}')
    return tuple(None if getattr(args, name) is None else getattr(args, name) - 1 for name in numbers)  # type: ignore[return-value]


def check_view(layer: Layer, mode: str) -> None:
    """Check that a layer has a mode, for every kind of output.

    Raises:
        UserError: It has not.
    """
    try:
        check_mode(layer, mode)
    except ValueError as error:
        raise UserError(f'--mode {mode}: layer {layer.stage}.{layer.block}: {error}') from error
