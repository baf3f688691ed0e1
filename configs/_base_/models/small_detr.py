# A transformer of half the width and depth for mmdet's DETR kind, as a variable: for small pictures, a CPU and training from scratch.
_attention = dict(embed_dims=128, num_heads=4, dropout=0.0)
_layer = dict(
    self_attn_cfg=_attention,
    ffn_cfg=dict(embed_dims=128, feedforward_channels=256, ffn_drop=0.0),
)
small_detr = dict(
    num_queries=30,
    encoder=dict(num_layers=2, layer_cfg=_layer),
    decoder=dict(num_layers=3, layer_cfg=dict(_layer, cross_attn_cfg=_attention)),
    positional_encoding=dict(num_feats=64),
    bbox_head=dict(embed_dims=128, num_classes=5),
    test_cfg=dict(max_per_img=30),
)
