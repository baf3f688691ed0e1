# DAT and DAT++ with the authors' ImageNet weights, for detectors and segmentors; each recipe adds its drop_path_rate. The
# files are where a browser has to fetch them (links in configs/dat/README.md): save them under these names, as they are.
dat_channels = {
    'tiny': [96, 192, 384, 768],
    'small': [96, 192, 384, 768],
    'base': [128, 256, 512, 1024],
    'tiny++': [64, 128, 256, 512],
    'small++': [96, 192, 384, 768],
    'base++': [128, 256, 512, 1024],
}
dat = {
    arch: dict(
        _delete_=True,
        type='DAT',
        arch=arch,
        init_cfg=dict(type='Pretrained', checkpoint=f'checkpoints/dat-{arch.replace("++", "-pp")}_in1k.pth'),
    )
    for arch in dat_channels
}
