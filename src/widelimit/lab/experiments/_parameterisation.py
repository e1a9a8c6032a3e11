"""Claim 14: the largest stable learning rate and the kernel's trace in the NTK and the standard
parameterisation.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from widelimit import dynamics
from widelimit.lab import _limit
from widelimit.lab._context import Context
from widelimit.lab._finite import at_start
from widelimit.lab.experiments._base import Experiment


def run(context: Context) -> dict[str, Any]:
    """Trace per point and largest stable learning rate 2/lambda_max by width and seed, without training.

    The input layer, whose fan-in is not the width, hides the trend until the width is large against it: so
    two wider networks are added, and what theory says at each of the widths.
    """
    last = context.widths[-1]
    widths = [*context.widths, 2 * last, 4 * last]
    n = context.task.n

    def one_width(width: int) -> list[tuple[np.ndarray, ...]]:
        seeds = context.sizes.init_seeds if width <= last else max(4, context.sizes.init_seeds // 4)
        X = context.task.X if width <= last else context.task.train  # all points: the program that training has
        starts = [at_start(context.shape(width), context.seed("parameterisation", width, i), X) for i in range(seeds)]
        return [tuple(0.5 * (K + K.T)[:n, :n] for K in (start.ntk, start.standard)) for start in starts]

    draws = context.map(one_width, widths)
    out: dict[str, Any] = {"widths": widths}
    for j, name in enumerate(("ntk", "standard")):
        out[name] = {
            "trace": [[np.trace(pair[j]) / n for pair in row] for row in draws],
            "rate": [[float(dynamics.max_learning_rate(pair[j])) for pair in row] for row in draws],
        }
    fixed, growing = _limit.standard_ntk(context.shape(last), context.task.train)
    kernels = [fixed + width * growing for width in widths]
    out["theory"] = {
        "trace": [np.trace(K) / n for K in kernels],
        "rate": [float(dynamics.max_learning_rate(K)) for K in kernels],
    }
    return out


EXPERIMENT = Experiment("parameterisation", "Standard and NTK parameterisation", run, (5, 8, 60), revision=2)
