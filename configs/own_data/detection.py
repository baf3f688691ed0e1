# A detector for your own pictures and boxes. Copy this file and set three variables: which detector, where the data is, and the
# names of its classes. Any detector of configs/ will do as _base_ (with masks: the files need "segmentation").
_base_ = '../dat/mask-rcnn_dat-t_fpn_1x_coco.py'
# Holds train/ and val/ with the pictures, and train.json and val.json in COCO's format.
data_root = 'data/own'
# Some or all of the names in the files' "categories", in the order that they have there.
classes = ('cat', 'dog')

_own = dict(num_classes=len(classes))
if 'roi_head' not in _base_.model:
    model = dict(bbox_head=_own)
elif isinstance(_base_.model.roi_head.bbox_head, dict):
    model = dict(roi_head=dict(bbox_head=_own, mask_head=_own))
else:  # a cascade
    model = dict(roi_head=dict(bbox_head=[dict(h, **_own) for h in _base_.model.roi_head.bbox_head], mask_head=_own))

_data = dict(data_root=data_root, metainfo=dict(classes=classes))
train_dataloader = dict(dataset=dict(_data, ann_file='train.json', data_prefix=dict(img='train/')))
val_dataloader = dict(dataset=dict(_data, ann_file='val.json', data_prefix=dict(img='val/')))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=f'{data_root}/val.json')
test_evaluator = val_evaluator
