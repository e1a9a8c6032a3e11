"""One figure of the results: its panels laid out for a wide page or for a phone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter

from widelimit.report._image import draw_image, scale_of
from widelimit.report._legends import ROW, legend_of_all, legends_by_panel, move_below, rows_below
from widelimit.report._lines import draw_lines
from widelimit.report._style import INK, PAPER, SIZE, house_style, tick_text
from widelimit.report._words import plain_symbols

__all__ = ["draw"]

WIDE, NARROW = 8.2, 3.45  # inches; the page shows them about 1.4 times as large


def draw(figure: Mapping[str, Any], *, narrow: bool = False) -> Figure:
    """Draw one entry of ``results["figures"]`` as a matplotlib Figure.

    narrow: line panels one above the other and matrices in pairs, for a phone.  Raises ValueError for a kind of
    panel that is not known.
    """
    panels = figure["panels"]
    columns = _columns(panels, int(figure.get("columns") or 1), narrow)
    rows = -(-len(panels) // columns)
    matrices = all(p["kind"] == "image" for p in panels)
    # A single panel would look lost at full width.
    width = NARROW if narrow else WIDE if columns > 1 else 0.68 * WIDE
    height = (width / columns * 0.98 if matrices else min(3.0, max(2.5, width / columns * 0.85))) * rows
    with house_style():
        canvas = Figure(figsize=(width, height), dpi=100, facecolor=PAPER)
        FigureCanvasAgg(canvas)
        canvas.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.07, h_pad=0.07, wspace=0.03, hspace=0.04))
        axes = list(canvas.subplots(rows, columns, squeeze=False).ravel())
        spare = axes[len(panels) :]
        for axis in spare:
            axis.set_axis_off()
        images, lines = [], []
        for axis, panel in zip(axes, panels, strict=False):
            if panel["kind"] == "image":
                images.append((axis, panel, draw_image(axis, panel)))
            elif panel["kind"] == "lines":
                draw_lines(axis, panel)
                lines.append((axis, panel))
            else:
                raise ValueError(f"a panel of kind {panel['kind']!r} is not known; it must be lines or image.")
        _colour_bars(canvas, images, spare)
        _legends(canvas, lines, columns)
        canvas.draw_without_rendering()  # settles the layout while the house style is in force
        # None, not "none": a placeholder engine would have each file drawn twice.
        canvas.set_layout_engine(None)
    return canvas


def _columns(panels: Sequence[Mapping[str, Any]], wanted: int, narrow: bool) -> int:
    if not narrow:
        return max(1, min(wanted, len(panels)))
    small = all(p["kind"] == "image" for p in panels) and len(panels) > 1
    return 2 if small else 1


def _legends(canvas: Figure, lines: Sequence[tuple[Axes, Mapping[str, Any]]], columns: int) -> None:
    """Legends, and as much more height as those below the panels take: the panels keep theirs."""
    needed = legends_by_panel(lines)
    if len(needed) == 1 and len(needed[0][0]) > 1:
        more = ROW * legend_of_all(canvas, needed[0][1]) + 0.08
    else:
        move_below(canvas, [(axes[0], entries) for axes, entries in needed])
        rows = [rows_below(axis) for axis in canvas.axes]
        grid = [max(rows[i : i + columns]) for i in range(0, len(rows), columns)]
        more = sum(ROW * r + 0.08 for r in grid if r)
    canvas.set_figheight(canvas.get_figheight() + more)


def _colour_bars(canvas: Figure, images: Sequence[tuple], spare: Sequence[Axes]) -> None:
    """One colour bar for all panels that share a scale and ask for one; an empty cell beside them takes it."""
    scales: dict[tuple, list] = {}
    for axis, panel, image in images:
        key = scale_of(panel) if panel.get("vmin") is not None else (id(axis),)
        scales.setdefault(key, []).append((axis, panel, image))
    for group in scales.values():
        name = next((p["colourbar"] for _, p, _ in group if p.get("colourbar")), "")
        if not any(p.get("colourbar") is not None for _, p, _ in group):
            continue
        axes = [a for a, _, _ in group]
        if spare and axes[-1] is images[-1][0]:
            place = spare[0].inset_axes((0.0, 0.07, 0.06, 0.86))
        else:
            place = axes[-1].inset_axes((1.05, 0.07, 0.06, 0.86))
        bar = canvas.colorbar(group[0][2], cax=place)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=SIZE - 1.2, labelcolor=INK, length=0)
        bar.ax.minorticks_off()
        bar.ax.yaxis.set_major_formatter(FuncFormatter(tick_text))
        bar.set_label(plain_symbols(name), fontsize=SIZE - 0.6, color=INK)
