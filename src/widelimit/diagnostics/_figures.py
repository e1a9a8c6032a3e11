"""Figures of the report, as plain values that the room `report` draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from widelimit.diagnostics._result import Laziness
from widelimit.diagnostics._verdict import LAZY, RICH

__all__ = ["figure", "figures_of", "line", "panel"]

_SHOWN = 7  # parameters in a panel: as many colours and markers as there are


def line(label: str, x, y, group: int | None = None, *, style: str = "line", low=None, high=None) -> dict[str, Any]:
    """One series of a panel."""
    return {
        "label": label, "style": style, "x": x, "y": y, "low": low, "high": high, "group": group, "shade": None,
    }  # fmt: skip


def panel(
    title: str, xlabel: str, ylabel: str, series: Sequence[dict], scales: str, marks: Sequence[dict] = ()
) -> dict:
    """Axes with series; scales: of both axes, such as "log linear"; marks: horizontal lines with a label."""
    xscale, yscale = scales.split()
    return {
        "kind": "lines", "title": title, "xlabel": xlabel, "ylabel": ylabel, "xscale": xscale, "yscale": yscale,
        "xlim": None, "ylim": None, "legend": True, "series": list(series), "marks": list(marks),
    }  # fmt: skip


def figure(name: str, title: str, see: str, panels: Sequence[dict], columns: int = 2) -> dict[str, Any]:
    """A figure of the page."""
    return {
        "id": name, "title": title, "see": see, "claims": [], "columns": columns, "panels": list(panels), "numbers": [],
    }  # fmt: skip


def _mark(at: float, label: str) -> dict[str, Any]:
    return {"axis": "y", "at": at, "label": label}


def _most(found: Laziness, values: dict[str, np.ndarray], style: str = "line", into: str = "") -> list[dict[str, Any]]:
    """Lines of the parameters that end highest, each in its colour; those that are 0 throughout left out."""
    there = {k: v for k, v in values.items() if np.isfinite(v).any() and np.nanmax(v) > 0}
    kept = sorted(there, key=lambda k: -np.nan_to_num(there[k][-1]))[:_SHOWN]
    order, t = list(found.drift_by_parameter), found.times[1:]
    return [line(into + k, t, v[1:], order.index(k), style=style) for k, v in there.items() if k in kept]


def figures_of(found: Laziness) -> dict[str, Any]:
    """Drift and distance, movement, alignment and spectrum, curvature and loss, all over time."""
    t = found.times[1:]
    made = [_lazy(found, t), _moves(found, t), _kernel(found, t), _loss(found)]
    return {f["id"]: f for f in made}


def _lazy(found: Laziness, t) -> dict[str, Any]:
    change = np.nanmax(found.change) or 1.0
    marks = [_mark(LAZY, "lazy below"), _mark(RICH, "rich above")]
    distance = [line("training examples", t, found.gap[1:] / change, 0)]
    if found.gap_test is not None:
        distance.append(line("test examples", t, found.gap_test[1:] / change, 1))
    parts = _most(found, found.drift_by_parameter, "dashed")
    return figure(
        "drift", "Drift of the kernel and distance to the linearisation",
        "How far the kernel is from its start, as a whole and the parts of the parameters, and how far the outputs are "
        "from those of the linearised network, relative to how far they moved.",
        [
            panel("kernel drift", "step", "‖K_t − K_0‖ / ‖K_0‖", [line("whole kernel", t, found.drift[1:]), *parts],
                  "log log", marks),
            panel("distance to the linearisation", "step", "of the outputs' change", distance, "log log", marks),
        ],
    )  # fmt: skip


def _moves(found: Laziness, t) -> dict[str, Any]:
    moves = [line("all", t, found.movement_relative[1:]), *_most(found, found.movement_relative_by_parameter)]
    features = _most(found, found.features, "dashed", "into ")
    return figure(
        "movement", "Movement of parameters and features",
        "Parameters against their size at the start, and what each layer is given against what it was given then.",
        [
            panel("parameters", "step", "‖Δθ‖ / ‖θ_0‖", moves, "log log"),
            panel("features", "step", "rms change / rms", features, "log log"),
        ],
    )  # fmt: skip


def _kernel(found: Laziness, t) -> dict[str, Any]:
    aligned = [line("kernel", t, found.alignment[1:]), line("centred", t, found.alignment_centred[1:], style="dotted")]
    aligned += _most(found, found.alignment_by_parameter, "dashed")
    stable = [line("", t, found.instability[1:], 0)]
    return figure(
        "kernel", "What the kernel becomes",
        "Alignment with the targets (a lazy network keeps it, a rich one raises it), effective rank, and learning rate "
        "times largest curvature, which must stay below 2 for gradient descent to be stable.",
        [
            panel("alignment with the targets", "step", "cosine", aligned, "log linear"),
            panel("effective rank", "step", "exp(entropy)", [line("", t, found.effective_rank[1:], 0)], "log linear"),
            panel("learning rate × curvature", "step", "η λ", stable, "log linear", [_mark(2.0, "stable below 2")]),
        ],
        columns=3,
    )  # fmt: skip


def _loss(found: Laziness) -> dict[str, Any]:
    t = np.maximum(found.times, 0.5)  # the start has a place on a logarithmic axis
    loss = [
        line("training", t, found.loss, 0), line("training, linearised", t, found.loss_linear, 0, style="dashed"),
    ]  # fmt: skip
    if found.loss_test is not None and found.loss_test_linear is not None:
        loss += [
            line("test", t, found.loss_test, 1),
            line("test, linearised", t, found.loss_test_linear, 1, style="dashed"),
        ]
    panels = [panel("loss of an example", "step (the start at ½)", "loss", loss, "log log")]
    rates = []
    for name, group in (("accuracy", 0), ("accuracy_test", 1)):
        there, linear = getattr(found, name), getattr(found, name + "_linear")
        if there is not None and linear is not None:
            words = "training" if group == 0 else "test"
            rates += [line(words, t, there, group), line(f"{words}, linearised", t, linear, group, style="dashed")]
    if rates:
        panels.append(panel("accuracy", "step (the start at ½)", "of the examples", rates, "log linear"))
    return figure(
        "loss", "Network and linearisation", "What the linearised network reaches, and what features add.", panels
    )
