"""Which steps a command asks for, where their settings come from, and the scores after each."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from mmlt.checkpoints import write_text
from mmlt.datasets.texts.files import read_table
from mmlt.errors import InputError
from mmlt.evaluation.functional import per_class_accuracy, shot_accuracy
from mmlt.evaluation.posthoc import (
    PRIORS,
    adjust_logits,
    class_order,
    correct_prior,
    log_softmax,
    resample_test,
    target_prior,
    tau_normalise,
    tau_sweep,
    temperature_scaling,
)
from mmlt.evaluation.scores_file import DIGEST, Scores, read_scores
from mmlt.evaluation.shot_metric import make_report
from mmlt.utils.classes import check_same_classes

_MOST_TAUS = 1001


@dataclass(frozen=True)
class Prior:
    """Frequencies of the classes where the model will be used.

    Args:
        name (str): As it was given.
        share (np.ndarray): Shape (C, ), of sum 1.
        kind (str): 'uniform', 'forward', 'backward' or 'file'.
        ratio (float): Largest over smallest share. Defaults to 1.0.
    """

    name: str
    share: np.ndarray
    kind: str
    ratio: float = 1.0


@dataclass
class Steps:
    """Scores as tested and after every step, of the same images.

    Args:
        labels (np.ndarray): Shape (N, ).
        logits (dict[str, np.ndarray]): By the step's name in words, (N, C);
            the first is 'as tested'.
        notes (list[str]): What to tell. Defaults to none.
        sweep (tuple, optional): Strengths, validation accuracy of each and the
            chosen one. Defaults to None, nothing was chosen.
    """

    labels: np.ndarray
    logits: dict[str, np.ndarray]
    notes: list[str] = field(default_factory=list)
    sweep: tuple[list[float], np.ndarray, float] | None = None


def parse_taus(text: str, option: str = '--tau') -> list[float]:
    """Strengths of the logit adjustment as they are typed.

    Args:
        text (str): A number, or ``first:last:step``, with the last if a step ends there.
        option (str): To be named. Defaults to '--tau'.

    Returns:
        list[float]: Ascending.

    Raises:
        InputError: Neither; a negative or infinite number, or too many.
    """
    try:
        numbers = [float(part) for part in text.split(':')]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 3) or not all(math.isfinite(x) and x >= 0 for x in numbers):
        raise InputError(f"{option} is '{text}'; give a number that is not negative, or first:last:step as in 0:2:0.1.")
    if len(numbers) == 1:
        return numbers
    first, last, step = numbers
    if step == 0 or last < first or (last - first) / step > _MOST_TAUS:
        raise InputError(
            f"{option} is '{text}'; in first:last:step the last is not below the first, and the step is above 0 and "
            f'makes at most {_MOST_TAUS} values.'
        )
    # Rounded, since 3 * 0.1 is not 0.3 and names are made of it.
    return [round(first + i * step, 10) for i in range(int((last - first) / step + 1e-9) + 1)]


def parse_prior(text: str, scores: Scores) -> Prior:
    """A target prior as it is typed.

    Args:
        text (str): ``uniform``, ``forward:RATIO``, ``backward:RATIO``, or a
            table with the columns ``class`` and ``prior``.
        scores (Scores): Its classes and counts.

    Returns:
        Prior: See there.

    Raises:
        InputError: None of them; a class of the table that is not there, or
            the other way round; a prior that is not positive.
    """
    kind, _, ratio = text.partition(':')
    if kind in PRIORS and (kind != 'uniform') == bool(ratio):
        try:
            number = float(ratio or 1)
        except ValueError:
            raise InputError(f"--prior is '{text}'; the ratio is a number, as in {kind}:50.") from None
        return Prior(text, target_prior(kind, scores.class_counts, number), kind, number)
    if not Path(text).is_file():
        raise InputError(
            f"--prior is '{text}', which is no file; give uniform, forward:RATIO or backward:RATIO as in forward:50, "
            "or a table with the columns 'class' and 'prior'."
        )
    return Prior(text, _read_prior(text, [str(c) for c in scores.classes]), 'file')


def _read_prior(path: str, classes: list[str]) -> np.ndarray:
    share: dict[str, float] = {}
    for where, row in read_table(path, ('class', 'prior')).select('class', 'prior'):
        name = row['class']
        if name not in classes or name in share:
            told = 'comes twice' if name in share else 'is not among the tested classes'
            raise InputError(f"{where}: the class '{name}' {told}: give every tested class once.")
        try:
            share[name] = float(row['prior'])
        except ValueError:
            raise InputError(f"{where}: the prior '{row['prior']}' is no number.") from None
        if not (share[name] > 0 and math.isfinite(share[name])):
            raise InputError(f'{where}: the prior is {share[name]:g}; give a positive number, small for a rare class.')
    if missing := [c for c in classes if c not in share]:
        raise InputError(f"'{path}' has no prior of the class '{missing[0]}': give every tested class once.")
    values = np.array([share[c] for c in classes])
    return values / values.sum()


def check_validation(val: Scores, test: Scores) -> tuple[Scores, list[str]]:
    """Refuse a file that cannot be the validation of a test, and leave out what is in the test as well.

    Args:
        val (Scores): What settings would be chosen on.
        test (Scores): What they would be reported on.

    Returns:
        tuple[Scores, list[str]]: The validation without pictures whose pixels
        are in the test, and what may be a mistake, in sentences.

    Raises:
        InputError: Other classes or training counts, the same files, or no
            less than half the same pixels.
    """
    remedy = 'Test one model on both splits, with --save-logits.'
    check_same_classes({'--val': val.classes.tolist(), 'the test': test.classes.tolist()}, remedy)
    if (wrong := np.flatnonzero(val.class_counts != test.class_counts)).size:
        c = wrong[0]
        raise InputError(
            f"Class '{test.classes[c]}' has {val.class_counts[c]} training images in --val and {test.class_counts[c]} "
            f'in the test, so these are models of different trainings. {remedy}'
        )
    keys = ('checkpoint', 'tta')
    told = [(key, val.facts.get(key), test.facts.get(key)) for key in keys if val.facts.get(key) != test.facts.get(key)]
    notes = [f"Mind: {key} is '{a}' in --val and '{b}' in the test." for key, a, b in told]
    if val.images is None or test.images is None:
        common = np.zeros(len(val.labels), dtype=bool)
    else:
        common = (val.images != '') & np.isin(val.images, test.images)
    files = [name for name in val.images[common] if not name.startswith(DIGEST)] if common.any() else []
    n = int(common.sum())
    if files or 2 * n >= len(common) or np.array_equal(val.logits, test.logits):
        what = f"'{min(files)}' is in both" if files else f'{n} of {len(common)}' if n else 'the scores are the same'
        raise InputError(
            f'--val has images of the test ({what}), on which nothing may be chosen: give the scores of a validation '
            'split.'
        )
    if n:
        notes.append(f'{n} of {len(common)} images of --val are images of the test, too, and are left out.')
        val = replace(val, logits=val.logits[~common], labels=val.labels[~common], images=val.images[~common])
    return val, notes


def _needs_validation(norm: bool, adjusted: bool, temperature: bool) -> None:
    """Refuse to choose anything without a validation."""
    asked = {
        '--tau-norm FIRST:LAST:STEP': (norm, ', or one number as --tau-norm'),
        '--tau FIRST:LAST:STEP': (adjusted, ', or one number as --tau'),
        '--temperature': (temperature, ''),
    }
    if found := next(((what, other) for what, (is_asked, other) in asked.items() if is_asked), None):
        raise InputError(
            f'{found[0]} is chosen on a validation split, never on the test: give its scores as --val '
            f'VAL.npz{found[1]}.'
        )


def make_steps(
    test: Scores,
    val: Scores | None,
    taus: Sequence[float] | None = None,
    temperature: bool = False,
    prior: Prior | None = None,
    seed: int = 0,
    norm_taus: Sequence[float] | None = None,
) -> Steps:
    """Adjust, correct and calibrate scores, in this order.

    The strength of the adjustment and the temperature are chosen on the
    validation only. With a forward or backward prior the images are drawn so
    that they have it, of the validation as well, before the temperature is
    fitted. The source of a prior's correction is that of training, or after
    an adjustment, which has taken that away, the uniform one.

    Args:
        test (Scores): What is reported.
        val (Scores, optional): Defaults to None.
        taus (Sequence[float], optional): One is taken as it is, of several the
            best is. Defaults to None, no adjustment.
        temperature (bool): Whether to fit one. Defaults to False.
        prior (Prior, optional): Defaults to None.
        seed (int): Of the drawn images. Defaults to 0.
        norm_taus (Sequence[float], optional): Of the tau-normalisation, as
            ``taus``. Defaults to None, none.

    Returns:
        Steps: See there.

    Raises:
        InputError: Something is to be chosen and there is no validation, or a
            class has no training images.
    """
    chosen = taus is not None and len(taus) > 1
    if val is None:
        _needs_validation(norm_taus is not None and len(norm_taus) > 1, chosen, temperature)
    notes: list[str] = []
    if val is not None:
        val, notes = check_validation(val, test)
    sweep, tested = None, test.logits
    if norm_taus is not None:
        test, val, norm_tau = _normalised(test, val, norm_taus, notes)
    if chosen:
        accuracy = tau_sweep(val.logits, val.labels, val.class_counts, taus)
        sweep = (list(taus), accuracy, taus[int(accuracy.argmax())])  # the least of equal ones
        notes.append(f'tau {sweep[2]:g} is the best of {len(taus)} on {val.split}: {accuracy.max():.1f} over classes.')
        if sweep[2] == taus[-1]:
            notes.append('It is the largest that was tried: there may be better ones above.')
    tau = sweep[2] if sweep else taus[0] if taus else None
    parts = [_drawn(test, prior, seed, 'the test')]
    if temperature:
        parts.append(_drawn(val, prior, seed, '--val, on which the temperature is fitted,'))
    if prior is not None and prior.kind in ('forward', 'backward'):
        notes.append(f'{len(parts[0][1])} of {len(test.labels)} test images, drawn for the prior {prior.name}.')
    steps = [_sequence(logits, test.class_counts, tau, prior) for logits, _ in parts]
    if norm_taus is not None:
        before, _ = _drawn(replace(test, logits=tested), prior, seed, 'the test')
        normalised, *rest = steps[0].items()
        steps[0] = {'as tested': before, f'tau-normalised, tau {norm_tau:g}': normalised[1], **dict(rest)}
    if temperature:
        _calibrate(steps, parts[1][1], notes)
    return Steps(parts[0][1], steps[0], notes, sweep)


def _normalised(
    test: Scores, val: Scores | None, taus: Sequence[float], notes: list[str]
) -> tuple[Scores, Scores | None, float]:
    """Test and validation with tau-normalised logits, and the tau, of several the best on the validation."""
    for scores, name in ((test, 'the test'), (val, '--val')):
        if scores is not None and scores.weight_norms is None:
            raise InputError(
                '--tau-norm needs the logits of a linear classifier and the lengths of its class vectors, which the '
                f'scores of {name} do not have: save them without --tta, of a model with LinearClsHead.'
            )

    def normalised(scores: Scores, tau: float) -> Scores:
        return replace(scores, logits=tau_normalise(scores.logits, scores.weight_norms, scores.bias, tau))

    tau = taus[0]
    if len(taus) > 1:
        accuracy = [
            np.nanmean(per_class_accuracy(val.labels, normalised(val, t).logits.argmax(1), len(val.classes)))
            for t in taus
        ]
        tau = taus[int(np.argmax(accuracy))]
        notes.append(f'tau-normalisation {tau:g} is the best of {len(taus)} on {val.split}: {max(accuracy):.1f}.')
    return normalised(test, tau), None if val is None else normalised(val, tau), tau


def _drawn(scores: Scores, prior: Prior | None, seed: int, whose: str) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities and labels, with forward and backward priors of a test set that has them."""
    chosen: slice | np.ndarray = slice(None)
    if prior is not None and prior.kind in ('forward', 'backward'):
        try:
            chosen = resample_test(scores.labels, class_order(prior.kind, scores.class_counts), prior.ratio, seed)
        except InputError as e:
            raise InputError(f'The prior {prior.name} cannot be drawn from {whose} as it is: {e}') from e
    return log_softmax(scores.logits[chosen]), scores.labels[chosen]


