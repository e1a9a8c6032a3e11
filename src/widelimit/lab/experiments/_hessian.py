"""Claim 6: operator and Frobenius norm of the Hessian of one output in the parameters."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jax
import numpy as np
from jax.flatten_util import ravel_pytree

from widelimit.diagnostics import extreme_eigenvalues
from widelimit.lab._context import Context
from widelimit.lab._finite import Shape, draw, output
from widelimit.lab.experiments._base import Experiment


@lru_cache(maxsize=32)
def _product(shape: Shape):
    """Compiled ``(params, x, v) -> H v`` with the Hessian H of f(x) in all parameters, as vectors."""

    def run(params, x, v):
        flat, back = ravel_pytree(params)
        return jax.jvp(jax.grad(lambda theta: output(shape, back(theta), x[None])[0]), (flat,), (v,))[1]

    return jax.jit(run)


def _norms(shape: Shape, seed: int, x: np.ndarray, probes: int) -> tuple[float, float]:
    """Operator and Frobenius norm of the Hessian of one random network at x, by products with vectors.

    The operator norm by Lanczos; ``||H||_F^2 = E |H v|^2`` over Gaussian v.
    """
    params, x = draw(shape, seed), np.asarray(x, np.float32)
    product = _product(shape)

    def times(v):
        return np.asarray(product(params, x, np.asarray(v, np.float32)))

    vectors = [np.asarray(ravel_pytree(draw(shape, seed + k))[0]) for k in range(1, probes + 1)]
    squares = [float(np.linalg.norm(times(v))) ** 2 for v in vectors]
    ends = extreme_eigenvalues(times, vectors[0].size, precision=1e-3)
    return float(np.abs(ends).max()), float(np.sqrt(np.mean(squares)))


def run(context: Context) -> dict[str, Any]:
    """Norms by width and seed; each seed looks at another training point."""
    quick = context.settings.effort == "quick"
    probes = 4 if quick else 8
    widths = context.widths[::2] if quick and len(context.widths) > 4 else context.widths

    def one_width(width: int) -> np.ndarray:
        seeds = min(3 * context.fewer_seeds(context.widths[-1]), context.fewer_seeds(width))
        points = [context.task.train[i % context.task.n] for i in range(seeds)]
        return np.array(
            [_norms(context.shape(width), context.seed("hessian", width, i), x, probes) for i, x in enumerate(points)]
        )

    values = context.map(one_width, widths)
    return {
        "widths": list(widths),
        "operator": [v[:, 0] for v in values],
        "frobenius": [v[:, 1] for v in values],
    }


EXPERIMENT = Experiment("hessian", "Hessian of the output", run, (10, 25, 300))
