# What Mask R-CNN and Cascade Mask R-CNN share for small pictures, a CPU and training from scratch, as variables.
small_norm = dict(type='BN')
# One sample a bin: RoIs of small pictures are small, and RoIAlign is what a step on a CPU spends most of its time on.
small_extractor = dict(roi_layer=dict(sampling_ratio=1), out_channels=64, finest_scale=28)
# Anchors of 16 pixels and up: half of the host's, for pictures that are much smaller than COCO's.
small_rpn_head = dict(in_channels=64, feat_channels=64, anchor_generator=dict(scales=[4]))
# Normalised convolutions before the linear layer: from scratch they learn the classes twice as fast as two linear layers do.
small_bbox_head = dict(
    type='ConvFCBBoxHead',
    num_shared_convs=2,
    num_shared_fcs=1,
    in_channels=64,
    conv_out_channels=64,
    fc_out_channels=256,
    num_classes=5,
    norm_cfg=small_norm,
)
small_mask_head = dict(num_convs=2, in_channels=64, conv_out_channels=64, num_classes=5, norm_cfg=small_norm)
small_sampler = dict(num=32, pos_fraction=0.5)
