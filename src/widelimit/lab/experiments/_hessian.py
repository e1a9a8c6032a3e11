"""Claim 6: operator and Frobenius norm of the Hessian of one output in the parameters."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from widelimit.lab._context import Context
from widelimit.lab._finite import Shape, draw, output
from widelimit.lab.experiments._base import Experiment


def _norm(tree) -> jax.Array:
    return jnp.sqrt(sum(jnp.sum(a * a) for a in jax.tree.leaves(tree)))


@lru_cache(maxsize=32)
def _product(shape: Shape):
    """Compiled ``(params, x, v) -> (H v / |H v|, |H v|)`` with the Hessian H of f(x) in all parameters."""

    def run(params, x, v):
        gradient = jax.grad(lambda p: output(shape, p, x[None])[0])
        w = jax.jvp(gradient, (params,), (v,))[1]
        size = _norm(w)
        return jax.tree.map(lambda a: a / jnp.maximum(size, 1e-30), w), size

    return jax.jit(run)


def _norms(shape: Shape, seed: int, x: np.ndarray, iterations: int, probes: int) -> tuple[float, float]:
    """Operator and Frobenius norm of the Hessian of one random network at x, by products with vectors.

    Power iteration converges to the eigenvalue of largest magnitude, a pair of opposite signs included,
    because only the length of ``H v`` is read; ``||H||_F^2 = E |H v|^2`` over Gaussian v.
    """
    params, x = draw(shape, seed), np.asarray(x, np.float32)
    product = _product(shape)
    squares = [float(product(params, x, draw(shape, seed + k))[1]) ** 2 for k in range(1, probes + 1)]
    v, size = product(params, x, draw(shape, seed + probes + 1))
    for _ in range(iterations):
        v, size = product(params, x, v)
    return float(size), float(np.sqrt(np.mean(squares)))


def run(context: Context) -> dict[str, Any]:
    """Norms by width and seed; each seed looks at another training point."""
    quick = context.settings.effort == "quick"
    iterations, probes = (40, 4) if quick else (80, 8)
    widths = context.widths[::2] if quick and len(context.widths) > 4 else context.widths

    def one_width(width: int) -> np.ndarray:
        seeds = min(3 * context.fewer_seeds(context.widths[-1]), context.fewer_seeds(width))
        points = [context.task.train[i % context.task.n] for i in range(seeds)]
        return np.array(
            [
                _norms(context.shape(width), context.seed("hessian", width, i), x, iterations, probes)
                for i, x in enumerate(points)
            ]
        )

    values = context.map(one_width, widths)
    return {
        "widths": list(widths),
        "operator": [v[:, 0] for v in values],
        "frobenius": [v[:, 1] for v in values],
    }


EXPERIMENT = Experiment("hessian", "Hessian of the output", run, (10, 25, 300))
