"""One figure of the results in every form in which it is kept."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, NamedTuple

from widelimit.report._figure import draw
from widelimit.report._svg import figure_svg, write_figure

__all__ = ["Drawing", "make_drawing"]


class Drawing(NamedTuple):
    """One figure for a wide page and for a phone (SVG documents), and as a PDF file."""

    wide: str
    narrow: str
    pdf: bytes


def make_drawing(figure: Mapping[str, Any]) -> Drawing:
    """Draw one entry of ``results["figures"]`` in every form the page and its folder need."""
    name, pdf = figure["id"], io.BytesIO()
    wide = draw(figure)
    svg = figure_svg(wide, salt=name)
    write_figure(wide, pdf, "pdf", title=name)
    return Drawing(svg, figure_svg(draw(figure, narrow=True), salt=f"{name}n"), pdf.getvalue())
