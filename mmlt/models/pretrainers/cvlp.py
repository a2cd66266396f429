"""Class-wise visual-linguistic pretraining, the first stage of VL-LTR."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.dist import get_dist_info
from mmengine.registry import DATASETS as ROOT_DATASETS
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from mmlt.errors import InputError
from mmlt.models.data_preprocessor import host_labels
from mmlt.models.pretrainers.contrastive_pretrainer import ContrastivePretrainer
from mmlt.models.text.token_table import TokenTable, encode_table, tokenize_corpus
from mmlt.registry import MODELS
from mmlt.utils import HostCount, to_device
from mmlt.utils.class_info import ClassInfo, not_told
from mmlt.utils.renamed import renamed


class Teacher(nn.Module):
    """A frozen image-text model whose sentences are encoded once.

    Args:
        model (str): Name of an open_clip model.
        pretrained (str, optional): See :class:`OpenCLIPVision`.
        image_size (int, optional): See :class:`OpenCLIPVision`.
            Defaults to None.
        **kwargs: Further arguments of both towers, for example ``quick_gelu``.
    """

    def __init__(self, model: str, pretrained: str | None, image_size: int | None = None, **kwargs):
        super().__init__()
        tower = dict(model=model, pretrained=pretrained, frozen=True, **kwargs)
        self.backbone = MMPRETRAIN_MODELS.build(dict(type='mmlt.OpenCLIPVision', image_size=image_size, **tower))
        self.text = MMPRETRAIN_MODELS.build(dict(type='mmlt.OpenCLIPText', **tower))
        self.sentences: Tensor | None = None  # (T, D), normalised, on the CPU
        self.eval()

    def init_weights(self) -> None:
        """Read the weights."""
        self.backbone.init_weights()
        self.text.init_weights()

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Normalised image features, (N, D)."""
        if next(self.parameters()).device != images.device:
            self.to(images.device)
        with torch.inference_mode():
            features = self.backbone(images)[-1]
        return F.normalize(features.float(), dim=-1)  # made outside: autograd may keep it

    def stand_in(self, number: int) -> None:
        """Random sentences in place of those that :meth:`encode_corpus` takes long for, where a step is only tried."""
        self.sentences = F.normalize(torch.randn(number, self.text.out_channels), dim=-1)

    def encode_corpus(self, table: TokenTable, device: torch.device) -> None:
        """Encode every sentence of a corpus."""
        self.text.to(device)
        self.sentences = F.normalize(encode_table(self.text, table, "Teacher's sentences"), dim=-1)


def _same_tokens(one, other) -> bool:
    probe = ['A probe: 42 words, perhaps.']
    return torch.equal(one(probe), other(probe))


def _check_ratio(loss_ratio: float, teacher: dict | None) -> None:
    if not 0 < loss_ratio <= 1:
        raise InputError(
            f'CVLP: loss_ratio is {loss_ratio}; it is the share of the contrastive loss, above 0 and at most 1.'
        )
    if loss_ratio < 1 and teacher is None:
        raise InputError(
            f'CVLP: loss_ratio={loss_ratio} asks for distillation, but there is no teacher: give '
            'teacher=dict(model=..., pretrained=...), or loss_ratio=1.'
        )
    if loss_ratio == 1 and teacher is not None:
        raise InputError('CVLP: loss_ratio=1 leaves nothing for the teacher to do: give teacher=None, or less than 1.')


