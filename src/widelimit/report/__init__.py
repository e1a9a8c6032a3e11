"""Results of the lab as figures, tables and one self-contained page; plain results in, files out."""

from __future__ import annotations

from widelimit.report._figure import draw
from widelimit.report._page import page, save_figures, write_report
from widelimit.report._results import ResultsError, check_results, read_results
from widelimit.report._svg import figure_svg, save_figure
from widelimit.report._words import (
    duration,
    exponent,
    headline,
    measured,
    number,
    plain_symbols,
    score,
    theory,
)

__all__ = [
    "ResultsError", "check_results", "draw", "duration", "exponent", "figure_svg", "headline", "measured", "number",
    "page", "plain_symbols", "read_results", "save_figure", "save_figures", "score", "theory", "write_report",
]  # fmt: skip
