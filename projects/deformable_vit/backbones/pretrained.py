"""The argument ``pretrained`` of the backbones."""

from pathlib import Path
from typing import Any

from ..checkpoints import SCHEME, find_official, official_weights


def find_pretrained(name: str, family: str, arch: Any, pretrained: bool | str | None) -> str | None:
    """Return the checkpoint that ``pretrained`` stands for.

    Args:
        name: Name of the backbone, for messages.
        family: Begins the names of its official weights.
        arch: As in the constructor of the backbone.
        pretrained: True for the official ImageNet weights of ``arch``, a name of official weights with or without
            ``official://``, a path or a URL. False or None for none.

    Raises:
        ValueError: ``arch`` has no official weights, or there is neither a file nor official weights of the name.
    """
    if not pretrained:
        return None
    if pretrained is True:
        table = official_weights().values()
        names = {w.arch: w.name for w in table if w.name.startswith(f'{family}-') and w.name.endswith('_in1k')}
        if not isinstance(arch, str) or arch not in names:
            raise ValueError(
                f'{name}: there are official weights of {", ".join(names)}, not of {arch=}; set pretrained to the name '
                'or path of weights, or to False'
            )
        return SCHEME + names[arch]
    pretrained = str(pretrained)  # or a Path
    if '://' in pretrained or Path(pretrained).expanduser().exists():
        return pretrained
    if Path(pretrained).suffix:  # a file name
        raise ValueError(f'{name}: pretrained={pretrained!r} does not exist')
    return SCHEME + find_official(pretrained).name
