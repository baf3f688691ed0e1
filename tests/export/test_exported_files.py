"""Files of a toy module: what is in them, and that a failed export leaves nothing."""

from functools import partialmethod
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

from deformable_vit.errors import UserError
from deformable_vit.export import ExportedFile, exporting
from deformable_vit.export.checking import check_file
from deformable_vit.export.inputs import Input
from deformable_vit.export.network import ExportedNetwork
from deformable_vit.export.preprocessing import Preprocessing, WithPreprocessing
from deformable_vit.export.writing import write_onnx, write_openvino

SETTINGS = Preprocessing(mean=(10.0, 20.0, 30.0), std=(2.0, 4.0, 8.0), swap=True, divisor=32)


class Toy(nn.Module):
    """Two outputs, one of them a map."""

    output_names = ('logits', 'feature_map_0')

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = self.conv(image)
        return x, x.mean(dim=(2, 3))


def metadata_of(spec: Input, **more: Any) -> dict[str, Any]:
    shape = list(spec.shape)
    return dict(task='toy', input_shape=shape, smallest=32, preprocessing=spec.is_bytes, raw=False, **more)


def written(path: Path, spec: Input, module: nn.Module) -> Path:
    """Write a module to a file of either format."""
    file = path.with_suffix('.onnx')
    write_onnx(module, spec, file, metadata_of(spec, classes=['α', 'b']))
    if path.suffix == '.xml':
        write_openvino(file, path, metadata_of(spec, classes=['α', 'b']))
    return path


@pytest.mark.parametrize('name', ['toy.onnx', 'toy.xml'])
def test_a_file_with_its_preprocessing_takes_any_size(tmp_path: Path, name: str) -> None:
    spec, toy = Input(64, 96, SETTINGS, is_dynamic=True, is_bytes=True), Toy().eval()
    module = WithPreprocessing(toy, SETTINGS)
    file = ExportedFile(written(tmp_path / name, spec, module))
    assert file.output_names == ('logits', 'feature_map_0')
    assert file.metadata['classes'] == ['α', 'b']
    assert file.metadata['input_shape'] == ['batch', 'height', 'width', 3]
    image = torch.randint(256, (2, 75, 107, 3), dtype=torch.uint8)
    normalized = torch.zeros(2, 3, 96, 128)  # BGR becomes RGB
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (SETTINGS.mean, SETTINGS.std))
    normalized[..., :75, :107] = (image.permute(0, 3, 1, 2)[:, [2, 1, 0]].float() - mean) / std
    with torch.no_grad():
        logits, means = toy(normalized)
    found = file(image)
    torch.testing.assert_close(found['logits'], logits[..., :75, :107], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found['feature_map_0'], means, rtol=1e-4, atol=1e-4)


def test_names_of_dimensions_opset_and_size(tmp_path: Path) -> None:
    spec = Input(64, 96, Preprocessing(), is_dynamic=True)
    model = onnx.load(written(tmp_path / 'toy.onnx', spec, Toy().eval()))
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version) for o in model.opset_import if o.domain == ''] == [('', 20)]
    image, logits = model.graph.input[0], model.graph.output[0]
    assert image.name == 'image'
    assert [d.dim_param or d.dim_value for d in image.type.tensor_type.shape.dim] == ['batch', 3, 'height', 'width']
    assert [d.dim_param or d.dim_value for d in logits.type.tensor_type.shape.dim] == ['batch', 4, 'height', 'width']
    assert [path.name for path in tmp_path.iterdir()] == ['toy.onnx']


def test_a_file_of_fixed_size_pads_smaller_images_and_refuses_larger_ones(tmp_path: Path) -> None:
    spec, toy = Input(64, 96, Preprocessing(), is_dynamic=False), Toy().eval()
    network = ExportedNetwork(str(written(tmp_path / 'toy.onnx', spec, toy)))
    image = torch.rand(2, 3, 40, 96)
    padded = torch.cat([image, torch.zeros(2, 3, 24, 96)], dim=2)
    with torch.no_grad():
        logits, means = toy(padded)
        found = network(image)
    torch.testing.assert_close(found[0], logits[..., :40, :], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[1], means, rtol=1e-4, atol=1e-4)
    with pytest.raises(UserError, match='64 x 96 pixels, and there is one of 64 x 97; .*--shape'):
        network(torch.rand(1, 3, 64, 97))


