"""Parts of a model that build together and would be trained to no purpose."""

from __future__ import annotations

from mmpretrain.models.heads import MultiLabelClsHead
from torch import nn

from mmlt.errors import InputError
from mmlt.models.backbones import OpenCLIPVision, TimmViT
from mmlt.models.heads import CosineClsHead, LGRHead, TextClsHead
from mmlt.models.heads.anchor_head import AnchorHead
from mmlt.models.losses import CUELoss, LDAMLoss
from mmlt.models.losses.long_tail import _ClsLoss

# Image towers of timm whose weights were trained with texts say so by their names; Perception Encoder's and TIPS', too.
_TRAINED_WITH_TEXTS = ('clip', 'siglip', 'pe_core', 'tips')


def check_composition(model: nn.Module, with_checkpoint: bool = False) -> None:
    """Refuse parts whose numbers mean nothing together although their shapes fit.

    Parts of which one cannot know, such as those of other packages, are left
    alone.

    Args:
        model (nn.Module): A classifier that is going to be trained.
        with_checkpoint (bool): Whether the training starts from a checkpoint:
            its image tower may have learned the texts, and anchors are compared
            with it (:meth:`AnchorBank.check_checkpoint`). Defaults to False.

    Raises:
        InputError: Two heads or two losses; a head that compares features with
            texts of another space; a loss that does not fit the head's logits.
    """
    backbone, head = (getattr(model, name, None) for name in ('backbone', 'head'))
    _check_lists(head)
    if getattr(model, 'neck', None) is None:  # a neck may lead to the texts' space
        _check_projection(backbone, head)
        _check_texts(backbone, head, with_checkpoint)
    losses = [m for m in head.modules() if m is not head] if isinstance(head, nn.Module) else []
    for loss in losses:
        _check_labels(head, loss)
        _check_branches(head, loss)
        _check_scale(head, loss)


def _check_lists(head: nn.Module) -> None:
    """MMEngine makes a chain of a list, in which the first one's loss would be the next one's logits."""
    if isinstance(head, nn.Sequential):
        names = ', '.join(type(m).__name__ for m in head)
        raise InputError(f'model.head is a list ({names}), but a prediction is of one head: choose one of them.')
    loss = getattr(head, 'loss_module', None)
    for where, module in (('model.head.loss', loss), ('model.head.loss.base', getattr(loss, 'base', None))):
        if isinstance(module, nn.Sequential):
            names = ', '.join(type(m).__name__ for m in module)
            raise InputError(
                f'{where} is a list ({names}), but each is a whole loss, and two would correct for the class counts '
                'twice: choose one of them.'
            )


def _wants_projected(head: nn.Module) -> bool:
    return isinstance(head, (AnchorHead, TextClsHead)) or (
        isinstance(head, CosineClsHead) and head.from_text and head.projected
    )


def _check_projection(backbone: nn.Module, head: nn.Module) -> None:
    """Where the joint space is as wide as the transformer, a head for the other one runs."""
    if not isinstance(backbone, OpenCLIPVision):
        return
    name = type(head).__name__
    if not backbone.projection and _wants_projected(head):
        raise InputError(
            f'{name} compares image features with texts, but model.backbone.projection=False gives features from '
            'before the joint space: set model.backbone.projection=True.'
        )
    if backbone.projection and isinstance(head, CosineClsHead) and head.from_text and not head.projected:
        raise InputError(
            'CosineClsHead maps texts back to before the projection (projected=False), but model.backbone projects its '
            'features: set model.backbone.projection=False, or model.head.projected=True.'
        )


def _check_texts(backbone: nn.Module, head: nn.Module, with_checkpoint: bool) -> None:
    if not isinstance(backbone, TimmViT) or any(name in backbone.model_name for name in _TRAINED_WITH_TEXTS):
        return
    if isinstance(head, CosineClsHead) and head.from_text:
        raise InputError(
            f"CosineClsHead starts from class texts, but '{backbone.model_name}' was never trained with texts: set "
            "model.head.init='class_means' (with dict(type='mmlt.ClassMeansHook') in custom_hooks) and leave out "
            'model.head.text.'
        )
    if isinstance(head, AnchorHead) and not with_checkpoint:
        raise InputError(
            f"{type(head).__name__} compares image features with sentences, but '{backbone.model_name}' was never "
            "trained with texts: set model.backbone.type='mmlt.OpenCLIPVision', or load the checkpoint of a CVLP "
            'training of this tower.'
        )


def _check_labels(head: nn.Module, loss: nn.Module) -> None:
    if isinstance(head, MultiLabelClsHead) and isinstance(loss, (_ClsLoss, CUELoss)):
        raise InputError(
            f'{type(loss).__name__} is of one label an image, but {type(head).__name__} is of several: set '
            "model.head.loss=dict(type='mmlt.DistributionBalancedLoss') or 'mmlt.ClassBalancedBCELoss'."
        )


def _check_branches(head: nn.Module, loss: nn.Module) -> None:
    """The LGR head's loss is of each branch, and a prediction is the sum of two softmaxes."""
    if not isinstance(head, LGRHead):
        return
    if isinstance(loss, CUELoss) and (loss.zero_shot_weight > 0 or loss.neighbour_weight > 0):
        raise InputError(
            "CUELoss has binary terms, which read a logit's own value, but LGRHead adds the softmaxes of two branches "
            'whose logits have a meaning only beside each other: use model.head.loss='
            "dict(type='mmlt.LogitAdjustedLoss') with LGRHead, or CUE with CosineClsHead or LinearClsHead."
        )
    if isinstance(loss, LDAMLoss):
        raise InputError(
            'LDAMLoss has one margin for cosines, but of the two branches of LGRHead one gives no cosines and one '
            "scales them: set model.head.loss=dict(type='mmlt.LogitAdjustedLoss') or 'mmlt.ClassBalancedLoss'."
        )


def _check_scale(head: nn.Module, loss: nn.Module) -> None:
    """Cosines that the head has scaled, scaled once more: a softmax of them is all or nothing."""
    if not isinstance(head, (CosineClsHead, TextClsHead)) or not isinstance(loss, LDAMLoss) or loss.logit_scale == 1:
        return
    known = _known_scale(head)
    if known == '1':
        return
    raise InputError(
        f'{type(head).__name__} multiplies its cosines by {known}, and LDAMLoss by {loss.logit_scale:g} once more: set '
        f'model.head.loss.logit_scale=1 and model.head.loss.max_margin to {loss.max_margin:g} times {known}.'
    )


def _known_scale(head: CosineClsHead | TextClsHead) -> str:
    """The factor on the cosines; that of a tower is not read yet when a model is looked at."""
    if isinstance(head, CosineClsHead):
        return f'{head.logit_scale:g}'
    if head.log_scale is None and head._fixed_scale is None:
        return 'the scale of its weights'
    return f'{float(head.logit_scale):g}'
