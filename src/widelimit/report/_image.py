"""A panel that is a picture of a matrix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.image import AxesImage
from matplotlib.ticker import FixedLocator

from widelimit.report._lines import numbers
from widelimit.report._style import GRID, QUIET, SIZE, dress, label, tick_text

COLOUR_MAPS = {"sequential": "cividis", "diverging": "RdBu_r"}
MOST_WRITTEN_CELLS = 80


def scale_of(panel: Mapping[str, Any]) -> tuple:
    """Panels with equal values here share their colours, and one colour bar."""
    return panel["colour"], panel.get("scale", "linear"), panel.get("vmin"), panel.get("vmax")


def draw_image(axis: Axes, panel: Mapping[str, Any]) -> AxesImage:
    """Draw a panel of kind "image"; entries that are not known are hatched; few entries are also written out."""
    dress(axis)
    axis.grid(False)
    values = np.stack([numbers(row) for row in panel["values"]])
    colours = matplotlib.colormaps[COLOUR_MAPS[panel["colour"]]].with_extremes(bad=(0, 0, 0, 0))
    image = axis.imshow(
        np.ma.masked_invalid(values), cmap=colours, norm=_norm(panel, values), interpolation="none",
        aspect="equal" if min(values.shape) > 12 else "auto",
    )  # fmt: skip
    if not np.isfinite(values).all():
        axis.patch.set(facecolor=GRID, hatch="////", edgecolor=QUIET, linewidth=0)
    _ticks(axis, panel)
    label(axis, panel.get("xlabel", ""), panel.get("ylabel", ""), panel.get("title", ""))
    for spine in axis.spines.values():
        spine.set_visible(False)
    if values.size <= MOST_WRITTEN_CELLS:
        _write_cells(axis, image, values)
    return image


def _norm(panel: Mapping[str, Any], values: np.ndarray) -> Normalize:
    finite = values[np.isfinite(values)]
    finite = finite if finite.size else np.array([0.1, 1.0])
    low, high = panel.get("vmin"), panel.get("vmax")
    if panel.get("scale") == "log":
        positive = finite[finite > 0] if (finite > 0).any() else np.array([0.1, 1.0])
        low = positive.min() if low is None or low <= 0 else low
        high = positive.max() if high is None else high
        return LogNorm(low, max(high, low * 1.0001))
    if panel["colour"] == "diverging" and low is None and high is None:
        high = float(np.abs(finite).max()) or 1.0
        low = -high
    return Normalize(finite.min() if low is None else low, finite.max() if high is None else high)


def _ticks(axis: Axes, panel: Mapping[str, Any]) -> None:
    for which, one in (("x", axis.xaxis), ("y", axis.yaxis)):
        ticks = panel.get(f"{which}ticks") or []
        one.set_major_locator(FixedLocator([t["at"] for t in ticks]))
        one.set_ticklabels([t["label"] for t in ticks])
    axis.tick_params(length=0)


def _write_cells(axis: Axes, image: AxesImage, values: np.ndarray) -> None:
    for (i, j), value in np.ndenumerate(values):
        if not np.isfinite(value):
            continue
        red, green, blue, _ = image.cmap(image.norm(value))
        light = 0.299 * red + 0.587 * green + 0.114 * blue > 0.5
        text = f"{value:.2g}" if 1e-3 <= abs(value) < 1e3 else tick_text(value)
        # Not the house's ink: the colour of the cell, and so of its text, is the same in light and dark.
        axis.text(j, i, text, ha="center", va="center", fontsize=SIZE - 1.6, color="#101418" if light else "#f6f7f8")


__all__ = ["draw_image", "scale_of"]
