"""Claims 1 and 2: how fast the kernels of random networks approach their limits."""

from __future__ import annotations

from typing import Any

import numpy as np

from widelimit.lab import _limit
from widelimit.lab._activations import usual_W_std
from widelimit.lab._context import Context
from widelimit.lab._finite import Shape, at_start
from widelimit.lab.experiments._base import Experiment


def _variants(context: Context) -> list[tuple[str, Shape]]:
    """The user's network first, then (not in a quick run) the same with another activation or depth."""
    s = context.settings
    own = context.shape(4)
    other = "relu" if s.activation != "relu" else "erf"
    out = [own]
    if s.effort != "quick":
        out.append(own._replace(activation=other, W_std=usual_W_std(other)))
        out += [own._replace(depth=depth) for depth in (1, 3) if depth != s.depth]
    return [(f"{v.activation}, {v.depth} hidden", v) for v in out]


def _distance(K: np.ndarray, limit: np.ndarray) -> float:
    return float(np.linalg.norm(K - limit) / np.linalg.norm(limit))


def run(context: Context) -> dict[str, Any]:
    """Relative Frobenius errors of NNGP and NTK by network, width and seed; kernels of the first seed."""
    X = context.task.X  # all points, as in training: one compiled program
    variants = _variants(context)
    n = context.task.n
    limits = [[K[:n, :n] for K in _limit.limit_kernels(base, context.task.X)] for _, base in variants]

    def one(job: tuple[int, int]) -> dict[str, Any]:
        width, v = job
        nngp_limit, ntk_limit = limits[v]
        draws = [
            at_start(variants[v][1]._replace(width=width), context.seed("initialisation", v, width, i), X)
            for i in range(context.sizes.init_seeds)
        ]
        ntk = [start.ntk[:n, :n] for start in draws]
        return {
            "nngp": [_distance(start.nngp[:n, :n], nngp_limit) for start in draws],
            "ntk": [_distance(K, ntk_limit) for K in ntk],
            "bias": _distance(np.mean(ntk, axis=0), ntk_limit),
            "kernel": ntk[0],
        }

    jobs = [(width, v) for width in context.widths for v in range(len(variants))]
    cells = dict(zip(jobs, context.map(one, jobs), strict=True))
    networks = [
        {
            "label": label,
            **{name: [cells[w, v][name] for w in context.widths] for name in ("nngp", "ntk", "bias")},
        }
        for v, (label, _) in enumerate(variants)
    ]
    return {
        "widths": list(context.widths),
        "networks": networks,
        "limit": limits[0][1],
        "kernels": [cells[w, 0]["kernel"] for w in context.widths],
    }


EXPERIMENT = Experiment("initialisation", "Kernels of random networks", run, (10, 25, 200))
