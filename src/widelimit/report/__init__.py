"""Results of the lab as figures, tables and one self-contained page; plain results in, files out."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from widelimit.report._background import Drawings
from widelimit.report._results import ResultsError, check_results, read_results
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

if TYPE_CHECKING:
    from widelimit.report._figure import draw
    from widelimit.report._laziness import laziness_page, write_laziness
    from widelimit.report._page import page, save_figures, write_report
    from widelimit.report._svg import figure_svg, save_figure
else:
    # What draws loads matplotlib; tables in the terminal and error messages must not wait for it.
    _DRAWS = {
        "draw": "_figure", "figure_svg": "_svg", "save_figure": "_svg",
        "laziness_page": "_laziness", "write_laziness": "_laziness", "page": "_page", "save_figures": "_page",
        "write_report": "_page",
    }  # fmt: skip

    def __getattr__(name):
        if name not in _DRAWS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.{_DRAWS[name]}"), name)


__all__ = [
    "Drawings", "ResultsError", "check_results", "draw", "duration", "exponent", "figure_svg", "headline",
    "laziness_page", "measured", "number", "page", "plain_symbols", "read_results", "save_figure", "save_figures",
    "score", "theory", "write_laziness", "write_report",
]  # fmt: skip
