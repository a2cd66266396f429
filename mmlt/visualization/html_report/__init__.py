"""Runs as one page of HTML, which needs nothing else to be read."""

from .data import RunData, collect_run, collect_runs
from .page import html_path, page, write_page

__all__ = ['RunData', 'collect_run', 'collect_runs', 'html_path', 'page', 'write_page']