def _sequence(logits: np.ndarray, counts: np.ndarray, tau: float | None, prior: Prior | None) -> dict[str, np.ndarray]:
    steps = {'as tested': logits}
    source = counts
    if tau is not None:
        logits = steps[f'adjusted, tau {tau:g}'] = adjust_logits(logits, counts, tau)
        source = np.ones(len(counts))
    if prior is not None:
        steps[f'prior {prior.name}'] = correct_prior(logits, source, prior.share)
    return steps


def _calibrate(steps: list[dict[str, np.ndarray]], labels: np.ndarray, notes: list[str]) -> None:
    """Append the last scores of the test over the temperature of the validation's last scores."""
    test, val = steps
    fitted = temperature_scaling(list(val.values())[-1], labels)
    if fitted.at_bound:
        notes.append(
            f'The temperature ends at its bound {fitted.value:g}: the validation scores would be better still beyond, '
            'for example since all or none of the predictions are right. Do not trust it.'
        )
    test[f'temperature {fitted.value:.3g}'] = list(test.values())[-1] / fitted.value


def step_report(scores: Scores, labels: np.ndarray, logits: np.ndarray, protocol: str) -> dict:
    """What the table is made of.

    Args:
        scores (Scores): Classes and counts.
        labels (np.ndarray): Shape (N, ).
        logits (np.ndarray): Shape (N, C).
        protocol (str): See ``SHOT_PROTOCOLS``.

    Returns:
        dict: :attr:`ShotAccuracy.report`.
    """
    classes, counts = scores.classes.tolist(), scores.class_counts
    figures = shot_accuracy(labels, logits.argmax(1), counts, protocol)
    per_class = figures.pop('per_class')
    return make_report(protocol, 'accuracy', figures, len(labels), classes, counts, per_class)


