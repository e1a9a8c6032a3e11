"""From lazy to rich: the output scale alpha of Chizat et al. 2019 at one width."""

from __future__ import annotations

from typing import Any

import numpy as np

from widelimit.diagnostics import alignment
from widelimit.lab._context import Context
from widelimit.lab._finite import Rule
from widelimit.lab.experiments._base import Experiment

ALPHAS = (0.0625, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)


def run(context: Context) -> dict[str, Any]:
    """Drift, test loss, alignment and distance to the linearised network for outputs ``alpha (f - f_0)``."""
    width = context.widths[min(1, len(context.widths) - 1)]
    times = context.times(2 * context.sizes.steps)[1::2]
    times[0] = 0
    task = context.task
    seen = slice(0, task.test.stop)
    seeds = max(4, context.settings.seeds_at(width) // 2)

    def one(alpha: float) -> dict[str, Any]:
        # A low rate: below alpha = 1 the curvature grows while the network learns features.
        rule = Rule(alpha=alpha, centre=1.0, rate=0.25)
        runs = [context.train(width, context.seed("scale", i), times, rule) for i in range(seeds)]
        last = [r.record.f[-1] for r in runs]
        return {
            "drift": [r.record.drift[-1] for r in runs],
            "test_loss": [np.mean((f[task.test] - task.y_test) ** 2) for f in last],
            "train_loss": [np.mean((f[: task.n] - task.y) ** 2) for f in last],
            "alignment": [alignment(r.record.K[-1], task.y) for r in runs],
            "alignment_start": [alignment(r.K0[: task.n], task.y) for r in runs],
            "linear_gap": [
                np.sqrt(np.mean((r.record.f - r.record.f_linear)[:, seen] ** 2, axis=1)).max() for r in runs
            ],
        }

    rows = context.map(one, ALPHAS)
    return {"width": width, "alphas": list(ALPHAS)} | {name: [row[name] for row in rows] for name in rows[0]}


EXPERIMENT = Experiment("scale", "Output scale from rich to lazy", run, (3, 8, 60))
