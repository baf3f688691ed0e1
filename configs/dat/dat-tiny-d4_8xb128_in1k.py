# The paper's ablation of the stages with deformable attention: stage 4 only, where dat-tiny has it in 3 and 4.
_base_ = './dat-tiny_8xb128_in1k.py'

model = dict(backbone=dict(arch=dict(_delete_=True, like='tiny', blocks=('LS', 'LS', 'LS', 'LD'))))
