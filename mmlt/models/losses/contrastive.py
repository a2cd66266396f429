"""Image-text contrastive losses, instance-wise and class-wise, and distillation."""

from __future__ import annotations

import torch
from mmengine.dist import get_rank, get_world_size
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mmlt.errors import InputError
from mmlt.models.losses.similarity import log_sum_exp, row_log_sums, softmax_means, weighted_keys
from mmlt.registry import MODELS
from mmlt.utils import check_sizes, gather, gather_with_grad


def label_groups(labels: Tensor) -> Tensor:
    """Number the distinct labels, without a wait for how many there are.

    Args:
        labels (Tensor): Integers of shape (N, ).

    Returns:
        Tensor: Numbers in [0, N), equal where the labels are, (N, ).
    """
    ordered, order = labels.sort()
    numbers = torch.zeros_like(order)
    numbers[1:] = (ordered[1:] != ordered[:-1]).cumsum(0)
    return torch.empty_like(order).scatter_(0, order, numbers)


def class_means(x: Tensor, labels: Tensor) -> Tensor:
    """Mean of the rows that share a label, at every row.

    Args:
        x (Tensor): Shape (N, D).
        labels (Tensor): Integers of shape (N, ).

    Returns:
        Tensor: Shape (N, D); row i is the mean over all j with
        ``labels[j] == labels[i]``.
    """
    group = label_groups(labels)
    sums = torch.zeros_like(x).index_add(0, group, x)
    counts = x.new_zeros(len(x)).index_add_(0, group, x.new_ones(len(x)))
    return sums[group] / counts[group].unsqueeze(1)


