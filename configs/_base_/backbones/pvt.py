# PVT with the authors' ImageNet weights, for detectors and segmentors.
pvt_channels = [64, 128, 320, 512]
pvt = {
    arch: dict(
        _delete_=True,
        type='PVT',
        arch=arch,
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained', checkpoint=f'https://github.com/whai362/PVT/releases/download/v2/pvt_{arch}.pth'
        ),
    )
    for arch in ('tiny', 'small', 'medium', 'large')
}
