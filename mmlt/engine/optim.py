"""Optimizers: mixed precision where there is no GPU, and rates by parameter."""

from __future__ import annotations

from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS as ROOT_OPTIM_WRAPPERS
from mmengine.registry import OPTIMIZERS
from torch import nn

from mmlt.errors import InputError
from mmlt.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS
from mmlt.utils import unwrap


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Autocast to bfloat16 on any device; bfloat16 needs no loss scaling, which waits for the GPU at every step.

    :class:`mmlt.engine.Runner` uses it for ``precision='auto'`` on GPUs that
    have bfloat16, and for ``--amp`` on a CPU, where MMEngine's AmpOptimWrapper
    asks for a GPU.

    Args:
        **kwargs: See MMEngine's ``OptimWrapper``.
    """

    gradient_norm: torch.Tensor | None = None  # of the last step, on a GPU, where gradients are clipped by it

    @contextmanager
    def optim_context(self, model):
        """Autocast around the forward pass."""
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, torch.bfloat16):
            yield

    def _clip_grad(self) -> None:
        """See MMEngine; a norm on a GPU is left there for :class:`RuntimeInfoHook` to log."""
        params = [p for group in self.optimizer.param_groups for p in group['params'] if p.grad is not None]
        norm = self.clip_func(params, **self.clip_grad_kwargs) if params else None
        if norm is not None and norm.device.type == 'cpu':
            self.message_hub.update_scalar(f'train/{self.grad_name}', float(norm))
        else:
            self.gradient_norm = norm


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class RatesOptimWrapperConstructor:
    """Weight decay for matrices only, and learning rates of their own for named parts.

    The rule of timm and of VL-LTR's published code: vectors and biases (norms,
    class embeddings) do not decay, everything else does, a logit scale of no
    dimension too. MMEngine's default constructor knows ``flat_decay_mult`` as
    well, but its ``custom_keys`` switch that off for what they name, and their
    rates are factors, which change with the base rate. Parameters of equal
    settings make one group (MMEngine's has one for each, which fused
    optimizers are slow with); frozen ones are left out.

    Args:
        optim_wrapper_cfg (dict): MMEngine gives it.
        paramwise_cfg (dict, optional): ``decay_vectors`` (bool): whether
            vectors and biases decay, too. Defaults to False. ``rates``
            (list[dict]): ``dict(names=[...], lr=...)``: the rate of parameters
            whose name contains one of the names. Defaults to [].

    Raises:
        InputError: Another key; a name that no parameter has.

    Examples:
        >>> import torch, mmlt
        >>> from mmengine.optim import build_optim_wrapper
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
        >>> wrapper = build_optim_wrapper(model, dict(
        ...     constructor='mmlt.RatesOptimWrapperConstructor',
        ...     optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
        ...     paramwise_cfg=dict(rates=[dict(names=['1.'], lr=1e-6)])))
        >>> [(g['lr'], g['weight_decay'], len(g['params'])) for g in wrapper.optimizer.param_groups]
        [(0.001, 0.05, 1), (0.001, 0.0, 1), (1e-06, 0.05, 1), (1e-06, 0.0, 1)]
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None):
        self.optim_wrapper_cfg = dict(optim_wrapper_cfg)
        self.optimizer_cfg = dict(self.optim_wrapper_cfg.pop('optimizer'))
        paramwise_cfg = dict(paramwise_cfg or {})
        self.decay_vectors = paramwise_cfg.pop('decay_vectors', False)
        self.rates = list(paramwise_cfg.pop('rates', None) or [])
        if paramwise_cfg:
            raise InputError(
                f'RatesOptimWrapperConstructor does not know paramwise_cfg.{next(iter(paramwise_cfg))}: give '
                "decay_vectors or rates, or take MMEngine's own, "
                'optim_wrapper.constructor=DefaultOptimWrapperConstructor.'
            )
        for rate in self.rates:
            if set(rate) != {'names', 'lr'}:
                raise InputError(f'optim_wrapper.paramwise_cfg.rates: {rate} is not like dict(names=[...], lr=1e-6).')

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Group the parameters, build the optimizer and its wrapper.

        Args:
            model (nn.Module): Wrapped or not.

        Returns:
            OptimWrapper: As the config asks for.
        """
        groups: dict[tuple, dict] = {}
        for name, parameter in (named := dict(unwrap(model).named_parameters())).items():
            if not parameter.requires_grad:
                continue
            settings = self._settings(name, parameter)
            groups.setdefault(tuple(settings.items()), dict(params=[], **settings))['params'].append(parameter)
        for key in (key for rate in self.rates for key in rate['names']):
            if not any(key in name for name in named):
                raise InputError(
                    f"optim_wrapper.paramwise_cfg.rates names '{key}', but no parameter of the model has that in its "
                    "name: correct it, or give rates=[] (--cfg-options optim_wrapper.paramwise_cfg.rates='[]')."
                )
        optimizer = OPTIMIZERS.build(dict(self.optimizer_cfg, params=list(groups.values())))
        return ROOT_OPTIM_WRAPPERS.build(
            dict(dict(type='OptimWrapper'), **self.optim_wrapper_cfg), default_args=dict(optimizer=optimizer)
        )

    def _settings(self, name: str, parameter: nn.Parameter) -> dict:
        """Learning rate and weight decay of one parameter."""
        own = next((r['lr'] for r in self.rates if any(key in name for key in r['names'])), None)
        settings = dict(lr=self.optimizer_cfg['lr'] if own is None else own)
        if 'weight_decay' in self.optimizer_cfg:
            vector = parameter.ndim == 1 or name.endswith('.bias')
            decays = self.decay_vectors or not vector
            settings['weight_decay'] = self.optimizer_cfg['weight_decay'] if decays else 0.0
        return settings
