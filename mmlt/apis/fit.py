"""One call from pictures to a trained classifier."""

from __future__ import annotations

import csv
import io
import os
import os.path as osp
from collections.abc import Sequence
from dataclasses import fields
from io import StringIO
from pathlib import Path

import numpy as np
from mmengine.config import Config
from PIL import Image
from rich.console import Console

from mmlt.apis.exporting import ExportOptions, export_model
from mmlt.apis.inference import inference
from mmlt.apis.models import get_model
from mmlt.checkpoints import write_text
from mmlt.engine.configs import CONFIGS
from mmlt.engine.stages import RunRecord
from mmlt.engine.testing import TestOptions, test
from mmlt.engine.training import TrainOptions, train
from mmlt.errors import InputError
from mmlt.preparation.prepare import PrepareOptions, prepare
from mmlt.visualization import named_runs, print_table, read_report
from mmlt.visualization.html_report import collect_runs, write_page

METHODS = ('lift', 'vlltr', 'ballad', 'ce', 'zeroshot')


class Run:
    """A trained classifier in its folder; its repr is the many / medium / few table.

    Args:
        folder (str | os.PathLike): The folder that :func:`fit` or a training
            left.

    Raises:
        InputError: Nothing was trained there, or it is not finished.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = osp.abspath(folder)
        configs = sorted(Path(self.folder).glob('*.py'))
        if len(configs) != 1:
            what = 'no config' if not configs else f'{len(configs)} configs ({", ".join(c.name for c in configs)})'
            raise InputError(
                f"'{folder}' has {what}, where a training leaves one: give the folder of a run (out=, --work-dir)."
            )
        self.config = str(configs[0])
        record = RunRecord(self.folder)
        trained = Config.fromfile(self.config).get('train_cfg') is not None
        if trained and record.read() is None:
            raise InputError(
                f"'{folder}' has no run.json, so it is of no training, perhaps of a test: give a training's."
            )
        if trained and not record.finished:
            raise InputError(f"The training in '{folder}' is not finished: the call or command that began it goes on.")
        self.checkpoint = record.result if trained else None
        self._model = None

    @property
    def model(self):
        """The classifier, in eval mode, read once."""
        if self._model is None:
            self._model = get_model(self.config, self.checkpoint)
        return self._model

    def predict(
        self, images: str | os.PathLike | np.ndarray | Image.Image | Sequence, top: int = 5, explain: int = 0
    ) -> list[dict]:
        """Classify pictures, see :func:`mmlt.apis.inference`."""
        return inference(self.model, images, top, explain)

    def test(self, tta: bool = False, cfg_options: dict | None = None) -> dict:
        """Test again; the report of the training stays where nothing else is asked for.

        Args:
            tta (bool): Test-time augmentation, into the folder ``tta``.
                Defaults to False.
            cfg_options (dict, optional): Changes of the config.
                Defaults to None.

        Returns:
            dict: Figures by name.
        """
        folder = osp.join(self.folder, 'tta') if tta else osp.join(self.folder, 'test')
        return test(TestOptions(self.config, folder, checkpoint=self.checkpoint, tta=tta, cfg_options=cfg_options))

    def report(self, out: str | os.PathLike | None = None) -> str:
        """Write the page about this run (``mmlt report``).

        Args:
            out (str | os.PathLike, optional): The file. Defaults to None,
                ``report.html`` in the folder.

        Returns:
            str: Its path.
        """
        path = osp.join(self.folder, 'report.html') if out is None else os.fspath(out)
        groups = named_runs([self.folder])
        write_page(collect_runs(groups), groups, path)
        return path

    def export(self, out: str | os.PathLike | None = None, format: str = 'onnx', **options) -> str:
        """Write the classifier as one file (``mmlt export``).

        Args:
            out (str | os.PathLike, optional): The file. Defaults to None,
                ``model.<suffix>`` in the folder.
            format (str): 'onnx', 'torch-export' or 'torchscript'.
                Defaults to 'onnx'.
            **options: See :class:`ExportOptions`.

        Returns:
            str: Its path.
        """
        suffix = {'onnx': 'onnx', 'torchscript': 'pt'}.get(format, 'pt2')
        path = osp.join(self.folder, f'model.{suffix}') if out is None else os.fspath(out)
        export_model(ExportOptions(self.config, path, self.checkpoint, format=format, **options))
        return path

    def __repr__(self) -> str:
        if not osp.isfile(osp.join(self.folder, 'shot_report.json')):
            return f'Run({self.folder!r}), not tested'
        console = Console(file=(text := StringIO()), width=120)
        print_table(read_report(self.folder), osp.basename(self.folder), console)
        return text.getvalue().rstrip()


def load(folder: str | os.PathLike) -> Run:
    """A run that was trained before.

    Args:
        folder (str | os.PathLike): Where :func:`fit`, or ``mmlt train``, left
            it.

    Returns:
        Run: See there.

    Raises:
        InputError: There is none.
    """
    return Run(folder)


def fit(
    source,
    method: str = 'lift',
    out: str | os.PathLike = 'runs/mine',
    *,
    seed: int = 0,
    amp: bool = False,
    cfg_options: dict | None = None,
    **options,
) -> Run:
    """Train a classifier on pictures of one's own, and test it.

    The same as ``mmlt prepare`` and ``mmlt train``: a seeded split, a config,
    all stages of the method, a table at the end. Called again it goes on where
    it was stopped, and trains nothing that is finished.

    Args:
        source (str | os.PathLike | Sequence[tuple] | DataFrame): A folder with
            a folder of pictures for every class, a table or list in a file, a
            DataFrame with the columns ``image`` and ``label``, or a sequence
            of such pairs.
        method (str): 'lift', 'vlltr' (class texts help, ``texts=...``),
            'ballad', 'ce' or 'zeroshot'. Defaults to 'lift'.
        out (str | os.PathLike): Folder of the run. Defaults to 'runs/mine'.
        seed (int): Of split and training. Defaults to 0.
        amp (bool): Automatic mixed precision. Defaults to False.
        cfg_options (dict, optional): Changes of the config, as
            ``{'train_cfg.max_epochs': 5}``. Defaults to None.
        **options: Those of ``mmlt prepare`` with underscores: ``model``,
            ``pretrained`` (None: random weights), ``epochs``, ``batch_size``,
            ``class_names``, ``texts``, ``test_per_class``, ``no_flip``, ...

    Returns:
        Run: With ``predict``, ``test``, ``report`` and ``export``.

    Raises:
        InputError: No such method or option; something is wrong with the
            pictures, the model or the folder.
    """
    if method not in METHODS:
        raise InputError(f"There is no method '{method}'; choose one of {', '.join(METHODS)}.")
    known = {f.name for f in fields(PrepareOptions)} - {'source', 'out', 'base', 'overwrite', 'seed'}
    if unknown := sorted(set(options) - known):
        raise InputError(f"fit has no option '{unknown[0]}'; it takes {', '.join(sorted(known))}.")
    if options.get('pretrained', '') is None:
        options['pretrained'] = 'none'
    folder = osp.abspath(out)
    name = options.pop('name', None) or osp.basename(folder)
    data = osp.join(folder, 'data')
    path, root = _as_file(source, data)
    asked = PrepareOptions([path], data, str(CONFIGS / '_base_'), name, seed=seed, overwrite=True, **options)
    asked.root = asked.root or root
    configs = {osp.splitext(osp.basename(p))[0]: p for p in prepare(asked, 'mmlt.fit')}
    earlier = ('_cvlp', '_phase-a')  # stages, which the last one's config names
    own = [p for key, p in configs.items() if key.startswith(f'{method}_') and not key.endswith(earlier)]
    if not own:
        raise InputError(f"There is no config of '{method}' for these pictures and this model; see what is said above.")
    changes = {'randomness.seed': seed, **(cfg_options or {})}
    train(TrainOptions(own[0], work_dir=folder, amp=amp, cfg_options=changes))
    return Run(folder)


def _as_file(source, folder: str) -> tuple[str, str | None]:
    """What ``mmlt prepare`` reads, and what its paths are relative to."""
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source), None
    if hasattr(source, 'columns') and hasattr(source, 'itertuples'):  # a DataFrame, of pandas or alike
        columns = {str(c).lower(): c for c in source.columns}
        if missing := [c for c in ('image', 'label') if c not in columns]:
            raise InputError(f"The DataFrame has no column '{missing[0]}': it needs image and label.")
        pairs = zip(source[columns['image']], source[columns['label']])
    else:
        pairs = source
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(['image', 'label'])
    for i, pair in enumerate(pairs):
        if isinstance(pair, (str, bytes)) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise InputError(f'Entry {i} of the source is {pair!r:.80}: give pairs of a file and its class.')
        writer.writerow([osp.abspath(os.fspath(pair[0])), pair[1]])
    path = osp.join(osp.dirname(folder), 'source.csv')
    os.makedirs(osp.dirname(path), exist_ok=True)
    write_text(path, text.getvalue())
    return path, os.getcwd()
