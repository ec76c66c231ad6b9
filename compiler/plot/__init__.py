"""A run's metrics as curves on a page."""

from moec.compiler.plot.plot_html import plot_html
from moec.compiler.plot.read_metrics import Recorded, Unreadable, read_metrics

__all__ = ["Recorded", "Unreadable", "plot_html", "read_metrics"]
