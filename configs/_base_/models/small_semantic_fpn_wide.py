# The small Semantic FPN with 128 channels in neck and head. PVT, DAT and DAT++ have little convolution to see outlines by:
# with 64 channels they take triangles for squares (PVT 60 mIoU), PVT v2 and DPT do not.
_base_ = './small_semantic_fpn.py'

model = dict(
    neck=dict(out_channels=128),
    decode_head=dict(in_channels=[128, 128, 128, 128], channels=128),
)
