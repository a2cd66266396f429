from .discrepancy import plot_discrepancy
from .report import plot_class_accuracy, print_table, write_json

__all__ = ['plot_class_accuracy', 'plot_discrepancy', 'print_table', 'write_json']
