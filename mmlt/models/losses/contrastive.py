"""Image-text contrastive loss, instance-wise and class-wise."""

from __future__ import annotations

import torch
from mmengine.dist import get_rank
from torch import Tensor, nn

from mmlt.registry import MODELS
from mmlt.utils import gather_with_grad


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


def contrastive_loss(image: Tensor, text: Tensor, labels: Tensor, logit_scale: Tensor | float) -> Tensor:
    """Symmetric contrastive loss over the global batch; pairs of one label are all positives.

    With s the logit scale, f and t the normalised features::

        L_i = logsumexp_j(s f_i . t_j) - s f_i . mean over same-label t

    and the same with images and texts exchanged; the loss is the mean of both
    directions over the batch. Distinct labels give CLIP's loss. No matrix of
    labels is made.

    Args:
        image (Tensor): This process's normalised image features, (N, D).
        text (Tensor): This process's normalised text features, (N, D).
        labels (Tensor): Integers of shape (N, ); equal ones are positives.
        logit_scale (Tensor | float): s, 1 / temperature.

    Returns:
        Tensor: A scalar, the mean over this process's rows. Its mean over
        processes, and the gradients that DDP averages, are those of one
        process on the global batch.
    """
    dtype = torch.promote_types(image.dtype, torch.float32)
    image, text = image.to(dtype), text.to(dtype)
    all_image, all_text = gather_with_grad(image), gather_with_grad(text)
    all_labels = gather_with_grad(labels)
    rows = slice(0, len(image))
    if len(all_image) > len(image):
        rows = slice(get_rank() * len(image), (get_rank() + 1) * len(image))

    def one_way(queries, keys):
        positives = class_means(keys, all_labels)[rows]
        logits = logit_scale * queries @ keys.t()
        return (logits.logsumexp(1) - logit_scale * (queries * positives).sum(1)).mean()

    # In half precision a logit of 20 would be rounded to 0.1.
    with torch.autocast(image.device.type, enabled=False):
        return (one_way(image, all_text) + one_way(text, all_image)) / 2


@MODELS.register_module()
class ContrastiveLoss(nn.Module):
    """Module form of :func:`contrastive_loss`.

    Args:
        loss_weight (float): Weight of the loss. Defaults to 1.0.
    """

    def __init__(self, loss_weight: float = 1.0):
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, image: Tensor, text: Tensor, labels: Tensor, logit_scale: Tensor | float) -> Tensor:
        """See :func:`contrastive_loss`."""
        return self.loss_weight * contrastive_loss(image, text, labels, logit_scale)
