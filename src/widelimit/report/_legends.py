"""Legends: said once, and never on top of the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.path import Path
from matplotlib.transforms import Bbox, ScaledTranslation

from widelimit.report._style import INK, PAPER, SIZE
from widelimit.report._words import plain_symbols

__all__ = ["Entries", "legend_of_all", "legends_by_panel", "move_below", "rows_below"]

Entries = dict[str, Any]
MOST_ROWS = 9
ROW = 0.155  # inches of one line of a legend
_LOOK: dict[str, Any] = {
    "fontsize": SIZE - 1.3, "labelcolor": INK, "handlelength": 1.9, "labelspacing": 0.32, "columnspacing": 1.2,
}  # fmt: skip


def legends_by_panel(drawn: Sequence[tuple[Axes, Mapping[str, Any]]]) -> list[tuple[list[Axes], Entries]]:
    """The legends that are needed: panels that share an entry share one legend."""
    groups: list[tuple[list[Axes], Entries]] = []
    for axis, panel in drawn:
        own = _entries(axis, panel)
        if not panel.get("legend", True) or not own:
            continue
        same = next((g for g in groups if g[1].keys() & own.keys()), None)
        if same is None:
            groups.append(([axis], own))
        else:
            same[0].append(axis)
            same[1].update({k: v for k, v in own.items() if k not in same[1]})
    return groups


def _entries(axis: Axes, panel: Mapping[str, Any]) -> Entries:
    handles, labels = axis.get_legend_handles_labels()
    found = dict(zip(labels, handles, strict=True))
    order = [plain_symbols(s.get("label") or "") for s in panel["series"]]
    return dict(sorted(found.items(), key=lambda item: order.index(item[0])))


def legend_of_all(canvas: Figure, entries: Entries) -> int:
    """One legend below all panels; returns its number of rows."""
    columns = _columns(entries, canvas.get_figwidth())
    canvas.legend(
        list(entries.values()),
        list(entries),
        loc="outside lower center",
        frameon=False,
        ncols=columns,
        **_LOOK,
    )
    return -(-len(entries) // columns)


def inside(axis: Axes, entries: Entries) -> Legend:
    """A legend in the panel's emptiest corner."""
    return axis.legend(
        list(entries.values()), list(entries), loc="best", frameon=True, framealpha=0.85, facecolor=PAPER,
        edgecolor="none", borderpad=0.3, ncols=2 if len(entries) > MOST_ROWS else 1, **_LOOK,
    )  # fmt: skip


def move_below(figure: Figure, legends: Sequence[tuple[Axes, Entries]]) -> None:
    """Put each panel's legend in the panel, or under its axis label where it would stand on data."""
    standing = [(axis, entries, inside(axis, entries)) for axis, entries in legends]
    figure.draw_without_rendering()
    for axis, entries, legend in standing:
        if _covers_data(axis, legend.get_window_extent().padded(1.0)):
            legend.remove()
            _beneath(figure, axis, entries)


def _beneath(figure: Figure, axis: Axes, entries: Entries) -> None:
    columns = _columns(entries, axis.get_window_extent().width / figure.dpi)
    place = axis.transAxes + ScaledTranslation(0, -0.44, figure.dpi_scale_trans)
    axis.legend(
        list(entries.values()), list(entries), loc="upper left", bbox_to_anchor=(0.0, 0.0), bbox_transform=place,
        frameon=False, borderaxespad=0.0, borderpad=0.0, ncols=columns, **_LOOK,
    )  # fmt: skip
    axis.set_label(f"{-(-len(entries) // columns)} rows below")


def rows_below(axis: Axes) -> int:
    """Rows of the legend that :func:`move_below` put under the panel (0 if it stands inside)."""
    text = str(axis.get_label())
    return int(text.split()[0]) if text.endswith("rows below") else 0


def _columns(entries: Entries, inches: float) -> int:
    longest = max(len(text) for text in entries)
    most = max(1, min(len(entries), int(inches * 72 / ((longest + 5) * 0.54 * _LOOK["fontsize"]))))
    rows = -(-len(entries) // most)
    return -(-len(entries) // rows)  # no row with one straggler where two even rows do


def _covers_data(axis: Axes, box: Bbox) -> bool:
    for artist in axis.get_children():
        if isinstance(artist, Line2D) and artist.get_transform() == axis.transData:  # not a mark across the panel
            path = axis.transData.transform_path(artist.get_path())
            if artist.get_linestyle() == "None":
                if box.count_contains(path.vertices):
                    return True
            elif _crosses(path, box):
                return True
        elif isinstance(artist, LineCollection):
            paths = [axis.transData.transform_path(p) for p in artist.get_paths()]
            if any(_crosses(p, box) for p in paths):
                return True
    return False


def _crosses(path: Path, box: Bbox) -> bool:
    return bool(np.size(path.vertices)) and path.intersects_bbox(box, filled=False)
