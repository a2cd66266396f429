"""What remains of a test."""

from __future__ import annotations

import os.path as osp

from mmengine.dist import master_only
from mmengine.hooks import Hook

from mmlt.evaluation import PREDICTIONS, ShotAccuracy, ShotMAP
from mmlt.registry import HOOKS
from mmlt.visualization import plot_class_accuracy, print_table, write_json


@HOOKS.register_module()
class ShotReportHook(Hook):
    """After a test, print the many / medium / few table and write JSON and PNG.

    The files are ``shot_report.json`` and ``shot_report.png`` in the work
    directory: metrics, and the accuracy or average precision of every class
    over its training images. ``predictions.npz`` has label, prediction,
    confidence and path of every test picture (:class:`Predictions`; not of
    several labels a picture). A :class:`ShotAccuracy` or :class:`ShotMAP` must
    be among the test evaluator's metrics; of several, the files of the others
    are named after their prefixes.

    Args:
        title (str, optional): Above table and picture. Defaults to None, the
            config's name.
    """

    def __init__(self, title: str | None = None):
        self.title = title

    @master_only
    def after_test_epoch(self, runner, metrics: dict | None = None) -> None:
        """Report the last evaluation."""
        shots = [m for m in runner.test_evaluator.metrics if isinstance(m, (ShotAccuracy, ShotMAP)) and m.report]
        for i, metric in enumerate(shots):
            report = metric.report
            title = self.title or osp.splitext(osp.basename(runner.cfg.filename or runner.experiment_name))[0]
            base = osp.join(runner.work_dir, 'shot_report' if i == 0 else f'{metric.prefix}_report')
            write_json(report, f'{base}.json')
            plot_class_accuracy(report, f'{base}.png', title)
            print_table(report, title)
            told = f'Report: {base}.json\nPicture: {base}.png'
            # One set of predictions, however many metrics look at them.
            if isinstance(metric, ShotAccuracy) and not any(isinstance(m, ShotAccuracy) for m in shots[:i]):
                metric.predictions.save(path := osp.join(runner.work_dir, PREDICTIONS))
                told += f'\nPredictions: {path}'
            runner.logger.info(told)
