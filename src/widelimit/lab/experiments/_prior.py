"""Figure F2: random networks along a great circle, and the band of the Gaussian process they converge to."""

from __future__ import annotations

from typing import Any

import numpy as np

from widelimit.lab._context import Context
from widelimit.lab._finite import at_start
from widelimit.lab.experiments._base import Experiment

NETWORKS = 200
SHOWN = 20


def run(context: Context) -> dict[str, Any]:
    """Outputs of the first few networks on the path, and the share of all within two standard deviations."""
    width = context.widths[len(context.widths) // 2]
    X = context.task.X[context.task.path]
    std = np.sqrt(np.diag(context.limit[0])[context.task.path])
    draws = []
    for i in range(NETWORKS):
        draws.append(at_start(context.shape(width), context.seed("prior", i), X).f)
        if i % 20 == 19:
            context.tick(i + 1, NETWORKS)
    f = np.array(draws)
    share = (np.abs(f) < 2 * std).mean(1)
    return {
        "width": width,
        "networks": NETWORKS,
        "angle": context.task.angle,
        "marks": context.task.marks,
        "std": std,
        "draws": f[:SHOWN],
        "inside": share.mean(),
        "inside_se": share.std(ddof=1) / np.sqrt(NETWORKS),
    }


EXPERIMENT = Experiment("prior", "Random networks before training", run, (2, 2, 4))
