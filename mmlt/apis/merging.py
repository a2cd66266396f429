"""Merged models that are chosen on a validation set, and the checkpoint that they become."""

from __future__ import annotations

import os
import os.path as osp
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from mmengine.config import Config, ConfigDict
from mmengine.hooks import CheckpointHook, EMAHook, LoggerHook
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from mmpretrain.engine import VisualizationHook
from torch import Tensor

from mmlt.checkpoints import read_checkpoint, whole_file
from mmlt.checkpoints.comparison import checkpoint_classes, plain
from mmlt.checkpoints.merging import Merged, State, interpolate
from mmlt.checkpoints.publish import plain_config, publish_checkpoint
from mmlt.checkpoints.read import check_is_file
from mmlt.checkpoints.weights import fit_state, load_state
from mmlt.engine.arguments import check_arguments
from mmlt.engine.batch_norm import measure_statistics, statistics
from mmlt.engine.build_errors import explained
from mmlt.engine.configs import read_config
from mmlt.engine.hooks import PredictionPicturesHook, ShotReportHook
from mmlt.engine.testing import TESTED
from mmlt.errors import InputError
from mmlt.evaluation import ShotAccuracy, ShotMAP
from mmlt.evaluation.functional import SHOTS
from mmlt.evaluation.meanings import LESS_IS_BETTER, meanings
from mmlt.utils import unwrap
from mmlt.utils.classes import check_same_classes

# These would look on at every candidate, or put averaged weights in its place.
_LEFT_OUT = (CheckpointHook, EMAHook, LoggerHook, PredictionPicturesHook, ShotReportHook, VisualizationHook)


