# Shared by all configs: the package, the runner, hooks and logging.
custom_imports = dict(imports=['mmlt'], allow_failed_imports=False)
default_scope = 'mmpretrain'
runner_type = 'mmlt.Runner'

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=20),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=2),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='mmlt.PredictionPicturesHook', enable=False),
    class_info=dict(type='mmlt.ClassInfoHook'),
    epoch=dict(type='mmlt.EpochHook'),
    finite_loss=dict(type='mmlt.FiniteLossHook'),
    progress=dict(type='mmlt.ProgressBarHook'),
    shot_report=dict(type='mmlt.ShotReportHook'),
)

env_cfg = dict(
    cudnn_benchmark=True, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0), dist_cfg=dict(backend='nccl')
)

vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='UniversalVisualizer', vis_backends=vis_backends)
# bfloat16 (or half precision) on a GPU that has it, single precision on a CPU
precision = 'auto'
log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=0, deterministic=False)
