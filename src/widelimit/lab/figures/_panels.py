"""Plain descriptions of plots: panels of series and images, for any renderer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from widelimit.diagnostics import fit_samples, log_statistics
from widelimit.lab._measures import interval

Results = Mapping[str, dict[str, Any]]


@dataclass(frozen=True)
class FigureSpec:
    """A figure: what it shows, what to see in it, which experiments it needs, and how to draw it from
    them.
    """

    id: str
    title: str
    see: str
    experiments: tuple[str, ...]
    claims: tuple[str, ...]
    build: Callable[[Results], tuple[list[dict[str, Any]], list[dict[str, str]]]]
    columns: int = 2


def numbers(values: Any) -> list[float | None]:
    """Floats with seven digits; what is not finite becomes None."""
    flat = np.asarray(values, np.float64).ravel()
    return [float(f"{v:.7g}") if np.isfinite(v) else None for v in flat]


def series(
    label: str,
    x: Any,
    y: Any,
    style: str = "line",
    *,
    low: Any = None,
    high: Any = None,
    group: int | None = None,
    shade: float | None = None,
) -> dict[str, Any]:
    """One curve, set of points or band."""
    return {
        "label": label, "style": style, "x": numbers(x), "y": numbers(y),
        "low": None if low is None else numbers(low), "high": None if high is None else numbers(high),
        "group": group, "shade": shade,
    }  # fmt: skip


def lines(
    title: str,
    xlabel: str,
    ylabel: str,
    content: list[dict[str, Any]],
    scales: tuple[str, str] = ("linear", "linear"),
    *,
    xlim: Sequence[float] | None = None,
    ylim: Sequence[float] | None = None,
    legend: bool = True,
    marks: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """A panel with axes."""
    return {
        "kind": "lines", "title": title, "xlabel": xlabel, "ylabel": ylabel, "xscale": scales[0],
        "yscale": scales[1],
        "xlim": None if xlim is None else list(xlim), "ylim": None if ylim is None else list(ylim),
        "legend": legend,
        "series": content, "marks": list(marks),
    }  # fmt: skip


def image(
    title: str,
    values: Any,
    *,
    xlabel: str = "",
    ylabel: str = "",
    colour: str = "sequential",
    scale: str = "linear",
    limits: tuple[float, float] | None = None,
    xticks: Sequence[tuple[float, str]] | None = None,
    yticks: Sequence[tuple[float, str]] | None = None,
    colourbar: str = "",
) -> dict[str, Any]:
    """A panel with a matrix."""

    def ticks(pairs):
        return None if pairs is None else [{"at": float(at), "label": label} for at, label in pairs]

    return {
        "kind": "image", "title": title, "xlabel": xlabel, "ylabel": ylabel,
        "values": [numbers(row) for row in np.asarray(values, np.float64)], "scale": scale, "colour": colour,
        "vmin": None if limits is None else float(limits[0]),
        "vmax": None if limits is None else float(limits[1]),
        "xticks": ticks(xticks), "yticks": ticks(yticks), "colourbar": colourbar,
    }  # fmt: skip


def points(label: str, x: Sequence[float], samples: Sequence[Any], group: int | None = None) -> dict[str, Any]:
    """Geometric means over seeds with bars of two standard errors; what is not finite and positive is left
    out.
    """
    arrays = [np.asarray(s, np.float64).ravel() for s in samples]
    arrays = [a[np.isfinite(a) & (a > 0)] for a in arrays]
    kept = [(v, a) for v, a in zip(x, arrays, strict=True) if a.size]
    if not kept:
        return series(label, [], [], "points", group=group)
    mean, se = log_statistics([a for _, a in kept])
    low, high = np.exp(mean - 2 * se), np.exp(mean + 2 * se)
    return series(label, [v for v, _ in kept], np.exp(mean), "points", group=group, low=low, high=high)


def guide(label: str, x: Sequence[float], slope: float, through: tuple[float, float]) -> dict[str, Any]:
    """A straight line of that slope in log-log coordinates through one point."""
    ends = np.array([x[0], x[-1]], np.float64)
    return series(label, ends, through[1] * (ends / through[0]) ** slope, "guide")


def shades(count: int) -> list[float]:
    """Positions on a sequential colour map for an ordered family of curves."""
    return np.linspace(0.15, 0.95, count).tolist()


def mark(axis: str, at: float, label: str = "") -> dict[str, Any]:
    """A thin reference line."""
    return {"axis": axis, "at": float(at), "label": label}


def note(name: str, text: str) -> dict[str, str]:
    """A number printed under a figure."""
    return {"name": name, "text": text}


def slope_note(name: str, x: Sequence[float], samples: Sequence[Any], *, upper: bool = False) -> dict[str, str]:
    """A fitted slope with its interval, or that there is none."""
    arrays = [np.asarray(s, np.float64).ravel() for s in samples]
    if len(arrays) < 2 or not all(a.size and np.all(np.isfinite(a) & (a > 0)) for a in arrays):
        return note(name, "none: some values are not finite and positive")
    return note(name, interval(fit_samples(x, arrays, upper=upper)))
