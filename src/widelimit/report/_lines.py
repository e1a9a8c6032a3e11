"""A panel of lines, points, bands and guides."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from widelimit.report._style import (
    INK,
    MARKERS,
    PALETTE,
    PAPER,
    QUIET,
    SIZE,
    dress,
    label,
    linear_axis,
    log_axis,
    shade,
)  # fmt: skip
from widelimit.report._words import plain_symbols

# A panel with more points than this in its faint lines carries them as a picture: the file stays small.
MOST_VECTOR_POINTS = 20_000
DECADES = 12.0


def draw_lines(axis: Axes, panel: Mapping[str, Any]) -> None:
    """Draw a panel of kind "lines" (series, reference marks, scales, legend)."""
    dress(axis)
    axis.set_xscale(panel.get("xscale", "linear"))
    axis.set_yscale(panel.get("yscale", "linear"))
    series = [s for s in panel["series"] if len(s["x"])]
    faint = sum(len(s["x"]) for s in series if s["style"] == "thin")
    for one in series:
        _draw_series(axis, one, panel, rasterised=faint > MOST_VECTOR_POINTS)
    _limits(axis, panel, series)
    for mark in panel.get("marks") or ():
        _draw_mark(axis, mark)
    _axis_ticks(axis, panel, series)
    label(axis, panel.get("xlabel", ""), panel.get("ylabel", ""), panel.get("title", ""))


def numbers(values: Sequence[float | None] | None) -> np.ndarray:
    """Floats, with NaN for what is not known."""
    return np.array([math.nan if v is None else float(v) for v in values or ()])


def colour_of(one: Mapping[str, Any]) -> str:
    """The series' colour: its shade, else its group's, else neutral."""
    if one.get("shade") is not None:
        return shade(float(one["shade"]))
    if one.get("group") is not None:
        return PALETTE[int(one["group"]) % len(PALETTE)]
    return QUIET if one["style"] in ("guide", "thin", "band") else INK


def _positive(values: np.ndarray, scale: str | None) -> np.ndarray:
    return np.where(values > 0, values, np.nan) if scale == "log" else values


def _draw_series(axis: Axes, one: Mapping[str, Any], panel: Mapping[str, Any], *, rasterised: bool) -> None:
    x, y = numbers(one["x"]), _positive(numbers(one["y"]), panel.get("yscale"))
    low, high = (_positive(numbers(one.get(k)), panel.get("yscale")) for k in ("low", "high"))
    style, colour = one["style"], colour_of(one)
    name = plain_symbols(one.get("label") or "") or "_nolegend_"
    if style == "band":
        axis.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0, label=name, zorder=1)
        if np.isfinite(y).any():
            axis.plot(x, y, color=colour, linewidth=1.0, alpha=0.8, zorder=1.5)
    elif style == "points":
        marker = MARKERS[int(one.get("group") or 0) % len(MARKERS)]
        error = np.abs(np.stack([y - low, high - y])) if low.size and high.size else None
        error = None if error is None else np.where(np.isfinite(error), error, 0.0)
        axis.errorbar(
            x, y, _error_or_none(error), fmt=marker, color=colour, markersize=4.4, markeredgecolor=PAPER,
            markeredgewidth=0.5, elinewidth=1.0, capsize=0, label=name, zorder=4,
        )  # fmt: skip
    elif style == "thin":
        # A crowd of lines is faint; a line that is one of an order (a width) must still be told from the next.
        weight, alpha = (0.6, 0.4) if one.get("shade") is None else (0.9, 1.0)
        axis.plot(x, y, color=colour, linewidth=weight, alpha=alpha, label=name, zorder=2, rasterized=rasterised)
    elif style == "guide":
        axis.plot(x, y, color=QUIET, linewidth=0.9, linestyle=_guide_dash(panel, one), label=name, zorder=1.8)
    else:
        dash = {"dashed": (0, (4.5, 1.8)), "dotted": (0, (1.2, 1.6))}.get(style, "-")
        if low.size and high.size:
            axis.fill_between(x, low, high, color=colour, alpha=0.14, linewidth=0, zorder=1)
        axis.plot(x, y, color=colour, linewidth=1.5, linestyle=dash, label=name, zorder=3)


def _error_or_none(error: np.ndarray | None) -> np.ndarray | None:
    """None where no error bar has a length: a bar of length zero is drawn as a dot by some viewers."""
    return error if error is not None and (error > 0).any() else None


def _guide_dash(panel: Mapping[str, Any], one: Mapping[str, Any]):
    guides = [s for s in panel["series"] if s["style"] == "guide" and s.get("label")]
    labels = [s["label"] for s in guides]
    place = labels.index(one["label"]) if one.get("label") in labels else 0
    return ((0, (6, 2)), (0, (1.5, 1.8)), (0, (6, 1.6, 1.2, 1.6)))[place % 3]


def _limits(axis: Axes, panel: Mapping[str, Any], series: Sequence[Mapping[str, Any]]) -> None:
    if panel.get("xlim"):
        axis.set_xlim(*panel["xlim"])
    elif panel.get("xscale") != "log" and not any(s["style"] == "points" for s in series):
        axis.margins(x=0.0)
    if panel.get("ylim"):
        axis.set_ylim(*panel["ylim"])
    elif panel.get("yscale") == "log":
        # One curve that falls to rounding level must not press all others into a corner.
        shown = [_positive(numbers(s[k]), "log") for s in series for k in ("y", "low", "high") if s.get(k)]
        values = np.concatenate(shown) if shown else np.array([])
        values = values[np.isfinite(values)]
        if values.size and values.max() > values.min() * 10**DECADES:
            axis.set_ylim(values.max() / 10**DECADES, values.max() * 4)


def _draw_mark(axis: Axes, mark: Mapping[str, Any]) -> None:
    at, text = float(mark["at"]), plain_symbols(mark.get("label") or "")
    style = {"color": QUIET, "linewidth": 0.9, "linestyle": (0, (2, 2)), "zorder": 1.6}
    if mark["axis"] == "x":
        axis.axvline(at, **style)
        axis.annotate(
            text, (at, 1.0), xycoords=("data", "axes fraction"), xytext=(3, -2), textcoords="offset points",
            fontsize=SIZE - 1.2, color=QUIET, va="top", ha="left",
        )  # fmt: skip
    else:
        axis.axhline(at, **style)
        axis.annotate(
            text, (1.0, at), xycoords=("axes fraction", "data"), xytext=(-1, 2), textcoords="offset points",
            fontsize=SIZE - 1.2, color=QUIET, va="bottom", ha="right",
        )  # fmt: skip


def _axis_ticks(axis: Axes, panel: Mapping[str, Any], series: Sequence[Mapping[str, Any]]) -> None:
    for which in "xy":
        if panel.get(f"{which}scale") == "log":
            at = _few_integers(series) if which == "x" else None
            log_axis(axis, which, at)
        else:
            linear_axis(axis, which)


def _few_integers(series: Sequence[Mapping[str, Any]]) -> list[float] | None:
    """Where the abscissae are a handful of whole numbers (widths, sizes): these, as ticks."""
    values = sorted({float(v) for s in series if s["style"] != "guide" for v in s["x"] if v is not None})
    if not 2 <= len(values) <= 14 or any(v != round(v) or v < 1 for v in values):
        return None
    if len(values) > 2 and max(b / a for a, b in itertools.pairwise(values)) < 1.3:
        return None
    kept = [values[-1]]
    apart = max(1.6, (values[-1] / values[0]) ** (1 / 5.5))
    for v in values[-2::-1]:
        if kept[-1] / v >= apart:
            kept.append(v)
    return kept[::-1]
