from .class_samplers import ClassAwareSampler, ClassBalancedSampler, MixBalancedSampler, SquareRootSampler

__all__ = ['ClassAwareSampler', 'ClassBalancedSampler', 'MixBalancedSampler', 'SquareRootSampler']
