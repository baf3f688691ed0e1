# The paper's ablation of the stages with deformable attention: all stages, where dat-tiny has it in 3 and 4.
_base_ = './dat-tiny_8xb128_in1k.py'

model = dict(backbone=dict(arch=dict(_delete_=True, like='tiny', blocks=('LD', 'LD', 'LD', 'LD'))))
