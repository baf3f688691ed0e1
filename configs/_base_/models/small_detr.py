# A transformer of half the depth and without dropout for mmdet's DETR kind, as a variable: for small pictures, a CPU and training
# from scratch. The width stays: mmdet's two-stage form is written for 256 channels.
_layer = dict(
    self_attn_cfg=dict(dropout=0.0),
    ffn_cfg=dict(feedforward_channels=512, ffn_drop=0.0),
)
small_detr = dict(
    num_queries=30,
    encoder=dict(num_layers=2, layer_cfg=_layer),
    decoder=dict(num_layers=3, layer_cfg=dict(_layer, cross_attn_cfg=dict(dropout=0.0))),
    bbox_head=dict(num_classes=5),
    test_cfg=dict(max_per_img=30),
)
