"""Official weights by name: ``official://dat-tiny_in1k``.

The table is that of the metafiles beside the configs, which come with the package. A classifier has the name of its
model and data, a detector or segmentor that of its config.
"""

import difflib
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from mmengine.registry import MODELS
from mmengine.runner import CheckpointLoader
from torch import Tensor
from torch.hub import get_dir

from ..errors import CheckpointError, shown
from .atomic_writing import write_atomically
from .compare import compare
from .convert import convert_classifier
from .download import direct_url, download
from .safe_loading import load_from_local, read_state_dict

SCHEME = 'official://'
_CONFIGS = Path(__file__).parents[1] / '.mim' / 'configs'
_TYPES = {'pvt': 'PVT', 'pvtv2': 'PVTv2', 'dpt': 'DPT', 'dat': 'DAT'}
_SIZES = {'t': 'tiny', 's': 'small', 'm': 'medium', 'l': 'large', 'b': 'base'}
# Family, size and plus signs in the name of a config.
_BACKBONE = re.compile(r'(?:^|_)(pvtv2|pvt|dpt|dat)-(b\d(?:-li)?|[a-z]+)((?:-pp?)?)_')


@dataclass(frozen=True)
class OfficialWeights:
    """A row of the table.

    Attributes:
        name: After ``official://``, and of the file without its suffix.
        config: File of the config, below ``configs``.
        backbone: Registered type of the backbone.
        arch: Its ``arch``.
        data: Dataset that the weights are trained on.
        results: Published metrics.
        source: Published link, to the file or to a page of it.
        repository: Page of the official implementation, which lists its links.
    """

    name: str
    config: str
    backbone: str
    arch: str
    data: str
    results: Mapping[str, float]
    source: str
    repository: str

    @property
    def is_classifier(self) -> bool:
        return self.data == 'ImageNet-1k'

    @property
    def config_file(self) -> Path:
        return _CONFIGS / self.config

    def check(self, path: Path) -> dict[str, Tensor]:
        """Return the state dict of a file of these weights.

        Raises:
            CheckpointError: The file is damaged, or of another model.
        """
        state_dict = read_state_dict(path)
        if self.is_classifier:
            state_dict = convert_classifier(state_dict)
        prefix = 'backbone.'
        with torch.device('meta'):
            backbone = MODELS.get(self.backbone)(self.arch)
        part = {key[len(prefix) :]: value for key, value in state_dict.items() if key.startswith(prefix)}
        # Classifiers of DAT have no norms of feature maps.
        own = {key: value for key, value in backbone.state_dict().items() if not key.startswith('norms.')}
        difference = compare(backbone.adapt_state_dict(part, log=False), own)
        if difference.missing or difference.mismatched or len(part) == len(state_dict):
            raise CheckpointError(f'{shown(str(path))} is of another model than {self.name}: {difference}')
        return state_dict

    def download(self, path: Path, check: Callable[[Path], object] | None = None) -> None:
        """Download the file to a path, and write its size and checksum to the path with the suffix ``.json``.

        Args:
            path: File to write.
            check: In place of :meth:`check`.

        Raises:
            CheckpointError: It cannot be downloaded, or is of another model; the message says how to do it by hand.
        """
        try:
            download(self.source, path, check or self.check)
        except CheckpointError as error:
            raise CheckpointError(
                f'official weights {self.name}: {error}; save {direct_url(self.source)} as {_local(self.name)} (links: '
                f'{self.repository})'
            ) from error
        record(path, self.source)


@cache
def official_weights(directory: Path = _CONFIGS) -> Mapping[str, OfficialWeights]:
    """Return the table by name, from the metafiles of a directory of configs."""
    return {weights.name: weights for weights in _rows(directory)}


def _rows(directory: Path) -> Iterator[OfficialWeights]:
    for file in sorted(directory.glob('*/metafile.yml')):
        content = yaml.load(file.read_text(), getattr(yaml, 'CSafeLoader', yaml.SafeLoader))
        pages = {collection['Name']: collection.get('Code', {}).get('URL') for collection in content['Collections']}
        for model in content['Models']:
            found = _BACKBONE.search(model['Name'])
            if found and 'Weights' in model:
                family, size, plus = found.groups()
                yield OfficialWeights(
                    name=re.sub(r'_\d+xb\d+_in1k', '_in1k', model['Name']),
                    config=str(Path(model['Config']).relative_to('configs')),
                    backbone=_TYPES[family],
                    arch=_SIZES.get(size, size) + '+' * plus.count('p'),
                    data=model['Metadata']['Training Data'],
                    results={k: v for result in model.get('Results', ()) for k, v in result['Metrics'].items()},
                    source=model['Weights'],
                    repository=pages[model['In Collection']],
                )


def find_official(name: str, table: Mapping[str, OfficialWeights] | None = None) -> OfficialWeights:
    """Return the weights of a name.

    Raises:
        CheckpointError: There are none; the message has the closest names.
    """
    table = official_weights() if table is None else table
    if name not in table:
        close = difflib.get_close_matches(name, table, 3, 0.5)
        hint = f'did you mean {", ".join(close)}?' if close else 'tools/download_weights.py --list shows the names'
        raise CheckpointError(f'there are no official weights {shown(name)}; {hint}')
    return table[name]


def official_file(name: str, table: Mapping[str, OfficialWeights] | None = None) -> Path:
    """Return the file of official weights, downloaded if it is neither in ``checkpoints`` nor in torch hub's directory.

    Raises:
        CheckpointError: The name is unknown, or the download fails.
    """
    weights = find_official(name.removeprefix(SCHEME), table)
    cached = Path(get_dir(), 'checkpoints', f'{weights.name}.pth')
    if (local := _local(weights.name)).is_file():
        return local
    if not cached.is_file():
        weights.download(cached)
    return cached


def load_from_official(
    filename: str, map_location: Any = None, table: Mapping[str, OfficialWeights] | None = None
) -> dict[str, Any]:
    """Return the content of official weights; that of a classifier in the names of its config's model."""
    path = official_file(filename, table)
    if find_official(filename.removeprefix(SCHEME), table).is_classifier:
        return {'state_dict': convert_classifier(read_state_dict(path, map_location))}
    return load_from_local(str(path), map_location)


def enable_official_weights() -> None:
    """Let mmengine load ``official://NAME``; importing ``deformable_vit`` calls it."""
    CheckpointLoader.register_scheme(SCHEME, load_from_official, force=True)


def record(path: Path, source: str) -> None:
    """Write what a downloaded file was to a file of the same name that ends with ``.json``."""
    with path.open('rb') as file:
        checksum = hashlib.file_digest(file, 'sha256').hexdigest()
    content = dict(source=source, bytes=path.stat().st_size, sha256=checksum)
    write_atomically(path.with_suffix('.json'), (json.dumps(content, indent=2) + '\n').encode())


def recorded_size(path: Path) -> int | None:
    """Return the bytes that a download had when it was whole, or None without a record."""
    try:
        return int(json.loads(path.with_suffix('.json').read_text())['bytes'])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _local(name: str) -> Path:
    return Path('checkpoints', f'{name}.pth')
