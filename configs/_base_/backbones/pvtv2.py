# PVT v2 with the authors' ImageNet weights, for detectors and segmentors.
pvtv2_channels = [64, 128, 320, 512]  # B0: half of them
pvtv2 = {
    arch: dict(
        _delete_=True,
        type='PVTv2',
        arch=arch,
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained',
            checkpoint=f'https://github.com/whai362/PVT/releases/download/v2/pvt_v2_{arch.replace("-", "_")}.pth',
        ),
    )
    for arch in ('b0', 'b1', 'b2', 'b2-li', 'b3', 'b4', 'b5')
}
