"""The authors' files load as they are; what does not fit is named; nothing in a file is ever run."""

import importlib
import logging
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from authors_names import authors_names
from golden import author_parameters, author_state_dict
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import CheckpointLoader, load_checkpoint
from running import ROOT

from deformable_vit.checkpoints import CheckpointError, compare, read_checkpoint, read_state_dict, to_classifier
from deformable_vit.engine import check_checkpoint


def save(path: Path, content: object) -> str:
    torch.save(content, path)
    return str(path)


def pretrained(checkpoint: str, **kwargs) -> torch.nn.Module:
    kwargs = dict(type='PVT', arch='tiny') | kwargs
    backbone = MODELS.build(dict(kwargs, init_cfg=dict(type='Pretrained', checkpoint=checkpoint)))
    backbone.init_weights()
    return backbone


@pytest.mark.parametrize('wrap', [lambda x: x, lambda x: {'model': x, 'optimizer': {}, 'epoch': 3}])
def test_authors_classifier_into_backbone(tmp_path: Path, wrap) -> None:
    theirs = author_state_dict('pvt-tiny_in1k')
    backbone = pretrained(save(tmp_path / 'pvt_tiny.pth', wrap(theirs)))
    ours = backbone.state_dict()
    assert torch.equal(ours['stages.0.patch_embed.proj.weight'], theirs['patch_embed1.proj.weight'])
    assert torch.equal(ours['stages.3.blocks.1.mlp.fc2.bias'], theirs['block4.1.mlp.fc2.bias'])
    assert torch.equal(ours['stages.3.pos_embed'], theirs['pos_embed4'])
    # Everything else too: whatever the backbone has comes from the file.
    left = {k for k in theirs if not k.startswith(('head.', 'norm.', 'cls_token'))}
    assert len(ours) == len(left)
    assert sum(v.double().sum() for v in ours.values()).item() == pytest.approx(
        sum(theirs[k].double().sum().item() for k in left)
    )


def test_pvtv2_and_authors_detector(tmp_path: Path) -> None:
    theirs = author_state_dict('pvtv2-b0_backbone')
    detector = {f'backbone.{k}': v for k, v in theirs.items()} | {'bbox_head.retina_cls.weight': torch.zeros(3)}
    path = save(tmp_path / 'retinanet_pvt_v2_b0.pth', {'meta': {'epoch': 12}, 'state_dict': detector})
    backbone = pretrained(path, type='PVTv2', arch='b0')
    ours = backbone.state_dict()
    assert torch.equal(ours['stages.1.blocks.0.mlp.dwconv.weight'], theirs['block2.0.mlp.dwconv.dwconv.weight'])
    assert torch.equal(ours['stages.3.norm.bias'], theirs['norm4.bias'])

    # The same file into a whole detector, through torch's and mmengine's own way of loading.
    whole = torch.nn.Module()
    whole.backbone = MODELS.build(dict(type='PVTv2', arch='b0'))
    whole.load_state_dict({k: v for k, v in detector.items() if k.startswith('backbone.')})
    for key, value in whole.backbone.state_dict().items():
        assert torch.equal(value, ours[key]), key


