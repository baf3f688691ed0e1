"""docs/recipes.md and docs/own_configs.md: what the pages show runs as it stands there."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from few_images import shapes  # noqa: F401  fixture
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS, MODELS, TRANSFORMS, init_default_scope
from mmseg.structures import SegDataSample
from PIL import Image
from running import ENVIRONMENT, ROOT
from snippets import blocks, run, snippet, write_checkpoint
from torch import nn

from deformable_vit import DAT, DPT, PVT, PVTv2
from deformable_vit.apis.config import load_config
from deformable_vit.engine import ValidationLossHook
from deformable_vit.ops import use_backend

CLASSES = ('disc', 'triangle', 'square', 'star', 'ring')


def shell(text: str, directory: Path) -> str:
    """Run lines of a page, and return what they print."""
    environment = ENVIRONMENT | {'PATH': f'{Path(sys.executable).parent}:{ENVIRONMENT["PATH"]}'}
    done = subprocess.run(
        ['bash', '-euo', 'pipefail', '-c', text],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout + done.stderr


@pytest.fixture
def checkout(tmp_path: Path, shapes: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    """A directory with configs, tools and data where the pages expect them."""
    monkeypatch.chdir(tmp_path)
    for name in ('configs', 'tools'):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / 'shapes').symlink_to(shapes)
    return tmp_path


@pytest.mark.slow
def test_analysis_of_a_detector(checkout: Path) -> None:
    (text,) = (block for block in blocks('docs/recipes.md', 'bash') if 'mmdet' in block)
    write_checkpoint(
        'configs/demo/mask-rcnn_dat_shapes.py',
        checkout / 'work_dirs/demo/mask-rcnn_dat_shapes/epoch_5.pth',
        dict(dataset_meta=dict(classes=CLASSES, palette=[(0, 0, 0)] * len(CLASSES))),
    )
    shell(text.replace('--topk 5', '--topk 1'), checkout)
    assert (checkout / 'confusion' / 'confusion_matrix.png').is_file()
    assert list((checkout / 'errors').rglob('*.png'))
    assert len(list((checkout / 'seen').rglob('*.jpg'))) == 8


def test_grad_cam(checkout: Path) -> None:
    names = run(snippet('docs/recipes.md', 'retain_grad'))
    assert names['cam'].shape == (96, 128)
    # Moving along the map raises the score of the class: it is its linear approximation.
    feature_map, gradient = names['feature_map'].detach(), names['feature_map'].grad
    assert gradient.any()
    model, label = names['model'], names['scores'][0].argmax()
    moved = model.head(model.neck((feature_map + 0.1 * gradient / gradient.norm(),)))[0, label]
    assert moved > names['scores'][0, label]


def test_lora_trains_beside_every_projection_and_keeps_the_function() -> None:
    text = snippet('docs/recipes.md', 'LoRAModel').replace("arch='tiny'", "arch='test'")
    backbone = run(text)['backbone']
    linear = {
        name.removesuffix('.original_layer')
        for name, module in backbone.module.named_modules()
        if name.endswith('.original_layer')
    }
    wanted = {n for n, m in DAT('test').named_modules() if isinstance(m, nn.Linear) and 'offset' not in n}
    assert linear == wanted
    for name, parameter in backbone.named_parameters():
        assert parameter.requires_grad == ('.lora_' in name)
    plain = DAT('test').eval()
    tensors = [*backbone.module.named_parameters(), *backbone.module.named_buffers()]
    plain.load_state_dict({n.replace('.original_layer', ''): p for n, p in tensors if '.lora_' not in n}, strict=False)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for found, expected in zip(backbone.eval()(images), plain(images), strict=True):
            torch.testing.assert_close(found, expected)
    sum(feature_map.square().mean() for feature_map in backbone.train()(images)).backward()
    assert [name for name, p in backbone.named_parameters() if p.requires_grad and p.grad is None] == []


def test_the_learning_rate_falls_from_the_head_to_the_first_layer(tmp_path: Path) -> None:
    (tmp_path / 'mine.py').write_text(snippet('docs/recipes.md', 'layer_decay_rate'))
    config = load_config(str(tmp_path / 'mine.py'), {})
    config.model.backbone.update(arch='test', init_cfg=None)
    config.model.neck.in_channels = list(DAT('test', out_indices=(1, 2, 3)).out_channels)
    init_default_scope(config.default_scope)
    model = MODELS.build(config.model)
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    rates = {names[id(group['params'][0])]: group['lr'] for group in wrapper.optimizer.param_groups}
    base, blocks_of_stages = config.optim_wrapper.optimizer.lr, sum(DAT.arch_zoo['test']['depths'])
    assert rates['bbox_head.retina_cls.weight'] == base
    last = max(name for name in rates if name.startswith('backbone.stages.3.blocks'))
    assert rates[last] == pytest.approx(0.8 * base)
    first = min(name for name in rates if name.startswith('backbone.stages.0.patch_embed'))
    assert rates[first] == pytest.approx(0.8 ** (blocks_of_stages + 1) * base)


@pytest.mark.parametrize('kind', [DAT, DPT, PVT, PVTv2])
def test_gradients_of_gradients(kind: type) -> None:
    arch = 'b0' if kind is PVTv2 else 'test'
    text = snippet('docs/recipes.md', 'create_graph').replace('import DAT', f'import {kind.__name__}')
    names = run(text.replace("DAT('test')", f'{kind.__name__}({arch!r})'))
    gradients = [parameter.grad for parameter in names['backbone'].parameters() if parameter.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_penalty_of_the_gradient_has_the_right_gradient() -> None:
    """Compared with finite differences, in float64."""
    torch.manual_seed(0)
    backbone = DAT('test').double().eval()
    images = torch.rand(1, 3, 64, 64, dtype=torch.float64, requires_grad=True)
    weight = backbone.stages[2].blocks[1].attn.k.weight

    def penalty() -> torch.Tensor:
        with use_backend('reference'):
            loss = backbone(images)[-1].square().mean()
            return torch.autograd.grad(loss, images, create_graph=True)[0].square().sum()

    (gradient,) = torch.autograd.grad(penalty(), weight)
    direction, step = gradient / gradient.norm(), 1e-5
    with torch.no_grad():
        weight += step * direction
    above = penalty().item()
    with torch.no_grad():
        weight -= 2 * step * direction
    assert (above - penalty().item()) / (2 * step) == pytest.approx(gradient.norm().item(), rel=1e-4)


def test_size_of_your_own(tmp_path: Path) -> None:
    (tmp_path / 'mine.py').write_text(snippet('docs/own_configs.md', '_delete_=True, like='))
    config = load_config(str(tmp_path / 'mine.py'), {})
    backbone = MODELS.build(config.model.backbone)
    assert backbone.arch['blocks'] == ('LD',) * 4
    assert backbone.arch['depths'] == DAT.arch_zoo['tiny']['depths']


@pytest.mark.slow
def test_backbone_of_your_own(checkout: Path) -> None:
    """The module, the config and the command of the page, on a few images."""
    (checkout / 'my_backbone.py').write_text(snippet('docs/own_configs.md', 'class MyDAT'))
    config = snippet('docs/own_configs.md', "'my_backbone'")
    config += 'train_cfg = dict(max_epochs=1)\ntrain_dataloader = dict(num_workers=0, persistent_workers=False)\n'
    (checkout / 'my_config.py').write_text(config)
    (command,) = blocks('docs/own_configs.md', 'bash')
    shell(command.replace('PYTHONPATH=.', 'PYTHONPATH=.:$PYTHONPATH'), checkout)
    weights = torch.load(checkout / 'work_dirs/my_config/epoch_1.pth', weights_only=False)['state_dict']
    assert {int(name.split('.')[4]) for name in weights if name.startswith('backbone.stages.2.blocks')} == set(range(6))


def test_images_of_other_channels(tmp_path: Path) -> None:
    base = ROOT / 'configs' / 'demo' / 'fpn_pvt_shapes.py'
    text = snippet('docs/own_configs.md', "color_type='unchanged'")
    (tmp_path / 'own.py').write_text(f'_base_ = {str(base)!r}\n{text}')
    config = load_config(str(tmp_path / 'own.py'), {})
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 4), np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'rgba.png')
    init_default_scope('mmseg')
    image = TRANSFORMS.build(config.load)(dict(img_path=str(tmp_path / 'rgba.png')))['img']
    assert (image[..., 3] == pixels[..., 3]).all()
    model = MODELS.build(config.model).eval()
    batch = dict(inputs=[torch.from_numpy(image).permute(2, 0, 1)], data_samples=[SegDataSample()])
    inputs = model.data_preprocessor(batch)['inputs']
    assert torch.equal(inputs[0, 3], (torch.from_numpy(pixels[..., 3]).float() - 110) / 50)
    assert model.backbone(inputs)[0].shape[-2:] == (16, 16)


def test_validation_loss(tmp_path: Path) -> None:
    base = ROOT / 'configs' / 'demo' / 'retinanet_pvtv2_shapes.py'
    text = snippet('docs/own_configs.md', 'ValidationLossHook')
    (tmp_path / 'own.py').write_text(f'_base_ = {str(base)!r}\n{text}')
    config = load_config(str(tmp_path / 'own.py'), {})
    (hook,) = config.custom_hooks
    assert isinstance(HOOKS.build(hook), ValidationLossHook)
    saving = HOOKS.build(config.default_hooks.checkpoint)
    assert saving.key_indicators == ['val/loss']
    assert saving.rules == ['less']
