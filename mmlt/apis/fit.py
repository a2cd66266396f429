"""One call from pictures to a trained classifier."""

from __future__ import annotations

import csv
import io
import os
import os.path as osp
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from io import StringIO
from numbers import Number
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from mmengine.config import Config
from PIL import Image
from rich.console import Console

from mmlt.apis.calls import as_in_python, checked_arguments, checked_type, python_call
from mmlt.apis.exporting import ExportOptions, export_model
from mmlt.apis.inference import inference
from mmlt.apis.models import get_model
from mmlt.checkpoints import write_text
from mmlt.datasets.pictures import listing
from mmlt.engine.configs import CONFIGS
from mmlt.engine.stages import RunRecord
from mmlt.engine.testing import TestOptions, test
from mmlt.engine.training import TrainOptions, decide, planned, train
from mmlt.errors import InputError
from mmlt.preparation.prepare import PrepareOptions, prepare
from mmlt.preparation.starter_configs import Settings, left_out, starter_configs, written_digest
from mmlt.visualization import named_runs, print_table, read_report
from mmlt.visualization.html_report import collect_runs, write_page

_COMMAND = 'mmlt.fit'  # which the configs name
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
        self.folder = osp.abspath(checked_type('folder', folder, str))
        configs = sorted(Path(self.folder).glob('*.py'))
        if len(configs) != 1:
            what = 'no config' if not configs else f'{len(configs)} configs ({", ".join(c.name for c in configs)})'
            raise InputError(
                f"'{folder}' has {what}, where a training leaves one: give the folder of a run (out=, --work-dir)."
            )
        self.config = str(configs[0])
        record = RunRecord(self.folder)
        cfg = Config.fromfile(self.config)
        trained = cfg.get('train_cfg') is not None
        if trained and record.read() is None:
            raise InputError(
                f"'{folder}' has no run.json, so it is of no training, perhaps of a test: give a training's."
            )
        if trained and not record.finished:
            raise InputError(f"The training in '{folder}' is not finished: the call or command that began it goes on.")
        self.checkpoint = record.result if trained else None
        self._model = None
        self._moved = dict(_moved(cfg, cfg.get('work_dir') or self.folder, self.folder))

    @property
    def model(self):
        """The classifier, in eval mode, read once."""
        if self._model is None:
            self._model = get_model(self.config, self.checkpoint, cfg_options=self._moved)
        return self._model

    def predict(
        self, images: str | os.PathLike | np.ndarray | Image.Image | Sequence, top: int = 5, explain: int = 0
    ) -> list[dict]:
        """Classify pictures, see :func:`mmlt.apis.inference`."""
        top, explain = checked_type('top', top, int), checked_type('explain', explain, int)
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

        Raises:
            InputError: The lists of pictures are not those that were trained
                on.
        """
        cfg_options = checked_type('cfg_options', cfg_options, dict | None) or {}
        options = {**self._moved, **cfg_options}
        if not any(key.startswith('test_dataloader.dataset') for key in cfg_options):
            self._check_lists()
        folder = osp.join(self.folder, 'tta') if tta else osp.join(self.folder, 'test')
        with python_call():
            return test(TestOptions(self.config, folder, checkpoint=self.checkpoint, tta=tta, cfg_options=options))

    def _check_lists(self) -> None:
        """A new split may have trained pictures in its test."""
        cfg = Config.fromfile(self.config)
        cfg.merge_from_dict(self._moved)
        root = cfg.test_dataloader.dataset.get('data_root')
        if (trained := cfg.get('split_digest')) and root and (now := written_digest(Path(root))) != trained:
            what = 'other lists of pictures are there now' if now else 'they are gone'
            raise InputError(
                f"'{self.folder}' was trained on lists of pictures in '{root}', but {what}: write them again by the "
                "call or command that wrote them, or name others by cfg_options={'test_dataloader.dataset.data_root': "
                '...}.'
            )

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
        options = checked_arguments('export', ExportOptions, options, ('config', 'out', 'checkpoint', 'format'))
        options['cfg_options'] = {**self._moved, **(options.get('cfg_options') or {})}
        suffix = {'onnx': 'onnx', 'torchscript': 'pt'}.get(format, 'pt2')
        path = osp.join(self.folder, f'model.{suffix}') if out is None else os.fspath(out)
        with python_call():
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


def _moved(value, old: str, new: str, key: str = '') -> Iterable[tuple[str, str]]:
    """Changes of a config by which its paths below the folder it was written in are those below another."""
    if isinstance(value, str) and value.startswith(f'{old.rstrip("/")}/'):
        path = osp.join(new, osp.relpath(value, old))
        if path != value and osp.exists(path):
            yield key, path
    items = value.items() if isinstance(value, (dict, Config)) else enumerate(value) if isinstance(value, list) else ()
    for name, below in items:
        if not (isinstance(name, str) and '.' in name):  # no key of a change could name it
            yield from _moved(below, old, new, f'{key}.{name}' if key else str(name))


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
    options = checked_arguments('fit', PrepareOptions, options, ('source', 'out', 'base', 'overwrite', 'seed'))
    if options.get('pretrained', '') is None:
        options['pretrained'] = 'none'
    folder, seed = osp.abspath(checked_type('out', out, str)), checked_type('seed', seed, int)
    amp, cfg_options = checked_type('amp', amp, bool), checked_type('cfg_options', cfg_options, dict | None)
    changes = {'randomness.seed': seed, **(cfg_options or {})}

    def training(config: str) -> TrainOptions:
        return TrainOptions(config, work_dir=folder, amp=amp, cfg_options=deepcopy(changes))

    with python_call():
        train(training(_prepare(source, method, folder, seed, options, training)))
    return Run(folder)


def _prepare(
    source, method: str, folder: str, seed: int, options: dict, training: Callable[[str], TrainOptions]
) -> str:
    """Write lists and configs, unless another training is there; return the path of the method's config."""
    _check_folder(folder)
    name = options.pop('name', None) or osp.basename(folder)
    data = osp.join(folder, 'data')

    def check(settings: Settings) -> None:
        if why := left_out(settings.tower).get(method):
            others = [other for other in METHODS if other not in left_out(settings.tower)]
            raise InputError(f'{why} Change model or pretrained, or choose another method: {", ".join(others)}.')
        records = [RunRecord(p) for p in (folder, *(str(path.parent) for path in Path(folder).glob('*/run.json')))]
        for record in (record for record in records if record.started):
            before = record.read()['config'].get('split_digest')
            if before not in (None, settings.split_digest):
                raise InputError(
                    f"'{record.work_dir}' holds a training on another split or other pictures, whose lists stay as "
                    'they are: give the seed, options and pictures of that one to go on with it, or another --out.'
                )
        configs = starter_configs(settings, _COMMAND)
        if any(record.started for record in records):
            _check_options(configs, method, data, training)
        _check_config(folder, _config_of(method, configs))

    with TemporaryDirectory() as aside:
        table = None if isinstance(source, (str, os.PathLike)) else _as_table(source)
        path = os.fspath(source) if table is None else osp.join(aside, 'source.csv')
        if table is not None:
            write_text(path, table)
        asked = PrepareOptions([path], data, str(CONFIGS / '_base_'), name, seed=seed, overwrite=True, **options)
        asked.root = asked.root or (None if table is None else os.getcwd())
        try:
            paths = prepare(asked, _COMMAND, check, lambda note: print(as_in_python(note)))
        except InputError as e:
            raise InputError(str(e).replace(f"'{path}'", 'The source') if table is not None else str(e)) from e
    if table is not None:
        write_text(osp.join(folder, 'source.csv'), table)
    return _config_of(method, paths)


