from .class_sizes import class_size_report, plot_class_sizes, print_class_sizes
from .comparison import comparison_markdown, comparison_table, summarise
from .discrepancy import plot_discrepancy
from .figures import png_path
from .gain import class_gains, plot_class_gain
from .losses import LossCurves, loss_curves, merge_logs, plot_losses, read_losses
from .report import plot_class_accuracy, print_table, what_is_shown, write_json
from .retrieval import plot_retrieval
from .runs import check_comparable, named_runs, read_report

__all__ = [
    'LossCurves',
    'check_comparable',
    'class_gains',
    'class_size_report',
    'comparison_markdown',
    'comparison_table',
    'loss_curves',
    'merge_logs',
    'named_runs',
    'plot_class_accuracy',
    'plot_class_gain',
    'plot_discrepancy',
    'plot_class_sizes',
    'plot_losses',
    'plot_retrieval',
    'png_path',
    'print_class_sizes',
    'print_table',
    'read_losses',
    'read_report',
    'summarise',
    'what_is_shown',
    'write_json',
]
