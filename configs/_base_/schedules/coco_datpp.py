# DAT++ on COCO, as variables. The authors' 32 GPUs with 2 pictures each make a batch of 64, for which they multiplied the learning
# rates of a batch of 16 by 4. The warm-up of 500 steps
# is for that batch: a quarter of an epoch. They trained in half precision: add --amp.
datpp_batch = dict(base_batch_size=64)
datpp_1x = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=12, milestones=[8, 11], gamma=0.1),
]
datpp_3x = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=36, milestones=[27, 33], gamma=0.1),
]
