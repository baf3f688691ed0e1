"""Download official weights, and compare them with the whole model of their config."""

from importlib.util import find_spec
from pathlib import Path

from ..checkpoints import OfficialWeights, compare, convert_state_dict, recorded_size
from ..errors import CheckpointError, UserError, shown
from .config import load_config
from .inference import load_model

_LIBRARIES = {'COCO': 'mmdet', 'ADE20K': 'mmseg', 'ImageNet-1k': 'mmpretrain'}


def download_weights(weights: OfficialWeights, directory: Path) -> str:
    """Download official weights to ``NAME.pth`` in a directory unless they are there, and return a line about them.

    The file gets its name after the comparison with the model of the config, or with the backbone if the library of the
    config is not installed.

    Raises:
        UserError: They cannot be downloaded, or the file is of another model.
    """
    path = directory / f'{weights.name}.pth'
    if not path.exists():
        weights.download(path, lambda file: compare_with_model(weights, file))
        return f'{path}: {size(path)}'
    if path.stat().st_size == recorded_size(path):
        return f'{path}: exists, whole, {size(path)}'
    try:
        compare_with_model(weights, path)
    except UserError as error:
        raise UserError(f'{weights.name}: {error}; move the file away to download it again') from error
    return f'{path}: exists, whole, {size(path)}'


def compare_with_model(weights: OfficialWeights, path: Path) -> None:
    """Compare names and shapes of a file with the backbone, and with the model of the config if it can be built.

    Raises:
        CheckpointError: The file is damaged, or the model has parameters that the file lacks.
    """
    state_dict = weights.check(path)
    if find_spec(_LIBRARIES[weights.data]) is None:
        return
    model = load_model(load_config(str(weights.config_file), {}))
    difference = compare(convert_state_dict(model, state_dict), model.state_dict())
    if difference.missing or difference.mismatched:
        raise CheckpointError(f'{shown(str(path))} does not fit the model of {weights.config}: {difference}')


def size(path: Path) -> str:
    """Return the size of a file for people."""
    return f'{path.stat().st_size / 2**20:.1f} MiB'