class Validation:
    """Tests weights on the validation set of a config, in this process.

    Args:
        config (str): A config file; of one with :class:`mmlt.MORE` the plain
            model is taken.
        work_dir (str): Where the log goes.
        options (dict, optional): Changes, as by ``--cfg-options``.
            Defaults to None.
        on_test (bool): Take the test set. What is chosen on it is no estimate
            any more. Defaults to False.
        bn_images (int): On how many training images the statistics of
            BatchNorm are measured before every test, see :meth:`measure`.
            Defaults to 0, they are as the weights have them.

    Raises:
        InputError: The config has no validation set beside its test set, or no
            shot metric; see :func:`read_config`.
    """

    def __init__(
        self, config: str, work_dir: str, options: dict | None = None, on_test: bool = False, bn_images: int = 0
    ):
        cfg = plain_config(read_config(config, options))
        part = 'test' if on_test else validation_part(cfg, config)
        cfg.test_dataloader = ConfigDict(collate_fn=dict(type='default_collate'), **cfg[f'{part}_dataloader'])
        cfg.test_evaluator = cfg.get(f'{part}_evaluator') or cfg.get('test_evaluator')
        cfg.test_cfg = cfg.get('test_cfg') or dict()
        cfg.work_dir, cfg.launcher = work_dir, 'none'
        cfg.load_from, cfg.resume = 'merged weights', False  # no stage's checkpoint is asked for; see `report`
        check_arguments(cfg, keys=(*TESTED, 'train_dataloader') if bn_images else TESTED)
        if bn_images and cfg.get('train_dataloader') is None:
            raise InputError(f"'{config}' has no train_dataloader, on whose images BatchNorm could be measured.")
        self.where, self.config = 'the TEST set' if on_test else 'validation', config
        with explained(cfg):
            self.runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
            self.runner._hooks = [hook for hook in self.runner.hooks if not isinstance(hook, _LEFT_OUT)]
            metrics = self.runner.test_evaluator.metrics
        self.metric = next((m for m in metrics if isinstance(m, (ShotAccuracy, ShotMAP))), None)
        if self.metric is None:
            raise InputError(
                f"'{config}' has no shot metric, by which to choose: give val_evaluator=[dict(type="
                "'mmlt.ShotAccuracy')]."
            )
        self.runner._has_loaded = True
        self.runner.call_hook('before_run')
        self.model, self.whose = unwrap(self.runner.model), f"the model of '{config}'"
        self.bn_images, self._train_loader = bn_images, None
        self._measured: tuple[str, ...] = ()  # BatchNorm layers

    def check(self, contents: Mapping[str, dict]) -> None:
        """Refuse checkpoints of other classes than the data's, or of another model, before the first is tested.

        Args:
            contents (Mapping[str, dict]): By name, see :func:`read_weights`.

        Raises:
            InputError: They differ.
        """
        meta = getattr(self.runner.test_dataloader.dataset, 'metainfo', None) or {}
        lists = {f"'{name}'": checkpoint_classes(content) for name, content in contents.items()}
        check_same_classes({**lists, f"the data of '{self.config}'": meta.get('classes')})
        for name, content in contents.items():
            fit_state(self.model, content['state_dict']).require('use', name, self.whose)

    def check_figure(self, figure: str) -> None:
        """Refuse a figure that the shot metric does not have, before the first test.

        Args:
            figure (str): By which to choose.

        Raises:
            InputError: There is none of this name.
        """
        _require_figure(figure, meanings(self.metric.protocol, self.metric.measure))

    def pretrained(self) -> dict[str, Tensor]:
        """The model as the config begins: pretrained towers, class vectors from texts."""
        with explained(self.runner.cfg):
            self.runner._init_model_weights()
        return {key: value.detach().cpu().clone() for key, value in self.model.state_dict().items()}

    def report(self, state: State, name: str) -> dict:
        """Test weights.

        Args:
            state (State): Of the whole model.
            name (str): Whose they are, for sentences.

        Returns:
            dict: :attr:`ShotAccuracy.report`.

        Raises:
            InputError: They are of another model.
        """
        self._load(state, name)
        self.runner.test_loop.run()
        return self.metric.report

    def _load(self, state: State, name: str) -> None:
        load_state(self.model, state, name, of=self.whose)
        self.model.train()  # what is kept of the texts of other weights is forgotten
        if self._measured:
            measure_statistics(self.model, self._train_loader, self._measured, self.bn_images)

    def measure(self, layers: Sequence[str]) -> None:
        """From now on, measure these BatchNorm layers' statistics anew for all weights that are tested.

        They are measured of single models as of merged ones, so that figures
        are compared that came about in one way.

        Args:
            layers (Sequence[str]): See :func:`averaged_statistics`.
        """
        self._measured = tuple(layers)
        if self._train_loader is None and layers:
            with explained(self.runner.cfg):
                self._train_loader = self.runner.build_dataloader(self.runner.cfg.train_dataloader, seed=0)

    def measured(self, merged: Merged) -> Merged:
        """A merged model with statistics that were measured for it.

        Args:
            merged (Merged): The model.

        Returns:
            Merged: The same, with those of :meth:`measure`.
        """
        if not self._measured:
            return merged
        self._load(merged.state, 'the merged model')
        new = statistics(self.model.state_dict(), self._measured)
        state = {key: new[key].to(value.dtype) if key in new else value for key, value in merged.state.items()}
        return replace(merged, state=state, averaged_statistics=[])


def validation_part(cfg: Config, config: str) -> str:
    """Where a config has its validation set.

    Args:
        cfg (Config): The config.
        config (str): Its name.

    Returns:
        str: 'val'.

    Raises:
        InputError: There is none, or it is the test set.
    """
    loaders = [cfg.get(f'{part}_dataloader') for part in ('val', 'test')]
    val, test = ({k: v for k, v in plain(loader['dataset']).items() if k != 'pipeline'} if loader else None
                 for loader in loaders)  # fmt: skip
    if val is None or val == test:
        why = 'has no validation set' if val is None else 'validates on its test set'
        raise InputError(
            f"'{config}' {why}, and nothing is chosen on a test: give it one, for example by --cfg-options "
            'val_dataloader.dataset.ann_file=..., or say --on-test, which the result tells.'
        )
    return 'val'


@dataclass
class Sweep:
    """Interpolations with the zero-shot model.

    Args:
        alphas (list[float]): Shares of the fine-tuned model, ascending.
        reports (list[dict]): One each.
        chosen (int): Place of the best, the first of equal ones.
        merged (Merged): The best.
    """

    alphas: list[float]
    reports: list[dict]
    chosen: int
    merged: Merged

    def figures(self) -> dict[str, list[float]]:
        """Figures for a picture, by 'many', 'medium', 'few' and 'all', of those that there are."""
        return {
            name: [report['metrics'][name] for report in self.reports]
            for name in (*SHOTS, 'all')
            if all(name in report['metrics'] for report in self.reports)
        }


