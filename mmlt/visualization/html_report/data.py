"""Everything that a page says of a run, collected from its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mmlt.errors import InputError
from mmlt.evaluation import PREDICTIONS, Predictions, expected_calibration_error
from mmlt.evaluation.functional import SHOTS, per_class_accuracy
from mmlt.visualization.html_report import facts, numbers
from mmlt.visualization.html_report.pictures import RunPictures
from mmlt.visualization.losses import LossCurves, figure_curves, loss_curves, read_log
from mmlt.visualization.runs import read_report


@dataclass
class RunData:
    """A run, in plain values.

    Args:
        name (str): What it is called.
        folder (str): Where it lies.
        report (dict): :attr:`ShotAccuracy.report` or :attr:`ShotMAP.report`.
        classes (list[dict]): Of every class ``name``, ``shot``,
            ``train_images``, ``figure`` (accuracy or average precision); and
            None where predictions are missing: ``test_images``, ``mistake``
            (class, pictures), ``confidence``.
        bins (list[dict]): See :func:`numbers.calibration`. Defaults to [].
        ece (float, optional): Expected calibration error. Defaults to None.
        confusion (dict, optional): See :func:`numbers.shot_confusion`.
            Defaults to None.
        worst (list[dict]): Of the worst classes the number ``index``,
            ``taken_for`` (classes and pictures), ``pictures`` (``image``,
            ``taken_for``, ``confidence``) and ``sentences``. Defaults to [].
        losses (LossCurves, optional): Defaults to None.
        figures (dict): Names and points of figures of the validations.
            Defaults to {}.
        recipe (dict[str, str]): Defaults to {}.
        versions (dict[str, str]): Defaults to {}.
        notes (list[str]): What is missing, and why. Defaults to [].
    """

    name: str
    folder: str
    report: dict
    classes: list[dict]
    bins: list[dict] = field(default_factory=list)
    ece: float | None = None
    confusion: dict | None = None
    worst: list[dict] = field(default_factory=list)
    losses: LossCurves | None = None
    figures: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    recipe: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def measure(self) -> str:
        """'accuracy' or 'ap'."""
        return self.report.get('measure', 'accuracy')


def collect_runs(groups: Mapping[str, Sequence[str]], worst: int = 12, pictures: int = 4) -> list[RunData]:
    """Collect runs by name.

    Args:
        groups (Mapping[str, Sequence[str]]): See :func:`named_runs`; of
            several seeds every one is a run of its own.
        worst (int): Classes that are shown with pictures. Defaults to 12.
        pictures (int): Pictures of each of them. Defaults to 4.

    Returns:
        list[RunData]: In the order given.

    Raises:
        InputError: See :func:`collect_run`.
    """
    runs = []
    for name, folders in groups.items():
        for i, folder in enumerate(folders):
            own = name if len(folders) == 1 else f'{name} ({i + 1})'
            runs.append(collect_run(own, folder, worst, pictures))
    return runs


def collect_run(name: str, path: str | Path, worst: int = 12, pictures: int = 4) -> RunData:
    """Collect one run.

    Args:
        name (str): What to call it.
        path (str | Path): Work directory with ``shot_report.json``, or that
            file.
        worst (int): Classes that are shown with pictures. Defaults to 12.
        pictures (int): Pictures of each of them. Defaults to 4.

    Returns:
        RunData: What is missing stands in its notes.

    Raises:
        InputError: No report, or a damaged one; predictions of another test.
    """
    report = read_report(path)
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    run = RunData(name, str(folder), report, _classes(report, path))
    found = _predictions(folder, run)
    images = None
    if found is not None:
        images = numbers.test_images(found, len(run.classes))
        _add_predictions(run, found, images)
    cfg = _config(folder, run)
    chosen = numbers.worst_classes([c['figure'] for c in run.classes], images, worst)
    _add_worst(run, chosen, found, RunPictures(found, cfg, folder) if found is not None else None, pictures)
    _add_log(run, folder)
    if cfg is not None:
        _add_sentences(run, cfg, folder)
        run.recipe, told = facts.recipe_of(cfg, sum(c['train_images'] for c in run.classes))
        run.notes += [told] if told else []
    run.versions = facts.logged_versions(folder)
    if not run.versions:
        run.notes.append('Versions are not known: the folder holds no log (<time>/<time>.log).')
    return run


def _classes(report: dict, path: str | Path) -> list[dict]:
    measure = report.get('measure', 'accuracy')
    missing = dict(test_images=None, mistake=None, confidence=None)
    try:
        return [
            dict(name=c['class'], shot=SHOTS[SHOTS.index(c['shot'])], train_images=int(c['train_images']), **missing)
            | dict(figure=float(c[measure]) if c[measure] is not None and np.isfinite(c[measure]) else None)
            for c in report['per_class']
        ]
    except (KeyError, TypeError, ValueError) as e:
        raise InputError(
            f"The classes in the report of '{path}' cannot be read ({type(e).__name__}: {facts.one_line(e)}): test the "
            'run again with mmlt test.'
        ) from e


def _predictions(folder: Path, run: RunData) -> Predictions | None:
    """Predictions that belong to the report; None, and a note, where there are none."""
    if run.measure != 'accuracy':
        run.notes.append('Mistakes, calibration and confusion are not told of pictures with several labels.')
        return None
    file = folder / PREDICTIONS
    if not file.is_file():
        run.notes.append(
            f'Mistakes, pictures, calibration and confusion are missing: the run has no {PREDICTIONS}. Test it again '
            'with mmlt test, which writes it.'
        )
        return None
    found, num_classes = Predictions.load(file), len(run.classes)
    figures = np.array([np.nan if c['figure'] is None else c['figure'] for c in run.classes])
    inside = len(found.label) and all(a.min() >= 0 and a.max() < num_classes for a in (found.label, found.prediction))
    if not inside or not np.allclose(
        per_class_accuracy(found.label, found.prediction, num_classes), figures, equal_nan=True
    ):
        raise InputError(
            f"'{file}' is not of the test that the report beside it is of: test the run again with mmlt test."
        )
    return found


def _add_predictions(run: RunData, found: Predictions, images: np.ndarray) -> None:
    confidence = numbers.mean_confidence(found, len(run.classes))
    mistakes = numbers.mistakes(found, len(run.classes))
    for c, own in enumerate(run.classes):
        own['test_images'] = int(images[c])
        own['mistake'] = mistakes.get(c, [None])[0]
        own['confidence'] = None if np.isnan(confidence[c]) else float(confidence[c])
    run.confusion = numbers.shot_confusion(found, np.array([SHOTS.index(c['shot']) for c in run.classes]))
    if np.isnan(found.confidence).any():
        run.notes.append('Calibration is not told: the model gives classes without probabilities.')
        return
    run.bins = numbers.calibration(found)
    right = found.label == found.prediction
    run.ece = expected_calibration_error(found.confidence.astype(np.float64), right)


def _add_worst(
    run: RunData, chosen: list[int], found: Predictions | None, source: RunPictures | None, number: int
) -> None:
    mistakes = {} if found is None else numbers.mistakes(found, len(run.classes))
    for c in chosen:
        own: dict = dict(index=c, taken_for=mistakes.get(c, [])[:4], pictures=[], sentences=[])
        run.worst.append(own)
        if found is None:
            continue
        wrong = np.flatnonzero((found.label == c) & (found.prediction != c))
        # The surest mistakes first: they say more than a toss-up. NaN comes last, in the order of the data set.
        for place in wrong[np.argsort(-found.confidence[wrong], kind='stable')][:number].tolist():
            if (image := source.get(place)) is not None:
                confidence = float(found.confidence[place])
                own['pictures'].append(
                    dict(
                        image=image,
                        taken_for=int(found.prediction[place]),
                        confidence=None if np.isnan(confidence) else 100 * confidence,
                    )
                )
    if source is not None and source.trouble:
        run.notes.append(f'Not all pictures can be shown ({source.trouble}).')


def _config(folder: Path, run: RunData):
    try:
        cfg = facts.run_config(folder)
    except InputError as e:
        run.notes.append(f'The recipe is not told: {e}')
        return None
    if cfg is None:
        run.notes.append('The recipe is not known: the folder holds no config (<time>/vis_data/config.py).')
    return cfg


def _add_log(run: RunData, folder: Path) -> None:
    entries = read_log(folder)
    curves = loss_curves(entries)
    if curves.train:
        run.losses, run.figures = curves, figure_curves(entries)
    else:
        run.notes.append('There are no learning curves: nothing was trained in this folder.')


def _add_sentences(run: RunData, cfg, folder: Path) -> None:
    if (path := facts.anchor_file(cfg)) is None:
        return  # the method has none
    names = [c['name'] for c in run.classes]
    try:
        found = facts.best_sentences(facts.where_it_is(path, folder), names, [own['index'] for own in run.worst])
    except (InputError, LookupError) as e:
        run.notes.append(f'Anchor sentences cannot be shown: {facts.one_line(e)}')
        return
    for own in run.worst:
        own['sentences'] = found[own['index']]