def positives(x: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """What a query of each label is drawn to: the mean of the keys of its label, smoothed by the mean of all.

    Args:
        x (Tensor): Keys of shape (N, D).
        labels (Tensor): Shape (N, ).
        label_smoothing (float): Share of the mean of all. Defaults to 0.

    Returns:
        Tensor: Shape (N, D).
    """
    means = class_means(x, labels)
    return torch.lerp(means, x.mean(0).expand_as(means), label_smoothing) if label_smoothing else means


class _ShardedContrastive(torch.autograd.Function):
    """This process's rows of both directions; the gradient needs no communication of gradients.

    Row i of the image direction is also column i of the text direction, so with the log-sums of all rows known
    (two gathered vectors) every process finds the whole gradient of its own features by itself. The class targets
    are symmetric: they count once for each direction.
    """

    @staticmethod
    def forward(ctx, image, text, scale, all_image, all_text, image_target, text_target):
        image_lse, image_logits = row_log_sums(image, all_text, scale)
        text_lse, text_logits = row_log_sums(text, all_image, scale)
        ctx.save_for_backward(
            image, text, scale, all_image, all_text, image_target, text_target, image_logits, text_logits,
            gather(image_lse, check=False), gather(text_lse, check=False), image_lse, text_lse,
        )  # fmt: skip
        image_loss = image_lse - scale * (image * text_target).sum(1)
        text_loss = text_lse - scale * (text * image_target).sum(1)
        return (image_loss.mean() + text_loss.mean()) / 2

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        (image, text, scale, all_image, all_text, image_target, text_target, image_logits, text_logits,
         all_image_lse, all_text_lse, image_lse, text_lse) = ctx.saved_tensors  # fmt: skip
        ones = torch.ones_like(image_lse), torch.ones_like(all_text_lse)
        d_image = weighted_keys(image, all_text, scale, image_lse, ones[0], all_text_lse, ones[1], image_logits)
        d_text = weighted_keys(text, all_image, scale, text_lse, ones[0], all_image_lse, ones[1], text_logits)
        # Over all processes the columns of one direction are the rows of the other: so each counts half.
        from_scale = ((image * d_image).sum() + (text * d_text).sum()) / 2
        from_scale -= (image * text_target).sum() + (text * image_target).sum()
        d_image -= 2 * text_target
        d_text -= 2 * image_target
        # DDP divides the sum over processes by their number: so per row of this process, not of the global batch.
        step = grad / (2 * len(image))
        return d_image.mul_(step * scale), d_text.mul_(step * scale), from_scale * step, None, None, None, None


def contrastive_loss(
    image: Tensor, text: Tensor, labels: Tensor, logit_scale: Tensor | float, label_smoothing: float = 0.0
) -> Tensor:
    """Symmetric contrastive loss over the global batch; pairs of one label are all positives.

    With s the logit scale, f and t the normalised features::

        L_i = logsumexp_j(s f_i . t_j) - s f_i . mean over same-label t

    and the same with images and texts exchanged; the loss is the mean of both
    directions over the batch. Distinct labels give CLIP's loss. No matrix of
    labels is made, of many pairs none is kept
    (:mod:`mmlt.models.losses.similarity`), and every process computes its own
    rows only.

    Args:
        image (Tensor): This process's normalised image features, (N, D).
        text (Tensor): This process's normalised text features, (N, D).
        labels (Tensor): Integers of shape (N, ); equal ones are positives.
        logit_scale (Tensor | float): s, 1 / temperature.
        label_smoothing (float): Share of the target that is spread over the
            whole batch. Defaults to 0.

    Returns:
        Tensor: A scalar, the mean over this process's rows. Its mean over
        processes, and the gradients that DDP averages, are those of one
        process on the global batch.
    """
    dtype = torch.promote_types(image.dtype, torch.float32)
    image, text = image.to(dtype), text.to(dtype)
    # In half precision a logit of 20 would be rounded to 0.1.
    with torch.autocast(image.device.type, enabled=False):
        if get_world_size() == 1:
            rows, columns = log_sum_exp(image, text, logit_scale, columns=True)
            # The targets are symmetric, so that both directions have the same sum of matched logits.
            matched = (image * positives(text, labels, label_smoothing)).sum(1)
            return ((rows + columns) / 2 - logit_scale * matched).mean()
        check_sizes(image, text, labels)
        all_image, all_text, all_labels = (gather(x, check=False) for x in (image.detach(), text.detach(), labels))
        own = slice(get_rank() * len(image), (get_rank() + 1) * len(image))
        text_target = positives(all_text, all_labels, label_smoothing)[own]
        image_target = positives(all_image, all_labels, label_smoothing)[own]
        scale = torch.as_tensor(logit_scale, dtype=dtype, device=image.device)
        return _ShardedContrastive.apply(image, text, scale, all_image, all_text, image_target, text_target)


def distillation_loss(
    image: Tensor,
    text: Tensor,
    teacher_image: Tensor,
    teacher_text: Tensor,
    logit_scale: Tensor | float,
    teacher_scale: Tensor | float,
    form: str = 'pair',
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
        teacher_scale (Tensor | float): Teacher's; no gradient.
        form (str): 'pair' or 'full'. Defaults to 'pair'.

    Returns:
        Tensor: A scalar, the mean over this process's rows and both
        directions; see :func:`contrastive_loss` for several processes.
    """
    dtype = torch.promote_types(image.dtype, torch.float32)
    image, text, teacher_image, teacher_text = (
        x.to(dtype) for x in (image, text, teacher_image.detach(), teacher_text.detach())
    )
    if isinstance(teacher_scale, Tensor):
        teacher_scale = teacher_scale.detach()
    with torch.autocast(image.device.type, enabled=False):
        if get_world_size() == 1:
            own = _distil(image, text, teacher_image, teacher_text, logit_scale, teacher_scale, form, columns=True)
            return sum(loss.mean() for loss in own) / 2
        check_sizes(image, text, teacher_image, teacher_text)
        all_image, all_text = gather_with_grad(image, check=False), gather_with_grad(text, check=False)
        all_teacher_image, all_teacher_text = gather(teacher_image, check=False), gather(teacher_text, check=False)
        images, _ = _distil(image, all_text, teacher_image, all_teacher_text, logit_scale, teacher_scale, form)
        texts, _ = _distil(text, all_image, teacher_text, all_teacher_image, logit_scale, teacher_scale, form)
        return (images.mean() + texts.mean()) / 2


def _distil(queries, keys, teacher_queries, teacher_keys, scale, teacher_scale, form, columns=False):
    """Losses of the queries over the keys, and, if all of both are here, of the keys over the queries."""
    own = slice(get_rank() * len(queries), (get_rank() + 1) * len(queries)) if not columns else slice(None)
    sums = log_sum_exp(queries, keys, scale, columns)
    with torch.no_grad():
        teacher_sums = log_sum_exp(teacher_queries, teacher_keys, teacher_scale, columns)
    if form == 'pair':
        pairs = scale * (queries * keys[own]).sum(1)
        teacher_pairs = teacher_scale * (teacher_queries * teacher_keys[own]).sum(1)
        return tuple(
            None if over is None else (teacher_pairs - theirs).exp() * (over - pairs)
            for over, theirs in zip(sums, teacher_sums)
        )
    # -sum_j P'_ij log P_ij = logsumexp_i - s q_i . sum_j P'_ij k_j
    others, over_columns = (queries, teacher_sums[1]) if columns else (None, None)
    means = softmax_means(keys, teacher_queries, teacher_keys, teacher_scale, teacher_sums[0], others, over_columns)
    parts = zip(sums, (queries, keys), means)
    return tuple(None if over is None else over - scale * (x * mean).sum(1) for over, x, mean in parts)


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

    def forward(self, image, text, teacher_image, teacher_text, logit_scale, teacher_scale) -> Tensor:
        """See :func:`distillation_loss`."""
        loss = distillation_loss(image, text, teacher_image, teacher_text, logit_scale, teacher_scale, self.form)
        return self.loss_weight * loss
