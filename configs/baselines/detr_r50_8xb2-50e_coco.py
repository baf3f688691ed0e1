_base_ = '../_base_/detr_8xb2-50e_coco.py'