@MODELS.register_module()
class CVLP(ContrastivePretrainer):
    """Class-wise visual-linguistic pretraining (VL-LTR, section 3.2).

    Every image gets a random sentence of its class, another one at every step;
    images and sentences of one class are positives of each other over the
    global batch::

        L = loss_ratio * L_ccl + (1 - loss_ratio) * L_dis              (Eq. 8)

    The draw is a function of (seed, step, place in the global batch), so it
    goes on after a resume, and it is the same for one process as for several.
    Class names and texts come from the dataset (:class:`ClassInfoHook`).

    Args:
        backbone (dict): Image tower.
        text (dict): Text tower.
        texts (dict): The corpus. Defaults to ``dict(type='mmlt.ClassTexts')``.
        teacher (dict, optional): ``dict(model=..., pretrained=...)`` of the
            frozen CLIP whose similarities are kept; None with ``loss_ratio=1``.
            It is no part of checkpoints. Defaults to None.
        loss_ratio (float): lambda of Eq. 8. Defaults to 0.5.
        init_temperature (float, optional): Where the learned temperature tau
            of the paper starts, the inverse of the logit scale; None leaves
            that of the weights (0.01 for OpenAI's CLIP, which the published
            code loads). Defaults to 0.07.
        teacher_temperature (float | str): Of the teacher's similarities, the
            inverse of a logit scale as well;
            'shared' is the learned tau, as Eq. 3 has it, without gradient;
            'own' is that of the teacher's weights, as in the published code.
            Defaults to 'shared'.
        loss (dict): Defaults to ``dict(type='mmlt.CCLLoss')``.
        distill_loss (dict): Defaults to
            ``dict(type='mmlt.ImageTextDistillLoss')``.
        seed (int, optional): Seed of the drawn sentences. Defaults to None,
            that of the run.
        **kwargs: See :class:`ContrastivePretrainer` (templates,
            data_preprocessor, init_cfg).

    Raises:
        InputError: Distillation is asked without a teacher, or the reverse; a
            class without text; training before the classes are known.
    """

    @renamed(ratio='loss_ratio')
    def __init__(
        self,
        backbone: dict,
        text: dict,
        texts: dict | None = None,
        teacher: dict | None = None,
        loss_ratio: float = 0.5,
        init_temperature: float | None = 0.07,
        teacher_temperature: float | str = 'shared',
        loss: dict | None = None,
        distill_loss: dict | None = None,
        seed: int | None = None,
        **kwargs,
    ):
        _check_ratio(loss_ratio, teacher)
        super().__init__(backbone, text, loss=loss or dict(type='mmlt.CCLLoss'), **kwargs)
        self.texts = dict(texts or dict(type='mmlt.ClassTexts'))
        self.corpus = ROOT_DATASETS.build(self.texts)
        self.distill_loss = MMPRETRAIN_MODELS.build(distill_loss or dict(type='mmlt.ImageTextDistillLoss'))
        # No submodule: it is neither trained nor saved nor averaged.
        self.__dict__['teacher'] = None if teacher is None else Teacher(**teacher)
        if teacher is not None and not _same_tokens(self.text.tokenizer, self.teacher.text.tokenizer):
            raise InputError(
                f"CVLP: the teacher '{teacher['model']}' has another tokenizer or context length than the student: "
                'take a teacher of the same kind of text tower.'
            )
        if isinstance(teacher_temperature, str) and teacher_temperature not in ('shared', 'own'):
            raise InputError(
                f"CVLP: teacher_temperature is '{teacher_temperature}'; give 'shared' (the learned one), 'own' (that "
                "of the teacher's weights) or a number."
            )
        self.loss_ratio = loss_ratio
        self.init_temperature, self.teacher_temperature = init_temperature, teacher_temperature
        self.seed = torch.initial_seed() if seed is None else seed
        self.table: TokenTable | None = None
        self.register_buffer('steps', torch.zeros((), dtype=torch.long))
        self._steps = HostCount()

    def init_weights(self) -> None:
        """Read the weights of the towers and of the teacher; start the temperature."""
        super().init_weights()
        if self.teacher is not None:
            self.teacher.init_weights()
        if self.init_temperature is not None:
            with torch.no_grad():
                self.text.clip.logit_scale.fill_(-math.log(self.init_temperature))

    def set_class_info(self, info: ClassInfo) -> None:
        """Read and tokenise the texts of the classes; :class:`ClassInfoHook` calls it before a run.

        Args:
            info (ClassInfo): What is known of the classes.
        """
        self.head.set_class_info(info)
        sentences = self.corpus.read(info.classes, info.texts)
        self.table = tokenize_corpus(sentences, self.text.tokenizer, self.text.model_name)
        if self.teacher is not None:
            self.teacher.sentences = None  # those of other texts, if any

    def stand_in(self) -> None:
        """See :meth:`Teacher.stand_in`."""
        if self.teacher is not None and self.table is not None:
            self.teacher.stand_in(int(self.table.counts.sum()))

    def draw_sentences(self, labels: Tensor) -> Tensor:
        """Draw a sentence of its class for every image of this step.

        Args:
            labels (Tensor): This process's labels, (N, ).

        Returns:
            Tensor: Rows of the corpus's token table, (N, ), on the CPU.

        Raises:
            InputError: The texts are not known yet, or a label is no class.
        """
        if self.table is None:
            raise not_told('CVLP', "the classes' texts", 'call set_class_info()')
        labels = labels.cpu()
        if len(labels) and int(labels.min()) < 0:
            raise InputError(
                f'There is a label {int(labels.min())}: a picture without a class has no text to be paired with; leave '
                'it out of the train list.'
            )
        if len(labels) and int(labels.max()) >= len(self.table.counts):
            raise InputError(f'There is a label {int(labels.max())}, but {len(self.table.counts)} classes have texts.')
        rank, world_size = get_dist_info()
        draws = np.random.default_rng([self.seed, self._steps.read(self.steps)]).random(world_size * len(labels))
        draws = torch.from_numpy(draws[rank::world_size])  # the k-th sample of rank r is sample k W + r of the batch
        return self.table.offsets[labels] + (draws * self.table.counts[labels]).long()

    def forward(self, inputs: Tensor, data_samples: list[DataSample] | None = None, mode: str = 'tensor'):
        """See :class:`ContrastivePretrainer`."""
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        return super().forward(inputs, data_samples, mode)

    def loss(self, inputs: Tensor, data_samples: list[DataSample]) -> dict:
        """Loss of one batch.

        Args:
            inputs (Tensor): Images of shape (N, 3, H, W).
            data_samples (list[DataSample]): With ``gt_label``.

        Returns:
            dict[str, Tensor]: ``loss_ccl``, ``loss_distill`` and
            ``logit_scale`` for the log.
        """
        labels = torch.cat([s.gt_label for s in data_samples]).to(inputs.device)
        rows = self.draw_sentences(host_labels(data_samples))
        self._steps.advance(self.steps)
        image = F.normalize(self.backbone(inputs)[-1], dim=-1)
        text = F.normalize(self.text(self.table.tokens[rows]), dim=-1)
        logit_scale = self.text.logit_scale
        losses = dict(loss_ccl=self.loss_ratio * self.loss_module(image, text, labels, logit_scale))
        if self.teacher is not None:
            if self.teacher.sentences is None:
                self.teacher.encode_corpus(self.table, inputs.device)
            losses['loss_distill'] = (1 - self.loss_ratio) * self.distill_loss(
                image,
                text,
                self.teacher.encode(inputs),
                to_device(self.teacher.sentences[rows], inputs.device),
                logit_scale,
                self._teacher_logit_scale(logit_scale),
            )
        return dict(**losses, logit_scale=logit_scale.detach())

    def _teacher_logit_scale(self, shared: Tensor) -> Tensor | float:
        if isinstance(self.teacher_temperature, str):
            return shared if self.teacher_temperature == 'shared' else self.teacher.text.logit_scale
        return 1 / self.teacher_temperature
