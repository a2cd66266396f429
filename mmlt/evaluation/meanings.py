"""What the figures of a report are, in words: two averages are called accuracy, and people mix them up."""

from __future__ import annotations

from mmlt.evaluation.functional import SHOTS, get_protocol

# Of all other figures of the shot metrics more is better.
LESS_IS_BETTER = ('ece', 'nll')
CLASS_MEAN, SAMPLE_MEAN = 'mean over classes', 'accuracy over samples'


def overall_meaning(protocol: str, measure: str = 'accuracy') -> str:
    """What ``all`` is: a mean over classes, or the share of right samples.

    Args:
        protocol (str): See ``SHOT_PROTOCOLS``.
        measure (str): What is known of every class, 'accuracy' or 'ap'.
            Defaults to 'accuracy'.

    Returns:
        str: :data:`CLASS_MEAN` or :data:`SAMPLE_MEAN`.
    """
    by_samples = measure == 'accuracy' and get_protocol(protocol).average == 'sample'
    return SAMPLE_MEAN if by_samples else CLASS_MEAN


def overall_key(report: dict) -> str:
    """Which of the figures with a name of their own ``all`` is, for a report of any version.

    Args:
        report (dict): :attr:`ShotAccuracy.report` or :attr:`ShotMAP.report`.

    Returns:
        str: 'balanced' or 'sample_accuracy'.
    """
    meaning = overall_meaning(report['protocol'], report.get('measure', 'accuracy'))
    return 'sample_accuracy' if meaning == SAMPLE_MEAN else 'balanced'


def meanings(protocol: str, measure: str = 'accuracy') -> dict[str, str]:
    """What every figure of a report is.

    Args:
        protocol (str): See ``SHOT_PROTOCOLS``.
        measure (str): See :func:`overall_meaning`. Defaults to 'accuracy'.

    Returns:
        dict[str, str]: A phrase for every key of the metrics.
    """
    what = {'accuracy': 'top-1', 'ap': 'average precision'}[measure]
    mean = overall_meaning(protocol, measure)
    result = {'all': f'{what}, {mean}', **{shot: f'{what} of {shot}-shot classes, {mean}' for shot in SHOTS}}
    result['worst_class'] = f'{what} of the worst class'
    if measure == 'accuracy':
        result['balanced'] = f'{what}, {CLASS_MEAN}'
        result['sample_accuracy'] = f'{what}, {SAMPLE_MEAN}'
        result['harmonic_mean'] = f'{what}, harmonic mean over classes'
        result['ece'] = 'expected calibration error'
        result['nll'] = 'negative log-likelihood of the true classes, in nats'
    return result
