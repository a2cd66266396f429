"""Image-text contrastive losses, instance-wise and class-wise, and distillation."""

from __future__ import annotations

import torch
from mmengine.dist import get_rank, get_world_size
from torch import Tensor, nn

from mmlt.errors import InputError
from mmlt.models.losses.contrastive_functional import Batch, global_loss, scan_both
from mmlt.registry import MODELS
from mmlt.utils import check_sizes, gather
from mmlt.utils.precision import exact_product


def _groups(labels: Tensor) -> tuple[Tensor, Tensor]:
    """A number below N for every label, equal for equal labels, and how many have it; nothing is read by the host."""
    ordered = labels.sort().values
    first = torch.searchsorted(ordered, labels)
    return first, torch.searchsorted(ordered, labels, right=True) - first


def class_means(x: Tensor, labels: Tensor) -> Tensor:
    """Mean of the rows that share a label, at every row.

    Args:
        x (Tensor): Shape (N, D).
        labels (Tensor): Integers of shape (N, ).

    Returns:
        Tensor: Shape (N, D); row i is the mean over all j with
        ``labels[j] == labels[i]``.
    """
    return positives(x, labels)


def positives(x: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """What a query of each label is drawn to: the mean of the keys of its label, smoothed by the mean of all.

    Args:
        x (Tensor): Keys of shape (N, D).
        labels (Tensor): Shape (N, ).
        label_smoothing (float): Share of the mean of all. Defaults to 0.

    Returns:
        Tensor: Shape (N, D).
    """
    return _positives(x, _groups(labels), slice(None), label_smoothing)


def _positives(x: Tensor, groups: tuple[Tensor, Tensor], own: slice, label_smoothing: float) -> Tensor:
    first, counts = groups
    sums = torch.zeros_like(x).index_add_(0, first, x)
    means = sums.index_select(0, first[own]) / counts[own].to(x.dtype).unsqueeze(1)
    return torch.lerp(means, x.mean(0).expand_as(means), label_smoothing) if label_smoothing else means


# Up to so many pairs in one process the matrices as they stand are fastest, and small.
_FEW_PAIRS = 2**18


def _are_few(image: Tensor, max_logits: int | None) -> bool:
    return get_world_size() == 1 and max_logits is None and len(image) ** 2 <= _FEW_PAIRS


def _cross_entropy(image: Tensor, text: Tensor, logit_scale: Tensor | float, targets: tuple[Tensor, Tensor]) -> Tensor:
    """Mean of both directions, with the targets of images over texts and of texts over images, (N, N) each."""
    logits = logit_scale * exact_product(image, text)
    rows, columns = logits.log_softmax(1), logits.t().log_softmax(1)
    return -((targets[0] * rows).sum(1) + (targets[1] * columns).sum(1)).mean() / 2


def _label_targets(labels: Tensor, dtype: torch.dtype, label_smoothing: float) -> Tensor:
    same = (labels[:, None] == labels).to(dtype)
    targets = same / same.sum(1, keepdim=True)
    return targets * (1 - label_smoothing) + label_smoothing / len(labels) if label_smoothing else targets


def _as_scalar(logit_scale: Tensor | float, like: Tensor) -> Tensor:
    if isinstance(logit_scale, Tensor):
        return logit_scale.to(like).reshape(())
    return like.new_full((), logit_scale)  # on the device, where it need not wait for a copy


@torch.no_grad()
def _soft_targets(image: Tensor, text: Tensor, logit_scale: Tensor | float, form: str, dtype) -> tuple[Tensor, Tensor]:
    logits = logit_scale * exact_product(image.to(dtype), text.to(dtype))
    rows, columns = logits.softmax(1), logits.t().softmax(1)
    return (rows.diag().diag(), columns.diag().diag()) if form == 'pair' else (rows, columns)


def contrastive_loss(
    image: Tensor,
    text: Tensor,
    labels: Tensor,
    logit_scale: Tensor | float,
    label_smoothing: float = 0.0,
    max_logits: int | None = None,
) -> Tensor:
    """Symmetric contrastive loss over the global batch; pairs of one label are all positives.

    With s the logit scale, f and t the normalised features::

        L_i = logsumexp_j(s f_i . t_j) - s f_i . mean over same-label t

    and the same with images and texts exchanged; the loss is the mean of both
    directions over the batch. Distinct labels give CLIP's loss. No matrix of
    labels is made, none of logits beyond ``max_logits`` is kept, every process
    computes its own rows only, and none waits for its GPU. The products are
    exact, also where autocast or TF32 is on elsewhere.

    Args:
        image (Tensor): This process's normalised image features, (N, D).
        text (Tensor): This process's normalised text features, (N, D).
        labels (Tensor): Integers of shape (N, ); equal ones are positives.
        logit_scale (Tensor | float): s, 1 / temperature.
        label_smoothing (float): Share of the target that is spread over the
            whole batch. Defaults to 0.
        max_logits (int, optional): Logits that are kept for the backward
            pass; what is beyond is computed again there, by tiles.
            Defaults to None, 2^25 (134 MB in single precision).

    Returns:
        Tensor: A scalar, the mean over this process's rows. Its mean over
        processes, and the gradients that DDP averages, are those of one
        process on the global batch.
    """
    dtype = torch.promote_types(image.dtype, torch.float32)
    image, text = image.to(dtype), text.to(dtype)
    if _are_few(image, max_logits):
        with torch.autocast(image.device.type, enabled=False):
            targets = _label_targets(labels, dtype, label_smoothing)
            return _cross_entropy(image, text, logit_scale, (targets, targets))
    all_image, all_text = image.detach(), text.detach()
    own = slice(None)
    if get_world_size() > 1:
        check_sizes(image, text, labels)
        all_image, all_text, labels = (gather(x, check=False) for x in (all_image, all_text, labels))
        own = slice(get_rank() * len(image), (get_rank() + 1) * len(image))
    # In half precision a logit of 20 would be rounded to 0.1.
    with torch.no_grad(), torch.autocast(image.device.type, enabled=False):
        groups = _groups(labels)
        # The targets are symmetric: they count once for each direction.
        of_image, of_text = (_positives(x, groups, own, label_smoothing).mul_(2) for x in (all_text, all_image))
    batch = Batch(all_image, all_text, (of_image, of_text), max_logits=max_logits)
    return global_loss(image, text, _as_scalar(logit_scale, image), batch)


def distillation_loss(
    image: Tensor,
    text: Tensor,
    teacher_image: Tensor,
    teacher_text: Tensor,
    logit_scale: Tensor | float,
    teacher_logit_scale: Tensor | float,
    form: str = 'pair',
    max_logits: int | None = None,
) -> Tensor:
    """Keep the similarities within a batch near those of a frozen teacher (VL-LTR, Eq. 3).

    With P the student's and P' the teacher's softmax over the global batch, of
    an image over the texts and of a text over the images::

        'pair':  L_i = -P'_ii log P_ii          (the paper's Eq. 3)
        'full':  L_i = -sum_j P'_ij log P_ij    (the published code)

    Args:
        image (Tensor): Student's normalised image features, (N, D).
        text (Tensor): Student's normalised text features, (N, D).
        teacher_image (Tensor): Teacher's, (N, E), no gradient.
        teacher_text (Tensor): Teacher's, (N, E), no gradient.
        logit_scale (Tensor | float): Student's 1 / temperature.
        teacher_logit_scale (Tensor | float): Teacher's; no gradient.
        form (str): 'pair' or 'full'. Defaults to 'pair'.
        max_logits (int, optional): See :func:`contrastive_loss`.
            Defaults to None.

    Returns:
        Tensor: A scalar, the mean over this process's rows and both
        directions; see :func:`contrastive_loss` for several processes.
    """
    dtype = torch.promote_types(image.dtype, torch.float32)
    image, text = image.to(dtype), text.to(dtype)
    if _are_few(image, max_logits):
        with torch.autocast(image.device.type, enabled=False):
            return _cross_entropy(
                image, text, logit_scale, _soft_targets(teacher_image, teacher_text, teacher_logit_scale, form, dtype)
            )
    with torch.no_grad():
        features = image.detach(), text.detach(), teacher_image.to(dtype), teacher_text.to(dtype)
        check_sizes(*features)
        all_image, all_text, all_soft_image, all_soft_text = (gather(x, check=False) for x in features)
        soft_scale = _as_scalar(teacher_logit_scale, image)
        soft_image, soft_text = (soft_scale * x for x in features[2:])
        batch = Batch(all_image, all_text, max_logits=max_logits)
        if form == 'full':
            batch.teacher = soft_image, soft_text, all_soft_image, all_soft_text
        else:  # a weight for every row, and the pair alone as target
            sums = scan_both(Batch(all_soft_image, all_soft_text, max_logits=max_logits).sides(soft_image, soft_text))
            of_image, of_text = ((soft_image * features[3]).sum(1) - x.hard for x in sums)
            weight = (of_image.exp() + of_text.exp()).unsqueeze(1)
            batch.log_weights, batch.pulls = (of_image, of_text), (weight * text, weight * image)
    return global_loss(image, text, _as_scalar(logit_scale, image), batch)


@MODELS.register_module()
class ContrastiveLoss(nn.Module):
    """Module form of :func:`contrastive_loss`: CLIP's loss, the mean of both directions.

    Args:
        label_smoothing (float): Defaults to 0.
        loss_weight (float): Weight of the loss. Defaults to 1.0.
    """

    def __init__(self, label_smoothing: float = 0.0, loss_weight: float = 1.0):
        super().__init__()
        self.label_smoothing, self.loss_weight = label_smoothing, loss_weight

    def forward(self, image: Tensor, text: Tensor, labels: Tensor, logit_scale: Tensor | float) -> Tensor:
        """See :func:`contrastive_loss`."""
        return self.loss_weight * contrastive_loss(image, text, labels, logit_scale, self.label_smoothing)


@MODELS.register_module()
class CCLLoss(nn.Module):
    """Class-wise contrastive loss (VL-LTR, Eq. 2): ``L_vis + L_lin`` over the global batch.

    The published code has ``form='mean'`` with ``label_smoothing=0.1``.

    Args:
        form (str): 'sum' of both directions (the paper) or their 'mean'.
            Defaults to 'sum'.
        label_smoothing (float): Defaults to 0.
        loss_weight (float): Weight of the loss. Defaults to 1.0.

    Raises:
        InputError: Another form.
    """

    def __init__(self, form: str = 'sum', label_smoothing: float = 0.0, loss_weight: float = 1.0):
        super().__init__()
        if form not in ('sum', 'mean'):
            raise InputError(f"CCLLoss: form is '{form}'; choose 'sum' (the paper) or 'mean' (the published code).")
        self.label_smoothing = label_smoothing
        self.loss_weight = loss_weight * (2 if form == 'sum' else 1)

    def forward(self, image: Tensor, text: Tensor, labels: Tensor, logit_scale: Tensor | float) -> Tensor:
        """See :func:`contrastive_loss`."""
        return self.loss_weight * contrastive_loss(image, text, labels, logit_scale, self.label_smoothing)


@MODELS.register_module()
class ImageTextDistillLoss(nn.Module):
    """Distillation of a batch's similarities (VL-LTR, Eq. 3).

    Args:
        form (str): 'pair', the paper's: the (i, i) terms alone, sum of both
            directions; 'full', the published code's: soft cross-entropy over
            the whole row, mean of both directions. Defaults to 'pair'.
        loss_weight (float): Weight of the loss. Defaults to 1.0.

    Raises:
        InputError: Another form.
    """

    def __init__(self, form: str = 'pair', loss_weight: float = 1.0):
        super().__init__()
        if form not in ('pair', 'full'):
            raise InputError(
                f"ImageTextDistillLoss: form is '{form}'; choose 'pair' (the paper) or 'full' (the published code)."
            )
        self.form = form
        self.loss_weight = loss_weight * (2 if form == 'pair' else 1)

    def forward(self, image, text, teacher_image, teacher_text, logit_scale, teacher_logit_scale) -> Tensor:
        """See :func:`distillation_loss`."""
        loss = distillation_loss(image, text, teacher_image, teacher_text, logit_scale, teacher_logit_scale, self.form)
        return self.loss_weight * loss
