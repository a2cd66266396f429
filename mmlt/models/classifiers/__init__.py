from .cue_classifier import CUEClassifier, ZeroShot

__all__ = ['CUEClassifier', 'ZeroShot']
