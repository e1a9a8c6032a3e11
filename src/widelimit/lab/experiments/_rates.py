"""Claims 11 and B: gradient descent below and above the learning rate 2/lambda_max."""

from __future__ import annotations

from typing import Any

import numpy as np

from widelimit.lab._context import Context
from widelimit.lab._finite import Rule, Trained
from widelimit.lab.experiments._base import Experiment


def run(context: Context) -> dict[str, Any]:
    """Drift, losses and lambda_max by learning rate (in units of 1/lambda_max of the network's own kernel)
    and width.

    Half the steps of the other experiments: the fastest modes decide.
    """
    times = context.times(context.sizes.steps // 2)
    widths = context.upper_widths
    by_width = context.map(lambda width: _one_width(context, width, times), widths)
    shown = len(widths) // 2
    rows = []
    for k, eta in enumerate(context.sizes.etas):
        row: dict[str, Any] = {"eta": eta}
        row |= {name: [columns[k][name] for columns in by_width] for name in ("drift", "ratio")}
        row |= {name: by_width[shown][k][name] for name in ("loss_curve", "sharpness_curve")}
        rows.append(row)
    return {
        "times": times,
        "widths": list(widths),
        "etas": list(context.sizes.etas),
        "rows": rows,
        "shown_width": widths[shown],
    }


def _networks(context: Context, width: int, eta: float) -> int:
    """Above the threshold the drift is of order one and scatters little; just below it scatters most, and the few
    networks of the quick run would not tell its exponent from one outside the band.
    """
    if eta > 2:
        return context.fewer_seeds(width) // 2 + 1
    return context.settings.seeds_at(width) * (2 if eta > 1 and context.settings.effort == "quick" else 1)


def _one_width(context: Context, width: int, times: np.ndarray) -> list[dict[str, Any]]:
    """One row for each rate."""
    etas, n, y = context.sizes.etas, context.task.n, context.task.y
    counts = [_networks(context, width, eta) for eta in etas]
    runs: list[list[Trained]] = [[] for _ in etas]
    for i in range(max(counts)):
        # The curves are those of the first network; of the others only the end is wanted.
        look = times if i == 0 else context.ends(times[-1])
        for eta, count, row in zip(etas, counts, runs, strict=True):
            if i < count:
                row.append(context.train(width, context.seed("rates", width, i), look, Rule(rate=eta)))
    return [_row(row, n, y) for row in runs]


def _row(runs: list[Trained], n: int, y: np.ndarray) -> dict[str, Any]:
    loss = [0.5 * ((r.record.f[:, :n] - y) ** 2).sum(1) for r in runs]
    return {
        "drift": [r.record.drift[-1] for r in runs],
        "ratio": [curve[-1] / curve[0] for curve in loss],
        "loss_curve": loss[0],
        "sharpness_curve": runs[0].record.lambda_max * runs[0].learning_rate,
    }


EXPERIMENT = Experiment("rates", "Learning rates below and above 2/λmax", run, (20, 80, 1500), revision=2)
