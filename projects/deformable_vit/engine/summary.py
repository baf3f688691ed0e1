"""One line each about what a run uses: its optimizer's parameter groups, and the resize and crop of its evaluation."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

_NORMS = (nn.LayerNorm, nn.GroupNorm, _NormBase)
_GROUPS = 4  # that are listed
_SIZES = ('scale', 'scale_factor', 'scales', 'crop_size', 'size', 'size_divisor')


def optimizer_summary(model: nn.Module, wrapper: OptimWrapper | OptimWrapperDict, config: Config) -> str:
    """Count the parameters by learning rate and weight decay.

    Args:
        model: Whose parameters the optimizer updates.
        wrapper: mmengine's wrapper of one or several optimizers.
        config: Whose ``paramwise_cfg.custom_keys`` name kinds of parameters, besides ``norm`` and ``bias``.
    """
    keys = ((config.get('optim_wrapper') or {}).get('paramwise_cfg') or {}).get('custom_keys') or {}
    kinds = _kinds(model, sorted(sorted(keys), key=len, reverse=True))
    named = wrapper.items() if isinstance(wrapper, OptimWrapperDict) else [('', wrapper)]
    optimizers = [(f'optimizer {name}'.strip(), one.optimizer) for name, one in named]
    return '; '.join(f'{name}: {type(o).__name__}, {_groups(o.param_groups, kinds)}' for name, o in optimizers)


def _kinds(model: nn.Module, keys: Sequence[str]) -> dict[int, str]:
    """Return the kind of each parameter, by its id: the first of ``keys`` in its name, norm, bias or weight."""
    kinds = {}
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            default = 'norm' if isinstance(module, _NORMS) else 'bias' if name == 'bias' else 'weight'
            kinds[id(parameter)] = next((key for key in keys if key in f'{prefix}.{name}'), default)
    return kinds


def _groups(param_groups: list[dict[str, Any]], kinds: dict[int, str]) -> str:
    counts: dict[tuple[float, float], Counter[str]] = {}
    frozen = 0
    for group in param_groups:
        rates = (group.get('initial_lr', group['lr']), group.get('weight_decay', 0.0))
        for parameter in group['params']:
            if parameter.requires_grad:
                counts.setdefault(rates, Counter())[kinds.get(id(parameter), 'weight')] += 1
            else:
                frozen += 1
    largest = sorted(counts.items(), key=lambda item: -item[1].total())
    listed = [
        f'{kind.total()} with lr {lr:g}, weight decay {decay:g}{_named(kind)}'
        for (lr, decay), kind in largest[:_GROUPS]
    ]
    if rest := [lr for (lr, _), _ in largest[_GROUPS:]]:
        listed.append(f'{len(rest)} more groups with lr {min(rest):g} to {max(rest):g}')
    total = sum(kind.total() for kind in counts.values())
    in_groups = f' in {len(counts)} groups' if len(counts) > 1 else ''
    return f'{total} parameters{in_groups}: {"; ".join(listed)}' + (f'; {frozen} frozen' if frozen else '')


def _named(kinds: Counter[str]) -> str:
    common = [kind for kind, _ in kinds.most_common(3)]
    return f' ({", ".join([*common, "..."] if len(kinds) > 3 else common)})'


def evaluation_summary(config: Config) -> str:
    """Describe how the test pipeline sizes images, such as ``ResizeEdge 256 (short edge, bicubic), CenterCrop 224``."""
    steps = [_sizing(step) for step in _transforms(config.test_dataloader.dataset)]
    return f'evaluation: {", ".join(filter(None, steps)) or "images at their own size"}'


def _transforms(node: Any) -> Iterator[dict[str, Any]]:
    """Yield the transforms below a dataset, those of wrappers and of test-time augmentation too."""
    if isinstance(node, dict):
        if isinstance(node.get('type'), str) and 'pipeline' not in node and 'dataset' not in node:
            yield node
        for key in ('dataset', 'datasets', 'pipeline', 'transforms'):
            yield from _transforms(node.get(key))
    elif isinstance(node, (list, tuple)):
        for item in node:
            yield from _transforms(item)


def _sizing(step: dict[str, Any]) -> str:
    """Return a transform's type, size and how it interpolates; an empty string if it leaves the size as it is."""
    if not any(word in step['type'] for word in ('Resize', 'Crop', 'Pad')):
        return ''
    size = next((step[key] for key in _SIZES if key in step), '')
    if step['type'] == 'Resize' and isinstance(step.get('scale'), int):  # a square, unlike in torchvision
        size = (step['scale'],) * 2
    size = ' x '.join(map(str, size)) if isinstance(size, (list, tuple)) else str(size)
    details = [f'{step["edge"]} edge'] if 'edge' in step else []
    details += ['keeps the aspect ratio'] if step.get('keep_ratio') else []
    details += [step[key] for key in ('interpolation', 'backend') if key in step]
    return f'{step["type"]} {size}'.rstrip() + (f' ({", ".join(details)})' if details else '')