def test_dat_and_its_authors_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A classifier and a whole detector; 1 x 1 convolutions of theirs are linear layers here."""
    said = []
    monkeypatch.setattr('deformable_vit.checkpoints.backbone.print_log', lambda *args: said.append(args))
    theirs = author_state_dict('datpp-tiny_backbone')
    detector = {f'backbone.{k}': v for k, v in theirs.items()} | {'bbox_head.retina_cls.bias': torch.zeros(3)}
    path = save(tmp_path / 'rtn_dat_t.pth', {'meta': {}, 'state_dict': detector, 'optimizer': {}})
    ours = pretrained(path, type='DAT', arch='tiny++').state_dict()
    assert said[-1][0].endswith('593 parameters match, all that there are')
    assert torch.equal(ours['stages.0.patch_embed.second.norm.bias'], theirs['patch_proj.4.norm.bias'])
    assert torch.equal(ours['stages.2.blocks.7.norm2.weight'], theirs['stages.2.layer_norms.15.norm.weight'])
    attn, name = 'stages.3.blocks.1.attn', 'stages.3.attns.1'
    assert torch.equal(ours[f'{attn}.k.weight'], theirs[f'{name}.proj_k.weight'][:, :, 0, 0])
    assert torch.equal(ours[f'{attn}.offset.proj.weight'], theirs[f'{name}.conv_offset.3.weight'][:, :, 0, 0])
    assert torch.equal(ours[f'{attn}.offset.dwconv.weight'], theirs[f'{name}.conv_offset.0.weight'])
    assert torch.equal(ours['norms.1.weight'], theirs['norms.1.norm.weight'])

    # A classifier has the norm of the last stage alone, and tables of its windows that are derived.
    theirs = author_state_dict('dat-tiny_in1k') | {'stages.0.attns.1.attn_mask': torch.zeros(64, 49, 49)}
    ours = pretrained(save(tmp_path / 'dat_t.pth', {'model': theirs}), type='DAT', arch='tiny').state_dict()
    assert '207 parameters match, 6 missing (norms.0.weight, norms.0.bias, norms.1.weight and 3 more)' in said[-1][0]
    assert '  missing: norms.2.bias' in said[-1][0]
    assert torch.equal(ours['norms.3.weight'], theirs['cls_norm.norm.weight'])
    assert torch.equal(ours['stages.1.blocks.0.mlp.fc1.weight'], theirs['stages.1.mlps.0.chunk.linear1.weight'])
    assert torch.equal(ours['stages.1.patch_embed.proj.weight'], theirs['down_projs.0.0.weight'])


def test_dpt_and_its_authors_files(tmp_path: Path) -> None:
    theirs = author_state_dict('dpt-tiny_in1k') | {'patch_embed2.box_coder.anchor': torch.zeros(784, 2)}
    ours = pretrained(save(tmp_path / 'dpt_tiny.pth', theirs), type='DPT').state_dict()
    patch = 'stages.1.patch_embed'
    assert torch.equal(ours[f'{patch}.wh_bias'], theirs['patch_embed2.box_coder.wh_bias'])
    assert torch.equal(ours[f'{patch}.patch_embed.proj.weight'], theirs['patch_embed2.patch_embed.proj.weight'])
    assert torch.equal(ours[f'{patch}.output_proj.weight'], theirs['patch_embed2.output_proj.weight'])


@pytest.mark.parametrize('head', ['retinanet', 'mask-rcnn', 'fpn'])
@pytest.mark.parametrize('family', ['pvt', 'pvtv2', 'dpt', 'dat', 'datpp'])
def test_whole_models_of_the_authors(tmp_path: Path, family: str, head: str) -> None:
    """mmdet 2.x and mmseg 0.x named heads as today; a model with the authors' backbone inside is one to one."""
    config = Config.fromfile(ROOT / 'configs' / 'demo' / f'{head}_{family}_shapes.py')
    init_default_scope(config.default_scope)
    registry = importlib.import_module(f'{config.default_scope}.registry').MODELS
    model = registry.build(config.model)
    theirs = authors_names(model.state_dict(), family)
    path = save(tmp_path / 'theirs.pth', {'meta': {'epoch': 12}, 'state_dict': theirs})
    assert any(k.startswith(('backbone.patch_embed1.', 'backbone.patch_proj.')) for k in theirs)
    assert check_checkpoint(model, path, strict=True).endswith('all that there are')

    again = registry.build(config.model)
    load_checkpoint(again, path, strict=True)
    for key, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key


@pytest.mark.parametrize('flat', [False, True])
def test_tables_of_position_biases_are_resized(tmp_path: Path, flat: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """DAT-B from windows of 7 and pictures of 224 to 12 and 384, as the authors fine-tune it: bicubic."""
    said = []
    monkeypatch.setattr('deformable_vit.checkpoints.adapt.print_log', lambda *args: said.append(args[0]))
    theirs = author_state_dict('dat-tiny_in1k')
    theirs_name = f'stages.2.attns.{"0.relative_position_bias_table" if flat else "1.rpe_table"}'
    old, new = (13, 23) if flat else (27, 47)
    square = theirs[theirs_name].T.reshape(12, old, old) if flat else theirs[theirs_name]
    path = save(tmp_path / 'dat_t.pth', theirs)
    ours = pretrained(path, type='DAT', arch='tiny', pretrain_img_size=384, window_size=12).state_dict()
    name = f'stages.2.blocks.{"0.attn.relative_position_bias_table" if flat else "1.attn.rpe_table"}'
    assert f'{name}: relative position bias resized from {old} x {old} to {new} x {new}' in said
    table = ours[name].T.reshape(12, new, new) if flat else ours[name]
    expected = torch.nn.functional.interpolate(square[:, None], size=(new, new), mode='bicubic')[:, 0]
    torch.testing.assert_close(table, expected)


def test_table_of_another_model_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = []
    monkeypatch.setattr('deformable_vit.checkpoints.backbone.print_log', lambda *args: said.append(args[0]))
    theirs = author_state_dict('dat-tiny_in1k')
    theirs['stages.2.attns.1.rpe_table'] = torch.zeros(5, 27, 27)
    pretrained(save(tmp_path / 'dat_t.pth', theirs), type='DAT', arch='tiny', out_indices=(3,))
    assert '1 mismatched (stages.2.blocks.1.attn.rpe_table: (5, 27, 27) in the file, (12, 27, 27) in' in said[-1]


def test_our_own_names_load_too(tmp_path: Path) -> None:
    first = MODELS.build(dict(type='PVTv2', arch='b0'))
    second = pretrained(save(tmp_path / 'ours.pth', first.state_dict()), type='PVTv2', arch='b0')
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key]), key


