"""Classical heads for a representation that is already there (Kang et al. 2020, section 4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmpretrain.models.heads import ClsHead, LinearClsHead
from torch import Tensor, nn

from mmlt.errors import InputError
from mmlt.registry import MODELS


def mean_features(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Mean feature of every class.

    Args:
        features (Tensor): Shape (N, D).
        labels (Tensor): Integers of shape (N, ).
        num_classes (int): C.

    Returns:
        Tensor: Shape (C, D), in the dtype of ``features``.

    Raises:
        InputError: A label outside [0, C), or a class without features;
            features that are not finite.
    """
    if int(labels.min()) < 0 or int(labels.max()) >= num_classes:
        raise InputError(
            f'The labels go from {int(labels.min())} to {int(labels.max())}, but the head has {num_classes} classes: '
            'set num_classes to that of the dataset.'
        )
    counts = torch.bincount(labels, minlength=num_classes)
    if (counts == 0).any():
        raise InputError(
            f'Class {int((counts == 0).nonzero()[0])} has no training images, so it has no mean: fit the head on a '
            'dataset with images of every class.'
        )
    if not (finite := features.isfinite().all(1)).all():
        raise InputError(
            f'The features of {int((~finite).sum())} of {len(features)} images are NaN or infinite, so a mean is, too: '
            'look at the weights of the backbone, and leave out half precision if it overflows.'
        )
    # Sums of very many features, so in double precision.
    sums = torch.zeros(num_classes, features.shape[1], dtype=torch.float64, device=features.device)
    sums.index_add_(0, labels, features.double())
    return (sums / counts.unsqueeze(1)).to(features.dtype)


def tau_normalized(weight: Tensor, tau: float) -> Tensor:
    """Class vectors divided by a power of their lengths, ``w_c / ||w_c|| ** tau`` (Eq. 2).

    Args:
        weight (Tensor): Shape (C, D).
        tau (float): 0 leaves the vectors as they are, 1 makes all equally long.

    Returns:
        Tensor: Shape (C, D).
    """
    lengths = weight.norm(dim=1, keepdim=True).clamp_min(torch.finfo(weight.dtype).eps)
    return weight / lengths**tau


@MODELS.register_module()
class NCMHead(ClsHead):
    """Nearest class mean: cosines of a feature with the mean training feature of every class.

    Nothing is trained; :class:`FitHeadHook` calls :meth:`fit` before a test.
    The means are in the head's state dict.

    Args:
        num_classes (int): C.
        in_channels (int): Width D of the features.
        **kwargs: See MMPretrain's ``ClsHead``.

    Raises:
        InputError: The head is used before it is fitted.

    Examples:
        >>> import torch
        >>> from mmlt.models import NCMHead
        >>> head = NCMHead(num_classes=2, in_channels=2)
        >>> head.fit(torch.tensor([[2.0, 0.0], [4.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0, 1]))
        >>> head((torch.tensor([[0.0, 5.0]]),))
        tensor([[0., 1.]])
    """

    def __init__(self, num_classes: int, in_channels: int, **kwargs):
        super().__init__(**kwargs)
        self.num_classes, self.in_channels = num_classes, in_channels
        self.register_buffer('means', torch.zeros(num_classes, in_channels))

    @property
    def fitted(self) -> bool:
        """Whether the means are there."""
        return bool(self.means.any())

    @torch.no_grad()
    def fit(self, features: Tensor, labels: Tensor) -> None:
        """Take the class means of training features.

        Args:
            features (Tensor): Shape (N, D).
            labels (Tensor): Integers of shape (N, ), all C classes among them.

        Raises:
            InputError: Features of another width, a label outside [0, C), or a
                class without features.
        """
        self._check_width(features)
        self.means.copy_(mean_features(features, labels, self.num_classes))

    def _check_width(self, features: Tensor) -> None:
        if features.ndim != 2 or features.shape[1] != self.in_channels:
            raise InputError(
                f'NCMHead was built for features of width {self.in_channels}, but they have the shape '
                f'{tuple(features.shape)}: set in_channels, or pool the features by a neck.'
            )

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Cosines.

        Args:
            feats (tuple[Tensor]): The last is the feature, (N, D).

        Returns:
            Tensor: Shape (N, C), in [-1, 1].
        """
        x = self.pre_logits(feats)
        self._check_width(x)
        if not self.fitted:
            raise InputError(
                "NCMHead has no class means yet: add dict(type='mmlt.FitHeadHook', dataset=<train dataset>) to "
                'custom_hooks, or call its fit().'
            )
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(torch.promote_types(x.dtype, self.means.dtype))
            return F.normalize(x, dim=1) @ F.normalize(self.means, dim=1).to(x.dtype).t()


@MODELS.register_module()
class TauNormClsHead(LinearClsHead):
    """A trained linear classifier with tau-normalised class vectors, without bias.

    Only for testing: its weights have the names of MMPretrain's
    ``LinearClsHead``, whose checkpoint it loads.

    Args:
        num_classes (int): C.
        in_channels (int): Width D of the features.
        tau (float): See :func:`tau_normalized`. The paper chooses it in (0, 1)
            on a validation set. Defaults to 0.5.
        **kwargs: See MMPretrain's ``LinearClsHead``.

    Raises:
        InputError: A negative ``tau``, or an attempt to train.
    """

    def __init__(self, num_classes: int, in_channels: int, tau: float = 0.5, **kwargs):
        super().__init__(num_classes, in_channels, **kwargs)
        if tau < 0:
            raise InputError(f"TauNormClsHead's tau is {tau}; it must not be negative (the paper: between 0 and 1).")
        self.tau = tau

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Logits.

        Args:
            feats (tuple[Tensor]): The last is the feature, (N, D).

        Returns:
            Tensor: Shape (N, C).
        """
        return F.linear(self.pre_logits(feats), tau_normalized(self.fc.weight, self.tau))

    def loss(self, feats: tuple[Tensor, ...], data_samples: list, **kwargs) -> dict:
        """Not available."""
        raise InputError(
            'TauNormClsHead only tests a classifier that is trained already: train a LinearClsHead and give its '
            'checkpoint.'
        )


@MODELS.register_module()
class LWSHead(LinearClsHead):
    """Learnable weight scaling: one positive factor on the vector of every class.

    ``z_c = s_c * w_c . x + b_c``; w and b come from a checkpoint of MMPretrain's
    ``LinearClsHead`` and stay as they are, only s is trained, with balanced
    sampling and a frozen backbone. The paper speaks of factors on w; its
    published code multiplies the bias as well.

    Args:
        num_classes (int): C.
        in_channels (int): Width D of the features.
        **kwargs: See MMPretrain's ``LinearClsHead``.
    """

    def __init__(self, num_classes: int, in_channels: int, **kwargs):
        super().__init__(num_classes, in_channels, **kwargs)
        self.fc.requires_grad_(False)
        # The logarithm keeps the factors positive, and weight decay draws them to 1.
        self.log_scales = nn.Parameter(torch.zeros(num_classes))

    @property
    def scales(self) -> Tensor:
        """The factors s, shape (C, )."""
        return self.log_scales.exp()

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Logits.

        Args:
            feats (tuple[Tensor]): The last is the feature, (N, D).

        Returns:
            Tensor: Shape (N, C).
        """
        return self.scales * F.linear(self.pre_logits(feats), self.fc.weight) + self.fc.bias
