from .balanced_linear_adapter import BalancedLinearAdapter, balanced_linear_adapter

__all__ = ['BalancedLinearAdapter', 'balanced_linear_adapter']
