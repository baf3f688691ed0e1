# DPT with the authors' ImageNet weights, for detectors and segmentors. The files are where a browser has to fetch them
# (links in configs/dpt/README.md): save them under these names, as they are.
dpt_channels = [64, 128, 320, 512]
dpt = {
    arch: dict(
        _delete_=True,
        type='DPT',
        arch=arch,
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint=f'checkpoints/dpt-{arch}_in1k.pth'),
    )
    for arch in ('tiny', 'small', 'medium')
}