def sweep(
    zero_shot: State,
    tuned: State,
    alphas: Sequence[float],
    test: Callable[[State, str], dict],
    figure: str = 'all',
    names: tuple[str, str] = ('zero-shot', 'fine-tuned'),
) -> Sweep:
    """WiSE-FT (Wortsman et al. 2022, section 3): test the models between two, and take the best.

    Args:
        zero_shot (State): alpha = 0.
        tuned (State): alpha = 1.
        alphas (Sequence[float]): Ascending, from 0 to 1.
        test (Callable): Takes weights and a name and gives a report; see
            :meth:`Validation.report`.
        figure (str): Which decides. Defaults to 'all'.
        names (tuple[str, str]): Of both. Defaults to what they are.

    Returns:
        Sweep: See there.

    Raises:
        InputError: Models of different architectures; no such figure.
    """
    reports, scores = [], []
    for alpha in alphas:
        merged = interpolate(zero_shot, tuned, alpha, names)
        reports.append(test(merged.state, f'alpha {alpha:g}'))
        scores.append(sign_of(figure) * figure_of(reports[-1], figure))
    chosen = max(range(len(scores)), key=scores.__getitem__)
    return Sweep(list(alphas), reports, chosen, interpolate(zero_shot, tuned, alphas[chosen], names))


def sign_of(figure: str) -> int:
    """1 where more of a figure is better, -1 where less is, as of a calibration error."""
    return -1 if figure in LESS_IS_BETTER else 1


def figure_of(report: dict, figure: str) -> float:
    """A figure of a report.

    Raises:
        InputError: It has none of this name; names those that there are.
    """
    _require_figure(figure, report['metrics'])
    return report['metrics'][figure]


def _require_figure(figure: str, known: Iterable[str]) -> None:
    if figure not in known:
        raise InputError(f"There is no figure '{figure}' to choose by; there are {', '.join(known)}.")


def read_weights(path: str) -> dict:
    """Weights and meta of a checkpoint, without its optimizer.

    Args:
        path (str): The file.

    Returns:
        dict: ``meta`` and ``state_dict``, low-rank parts merged.

    Raises:
        InputError: See :func:`read_checkpoint` and :func:`publish_checkpoint`.
    """
    content = read_checkpoint(path)
    try:
        return publish_checkpoint({key: content[key] for key in ('meta', 'state_dict') if key in content})
    except InputError as e:
        raise InputError(f"'{path}': {e}") from e


def write_merged(path: str | os.PathLike, merged: Merged, meta: dict, how: dict) -> None:
    """Write a merged model as a checkpoint, whole or not at all.

    Args:
        path (str | PathLike): Where.
        merged (Merged): The model.
        meta (dict): Of the first checkpoint; its config and classes are kept,
            what it says of its training is not.
        how (dict): What to note beside the shares: numbers, texts.
    """
    kept = {key: meta[key] for key in ('cfg', 'dataset_meta', 'mmengine_version') if key in meta}
    kept['merged'] = {'weights': {name: float(share) for name, share in merged.weights.items()}, **how}
    with whole_file(path) as part:
        torch.save(dict(meta=kept, state_dict=merged.state), part)


def check_paths(inputs: Sequence[str], out: str) -> None:
    """Refuse inputs that are not there or come twice, and an output that is one of them or no .pth.

    Raises:
        InputError: See above.
    """
    if not out.endswith(('.pth', '.pt')):
        raise InputError(f"--out is '{out}': the merged model is a checkpoint, give a name that ends with .pth.")
    seen = set()
    for path in inputs:
        check_is_file(path)
        if (real := osp.realpath(path)) in seen:
            raise InputError(f"'{path}' is given twice: give it a larger share with --weights.")
        if real == osp.realpath(out):
            raise InputError(f"The merged model would overwrite '{path}': give another --out.")
        seen.add(real)
