"""The figures, as plain descriptions made from the results of experiments."""

from __future__ import annotations

from typing import Any

from widelimit.lab._store import plain
from widelimit.lab.figures._initial import F2, F3, F5, F12
from widelimit.lab.figures._panels import FigureSpec, Results
from widelimit.lab.figures._regimes import F11, F14, F16, F21
from widelimit.lab.figures._trained import F6, F7, F9, F13

FIGURES: dict[str, FigureSpec] = {f.id: f for f in (F2, F3, F5, F6, F7, F9, F11, F12, F13, F14, F16, F21)}


def make_figure(spec: FigureSpec, results: Results) -> dict[str, Any]:
    """The figure's entry in the results document."""
    panels, numbers = spec.build(results)
    return plain(
        {
            "id": spec.id,
            "title": spec.title,
            "see": spec.see,
            "claims": list(spec.claims),
            "numbers": numbers,
            "columns": spec.columns,
            "panels": panels,
        }
    )


__all__ = ["FIGURES", "FigureSpec", "make_figure"]
