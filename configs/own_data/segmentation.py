# A segmentor for your own pictures and masks. Copy this file and set three variables: which segmentor, where the data is, and
# the names of its classes. Any segmentor of configs/ will do as _base_.
_base_ = '../dat/fpn_dat-t_8xb4-40k_ade20k-512x512.py'
# Holds images/{training,validation}/*.jpg and annotations/{training,validation}/*.png of the same names, where a pixel is the
# number of its class, from 0, or 255 to leave it out.
data_root = 'data/own'
classes = ('background', 'cat', 'dog')

_own = dict(num_classes=len(classes))
model = dict(decode_head=_own, auxiliary_head=_own) if 'auxiliary_head' in _base_.model else dict(decode_head=_own)

train_pipeline = _base_.train_pipeline
test_pipeline = _base_.test_pipeline
for _step in train_pipeline + test_pipeline:
    if _step['type'] == 'LoadAnnotations':
        _step['reduce_zero_label'] = False  # ADE20K's 0 means unlabelled; here it is the first class
_data = dict(type='BaseSegDataset', data_root=data_root, metainfo=dict(classes=classes), reduce_zero_label=False)
train_dataloader = dict(dataset=dict(_data, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(_data, pipeline=test_pipeline))
test_dataloader = val_dataloader