def test_the_check_runs_five_inputs_and_finds_other_weights(tmp_path: Path) -> None:
    spec, toy = Input(64, 96, Preprocessing(), is_dynamic=True), Toy().eval()
    path = written(tmp_path / 'toy.onnx', spec, toy)
    table = check_file(path, toy, spec).splitlines()
    assert table[0] == '| input | logits | feature_map_0 |'
    assert [row.split(' | ')[0] for row in table[2:]] == [
        f'| {size}'
        for size in ('2 x 3 x 64 x 96', '1 x 3 x 32 x 32', '1 x 3 x 80 x 120', '1 x 3 x 96 x 64', '2 x 3 x 51 x 69')
    ]
    assert all(float(cell) < 1e-5 for row in table[2:] for cell in row.strip('| ').split(' | ')[1:])
    with torch.no_grad():
        toy.conv.weight[0, 0, 0, 0] += 0.01
    with pytest.raises(UserError, match='logits deviates by'):
        check_file(path, toy, spec)


def test_a_size_that_becomes_a_constant_is_refused(tmp_path: Path) -> None:
    class Wrong(Toy):
        def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
            return image[..., : int(image.shape[2])], image.mean(dim=(2, 3))

    spec = Input(64, 96, Preprocessing(), is_dynamic=True)
    with pytest.raises(UserError, match='cannot be exported.*--shape H W'):
        write_onnx(Wrong().eval(), spec, tmp_path / 'toy.onnx', {})
    assert list(tmp_path.iterdir()) == []


def test_weights_beyond_one_file_are_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, toy = Input(64, 96, Preprocessing(), is_dynamic=False), Toy().eval()
    toy.conv = nn.Conv2d(3, 400, 3, padding=1)
    save = torch.onnx.ONNXProgram.save
    monkeypatch.setattr(torch.onnx.ONNXProgram, 'save', partialmethod(save, external_data=True))  # as if it were large
    path = written(tmp_path / 'toy.onnx', spec, toy)
    assert sorted(file.name for file in tmp_path.iterdir()) == ['toy.onnx', 'toy.onnx.data']
    assert path.stat().st_size < 20000 < (tmp_path / 'toy.onnx.data').stat().st_size
    check_file(path, toy, spec)


@pytest.mark.parametrize(('name', 'package'), [('x.onnx', 'onnxruntime'), ('x.xml', 'openvino')])
def test_files_that_are_none(tmp_path: Path, name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=f'{name} does not exist'):
        ExportedFile(tmp_path / name)
    (tmp_path / name).write_bytes(b'no model')
    with pytest.raises(UserError, match=f'{name} cannot be read'):
        ExportedFile(tmp_path / name)
    monkeypatch.setattr('deformable_vit.export.running.find_spec', lambda found: None if found == package else found)
    with pytest.raises(UserError, match=rf'{package}: pip install .deformable-vit\['):
        ExportedFile(tmp_path / name)


def test_a_file_of_another_exporter_is_refused(tmp_path: Path) -> None:
    spec = Input(64, 96, Preprocessing(), is_dynamic=False)
    write_onnx(Toy().eval(), spec, tmp_path / 'toy.onnx', {})
    with pytest.raises(UserError, match='no metadata'):
        ExportedFile(tmp_path / 'toy.onnx')


@pytest.mark.parametrize('name', ['toy.onnx', 'toy.xml'])
def test_a_failed_check_leaves_no_file(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And neither does an interrupted one; a file of the same name stays."""
    monkeypatch.setattr(exporting, 'load_model', lambda *_: Toy().eval())
    monkeypatch.setattr(exporting, '_module', lambda *_, **__: Toy().eval())  # with other weights each time
    monkeypatch.setattr(exporting, 'metadata_of', lambda config, model, spec, *_: metadata_of(spec))
    config = exporting.Config(dict(model={}, default_scope='mmpretrain'))
    with pytest.raises(UserError, match='not equal'):
        exporting.export(config, 'c.pth', tmp_path / name, exporting.Options(), 'toy')
    assert list(tmp_path.iterdir()) == []

    def interrupt(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(exporting, 'check_file', interrupt)
    with pytest.raises(KeyboardInterrupt):
        exporting.export(config, 'c.pth', tmp_path / name, exporting.Options(), 'toy')
    assert list(tmp_path.iterdir()) == []
    unchecked = exporting.Options(check=False)
    exporting.export(config, 'c.pth', tmp_path / name, unchecked, 'toy')
    content = (tmp_path / name).read_bytes()
    with pytest.raises(UserError, match='exists already'):
        exporting.export(config, 'c.pth', tmp_path / name, unchecked, 'toy')
    assert (tmp_path / name).read_bytes() == content
    expected = {'toy.onnx': {'toy.onnx'}, 'toy.xml': {'toy.xml', 'toy.bin'}}[name]
    assert {file.name for file in tmp_path.iterdir()} == expected