def chosen_tau_report(test_file: str | Path, val_file: str | Path, taus: str) -> dict:
    """The report of a test after the logit adjustment that is best on other scores.

    Args:
        test_file (str | Path): Scores of the test.
        val_file (str | Path): Those to choose on, see
            :func:`check_validation`.
        taus (str): A range, see :func:`parse_taus`.

    Returns:
        dict: :attr:`ShotAccuracy.report`, with ``tau``, ``chosen_at``, the
        accuracy over classes of the other scores with it, in percent, and
        ``chosen_on``, how many those were.
    """
    test = read_scores(test_file)
    val, _ = check_validation(read_scores(val_file), test)
    steps = make_steps(test, val, parse_taus(taus))
    report = step_report(test, steps.labels, list(steps.logits.values())[-1], str(test.facts.get('protocol')))
    chosen = dict(tau=steps.sweep[2], chosen_at=float(steps.sweep[1].max()), chosen_on=len(val.labels))
    return {**report, **chosen}


def write_classes(scores: Scores, steps: Steps, path: str | Path) -> None:
    """Write a table of the classes: images, and accuracy and mean confidence before and after all steps.

    Args:
        scores (Scores): Classes and counts.
        steps (Steps): See there.
        path (str | Path): CSV to write; what a class without test images does
            not have is empty.
    """
    labels, counts = steps.labels, scores.class_counts
    images = np.bincount(labels, minlength=len(counts))
    ends = [list(steps.logits.values())[i] for i in (0, -1)]
    columns = [per_class_accuracy(labels, logits.argmax(1), len(counts)) for logits in ends]
    for logits in ends:
        confidence = np.bincount(labels, weights=100 * np.exp(log_softmax(logits).max(1)), minlength=len(counts))
        columns.append(np.where(images > 0, confidence / np.maximum(images, 1), np.nan))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    names = [f'{what}_{when}' for what in ('accuracy', 'confidence') for when in ('before', 'after')]
    writer.writerow(['class', 'train_images', 'test_images', *names])
    for name, n, m, *values in zip(scores.classes, counts, images, *columns):
        writer.writerow([name, int(n), int(m), *('' if np.isnan(x) else f'{x:.2f}' for x in values)])
    write_text(path, text.getvalue())
