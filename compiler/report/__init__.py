"""An estimate as pictures: a page for a browser, and a trace for Perfetto."""

from moec.compiler.report.report_html import report_html
from moec.compiler.report.trace_json import trace_json

__all__ = ["report_html", "trace_json"]