def test_position_embeddings_are_resized(tmp_path: Path) -> None:
    theirs = author_state_dict('pvt-tiny_in1k')
    # 384 / 4 = 96, and 12 x 12 + 1 for the class token in the last stage.
    plane = torch.stack(torch.meshgrid(torch.arange(56.0), torch.arange(56.0), indexing='ij')).flatten(1)
    theirs['pos_embed1'][0, :, :2] = plane.T
    path = save(tmp_path / 'pvt_tiny.pth', theirs)
    backbone = pretrained(path, pretrain_img_size=384)
    first, last = backbone.stages[0].pos_embed, backbone.stages[3].pos_embed
    assert first.shape == (1, 96 * 96, 64)
    assert last.shape == (1, 1 + 12 * 12, 512)
    # A plane stays a plane, with 56 / 96 of the slope.
    y = first[0, :, 0].reshape(96, 96)[4:-4]
    torch.testing.assert_close(y.diff(dim=0), torch.full_like(y.diff(dim=0), 56 / 96), atol=1e-4, rtol=0)
    assert torch.equal(last[:, 0], theirs['pos_embed4'][:, 0])
    assert last[:, 1:].mean().item() == pytest.approx(theirs['pos_embed4'][:, 1:].mean().item(), abs=0.01)


def test_what_does_not_fit_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = []
    monkeypatch.setattr('deformable_vit.checkpoints.backbone.print_log', lambda *args: said.append(args))
    theirs = author_state_dict('pvt-tiny_in1k')
    theirs['block1.0.attn.q.weight'] = torch.zeros(3, 3)
    theirs['surplus'] = torch.zeros(1)
    del theirs['block2.1.norm1.bias']
    backbone = pretrained(save(tmp_path / 'pvt_tiny.pth', theirs))
    ((text, _, level),) = said
    assert level == logging.WARNING
    assert '1 missing (stages.1.blocks.1.norm1.bias)' in text
    assert '1 unexpected (surplus)' in text
    assert '1 mismatched (stages.0.blocks.0.attn.q.weight: (3, 3) in the file, (64, 64) in the model)' in text
    assert torch.equal(backbone.state_dict()['stages.0.blocks.0.attn.q.bias'], theirs['block1.0.attn.q.bias'])


def test_difference_in_words() -> None:
    model = {k: torch.zeros(2) for k in 'abcdefg'}
    difference = compare({'a': torch.zeros(2), 'b': torch.zeros(3), 'z': torch.zeros(1)}, model)
    assert str(difference) == (
        '1 parameters match, 5 missing (c, d, e and 2 more), 1 unexpected (z), '
        '1 mismatched (b: (3,) in the file, (2,) in the model)'
    )
    assert difference.report().splitlines() == [
        str(difference),
        *(f'  missing: {name}' for name in 'cdefg'),
        '  unexpected: z',
        '  mismatched: b: (3,) in the file, (2,) in the model',
    ]
    assert not compare(model, model)
    assert str(compare(model, model)) == compare(model, model).report() == '7 parameters match, all that there are'


def test_a_file_that_matches_nothing_is_an_error(tmp_path: Path) -> None:
    path = save(tmp_path / 'resnet.pth', {'layer1.0.conv1.weight': torch.zeros(1), 'fc.bias': torch.zeros(1)})
    with pytest.raises(
        CheckpointError, match=r'nothing in .*resnet.pth fits this PVT: 0 parameters match.*layer1.0.conv1'
    ):
        pretrained(path)


