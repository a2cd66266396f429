"""Image-text contrastive losses, instance-wise and class-wise, and distillation."""

from __future__ import annotations

import torch
from mmengine.dist import get_rank, get_world_size
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mmlt.errors import InputError
from mmlt.registry import MODELS
from mmlt.utils import gather, gather_with_grad


def class_means(x: Tensor, labels: Tensor) -> Tensor:
    """Mean of the rows that share a label, at every row.

    Args:
        x (Tensor): Shape (N, D).
        labels (Tensor): Integers of shape (N, ).

    Returns:
        Tensor: Shape (N, D); row i is the mean over all j with
        ``labels[j] == labels[i]``.
    """
    _, group, counts = torch.unique(labels, return_inverse=True, return_counts=True)
    sums = x.new_zeros(len(counts), x.shape[1]).index_add(0, group, x)
    return (sums / counts.to(x.dtype).unsqueeze(1))[group]


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
        image_logits, text_logits = scale * image @ all_text.t(), scale * text @ all_image.t()
        image_lse, text_lse = image_logits.logsumexp(1), text_logits.logsumexp(1)
        ctx.save_for_backward(
            image, text, scale, all_image, all_text, image_target, text_target, image_logits, text_logits,
            gather(image_lse), gather(text_lse), image_lse, text_lse,
        )  # fmt: skip
        image_loss = image_lse - scale * (image * text_target).sum(1)
        text_loss = text_lse - scale * (text * image_target).sum(1)
        return (image_loss.mean() + text_loss.mean()) / 2

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        (image, text, scale, all_image, all_text, image_target, text_target, image_logits, text_logits,
         all_image_lse, all_text_lse, image_lse, text_lse) = ctx.saved_tensors  # fmt: skip
        own_rows, own_columns = (image_logits - image_lse[:, None]).exp_(), (image_logits - all_text_lse).exp_()
        from_scale = (own_rows * image_logits).sum() / scale
        d_image = own_rows.add_(own_columns) @ all_text - 2 * text_target
        own_rows, own_columns = (text_logits - text_lse[:, None]).exp_(), (text_logits - all_image_lse).exp_()
        from_scale += (own_rows * text_logits).sum() / scale
        d_text = own_rows.add_(own_columns) @ all_image - 2 * image_target
        from_scale -= (image * text_target).sum() + (text * image_target).sum()
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
    labels is made, and every process computes its own rows only.

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
            logits = logit_scale * image @ text.t()
            matched = (image * positives(text, labels, label_smoothing)).sum(1)
            # The targets are symmetric, so that both directions have the same sum of matched logits.
            rows, columns = logits.logsumexp(1), logits.logsumexp(0)
            return ((rows + columns) / 2 - logit_scale * matched).mean()
        all_image, all_text, all_labels = gather(image.detach()), gather(text.detach()), gather(labels)
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
    diagonal = torch.arange(len(image), device=image.device) + get_rank() * len(image)

    def one_way(queries, keys, teacher_queries, teacher_keys):
        log_p = (logit_scale * queries @ keys.t()).log_softmax(1)
        target = (teacher_scale * teacher_queries @ teacher_keys.t()).softmax(1)
        if form == 'pair':
            log_p, target = (x.gather(1, diagonal[:, None]) for x in (log_p, target))
        return -(target * log_p).sum(1).mean()

    with torch.autocast(image.device.type, enabled=False):
        images = one_way(image, gather_with_grad(text), teacher_image, gather(teacher_text))
        texts = one_way(text, gather_with_grad(image), teacher_text, gather(teacher_image))
        return (images + texts) / 2


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
