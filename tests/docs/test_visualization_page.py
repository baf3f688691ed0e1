"""docs/visualization.md: modes and keys of the JSON file are those of the code."""

from pathlib import Path

import pytest
from attention_page import points_layer, recording_of
from pages import inline_code, table

from deformable_vit.visualization import to_json

PAGE = Path('docs/visualization.md')


@pytest.mark.parametrize('name', ['DAT', 'DAT++', 'DPT', 'PVT'])
def test_keys_and_modes_are_documented(name: str) -> None:
    keys = {key for row in table(PAGE, 'key of a layer') for key in inline_code(row[0])}
    modes = {kind: inline_code(row[2]) for row in table(PAGE, 'kind of layer') for kind in inline_code(row[0])}
    recording = recording_of(name)
    recording.layers += [points_layer(True), points_layer(False)]
    entries = to_json(recording.size, recording.layers, (3, 4))['layers']
    for layer, entry in zip(recording.layers, entries, strict=True):
        assert set(entry) <= keys
        assert tuple(modes[layer.kind]) == layer.modes