def _check_options(configs: dict[str, str], method: str, data: str, training: Callable[[str], TrainOptions]) -> None:
    """Let the training that a folder holds refuse other options before its configs are written over."""
    with TemporaryDirectory() as aside:
        for file, text in configs.items():  # as they are read from where they go
            write_text(osp.join(aside, file), text.replace('{{ fileDirname }}', Path(data).as_posix()))
        args = training(osp.join(aside, _config_of(method, configs)))
        try:
            decide(planned(args), args)
        except InputError as e:
            raise InputError(str(e).replace(aside, data)) from e


def _check_config(folder: str, own: str) -> None:
    """One run a folder: a zero-shot test would take the place of a training's report, and neither be loaded."""
    if other := next((path.name for path in sorted(Path(folder).glob('*.py')) if path.name != own), None):
        raise InputError(f"'{folder}' holds '{other}', and would hold '{own}' of another run: give another --out.")


def _config_of(method: str, files: Iterable[str]) -> str:
    earlier = ('_cvlp.py', '_phase-a.py')  # stages, which the last one's config names
    return next(f for f in files if osp.basename(f).startswith(f'{method}_') and not f.endswith(earlier))


def _check_folder(folder: str) -> None:
    above = folder
    while not osp.exists(above):
        above = osp.dirname(above)
    if not osp.isdir(above) or not os.access(above, os.W_OK):
        raise InputError(f"--out '{folder}' cannot be made: '{above}' is no folder that you may write in.")


def _is_missing(value) -> bool:
    """Whether it is None, NaN or pandas' NA, which is not equal to anything, nor unequal."""
    try:
        return value is None or value == '' or bool(value != value)
    except (TypeError, ValueError):
        return True


def _as_table(source) -> str:
    """A DataFrame or pairs as the text of a table that ``mmlt prepare`` reads."""
    if hasattr(source, 'columns') and hasattr(source, 'itertuples'):  # a DataFrame, of pandas or alike
        columns = {str(c).lower(): c for c in source.columns}
        if missing := [c for c in ('image', 'label') if c not in columns]:
            raise InputError(f"The DataFrame has no column '{missing[0]}': it needs image and label.")
        pairs = list(zip(source[columns['image']], source[columns['label']]))
    elif isinstance(source, Iterable) and not isinstance(source, (bytes, dict)):
        pairs = list(source)
    else:
        raise InputError(f'The source is {source!r:.60}: give a folder, a file, a DataFrame, or pairs of these texts.')
    if not pairs:
        raise InputError('The source is empty: give pairs of a file and its class.')
    for i, pair in enumerate(pairs):
        _check_pair(i, pair)
    if missing := [str(i) for i, pair in enumerate(pairs) if any(map(_is_missing, pair))]:
        raise InputError(
            f'{len(missing):,} of the {len(pairs):,} entries of the source, counted from 0, have no picture or no '
            f'label, {listing(missing)}: fill them in, or leave them out.'
        )
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(['image', 'label'])
    writer.writerows([osp.abspath(os.fspath(image)), label] for image, label in pairs)
    return text.getvalue()


def _check_pair(i: int, pair) -> None:
    if isinstance(pair, (str, bytes)) or not isinstance(pair, Sequence) or len(pair) != 2:
        raise InputError(f'Entry {i} of the source is {pair!r:.80}: give pairs of a file and its class.')
    for what, value, kinds in (('picture', pair[0], (str, os.PathLike)), ('label', pair[1], (str, Number))):
        if not isinstance(value, kinds) and not _is_missing(value):
            wanted = 'the path of its file' if what == 'picture' else 'a name or number'
            raise InputError(f'Entry {i} of the source has a {type(value).__name__} as {what}: give {wanted}.')