@pytest.mark.parametrize('model', [name for name in author_parameters() if name.endswith('_in1k')])
def test_classifier_names(model: str) -> None:
    theirs = author_parameters()[model]['parameters']
    ours = to_classifier({k: torch.empty(shape, device='meta') for k, shape in theirs.items()})
    assert len(ours) == len(theirs)
    assert all(k.startswith(('backbone.stages.', 'backbone.norms.3.', 'head.fc.')) for k in ours)


def test_classifier_of_others_is_refused() -> None:
    with pytest.raises(CheckpointError, match='not a classifier of the PVT, DPT or DAT authors.*conv1.weight'):
        to_classifier({'conv1.weight': torch.zeros(1)})


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize('unsafe_by_default', [False, True])
def test_unsafe_checkpoint_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unsafe_by_default: bool) -> None:
    if unsafe_by_default:  # what people set to get old code to work
        monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    victim = tmp_path / 'victim'
    path = save(tmp_path / 'evil.pth', {'state_dict': {'x': torch.zeros(1)}, 'evil': Evil(victim)})
    # The trap works where loading is unsafe; the way that mmengine itself loads is covered as well.
    with pytest.raises(CheckpointError, match=r'evil.pth is refused: it needs .*that could run code'):
        read_checkpoint(path)
    with pytest.raises(CheckpointError, match='is refused'):
        CheckpointLoader.load_checkpoint(path)
    assert not victim.exists()
    torch.load(path, weights_only=False)
    assert victim.exists()


def test_downloads_are_read_safely_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def fake(url: str, model_dir: str | None, map_location: str, **kwargs: object) -> dict:
        asked.update(kwargs, url=url)
        return {'state_dict': {'x': torch.ones(2)}}

    monkeypatch.setattr('deformable_vit.checkpoints.files.load_state_dict_from_url', fake)
    assert torch.equal(read_state_dict('https://example.org/x.pth')['x'], torch.ones(2))
    assert asked == {'url': 'https://example.org/x.pth', 'weights_only': True}


def test_broken_files(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match='missing.pth does not exist'):
        read_checkpoint(tmp_path / 'missing.pth')
    with pytest.raises(CheckpointError, match='is a folder'):
        read_checkpoint(tmp_path)
    (tmp_path / 'text.pth').write_text('<html>not found</html>')
    with pytest.raises(CheckpointError, match='text.pth is damaged or not a checkpoint'):
        read_checkpoint(tmp_path / 'text.pth')
    whole = Path(save(tmp_path / 'whole.pth', {'x': torch.zeros(1000)})).read_bytes()
    (tmp_path / 'half.pth').write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match='half.pth is damaged'):
        read_checkpoint(tmp_path / 'half.pth')
    with pytest.raises(CheckpointError, match='holds no state dict'):
        read_state_dict(save(tmp_path / 'numbers.pth', {'epoch': 3}))
    assert zipfile.is_zipfile(tmp_path / 'whole.pth')
    assert pickle.loads(pickle.dumps(CheckpointError('x'))).args == ('x',)


def test_a_program_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    """mmengine evaluates `meta.config` when it resumes; it never gets to see it."""
    path = save(tmp_path / 'x.pth', {'meta': {'config': 'import os', 'epoch': 1}, 'state_dict': {'x': torch.zeros(1)}})
    assert CheckpointLoader.load_checkpoint(path)['meta'] == {'epoch': 1}


def test_mmengine_finds_the_weights_of_the_authors_files(tmp_path: Path) -> None:
    path = save(tmp_path / 'x.pth', {'model': {'weight': torch.ones(1, 2), 'bias': torch.ones(1)}, 'epoch': 3})
    layer = torch.nn.Linear(2, 1)
    load_checkpoint(layer, path)
    assert layer.weight.eq(1).all()


def test_log_histories_load_and_nothing_else_of_getattr(tmp_path: Path) -> None:
    history = HistoryBuffer([1.0, 2.0, 4.0], [1, 1, 1])
    loaded = read_checkpoint(save(tmp_path / 'history.pth', {'loss': history}))['loss']
    assert loaded.mean(2) == 3.0
    assert loaded.data[0].tolist() == [1.0, 2.0, 4.0]

    class Reach:
        def __reduce__(self):
            return (getattr, (HistoryBuffer, '__init__'))

    with pytest.raises(CheckpointError, match='is refused'):
        read_checkpoint(save(tmp_path / 'reach.pth', {'x': Reach()}))
