# The paper's ablation of the stages with deformable attention: stages 2 to 4, where dat-tiny has it in 3 and 4.
_base_ = './dat-tiny_8xb128_in1k.py'

model = dict(backbone=dict(arch=dict(_delete_=True, like='tiny', blocks=('LS', 'LD', 'LD', 'LD'))))
