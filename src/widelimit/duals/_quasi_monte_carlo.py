"""Expectations of functions of several Gaussians: randomised quasi-Monte Carlo, with the error it makes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["DEFAULT_POINTS", "gaussian_average"]

DEFAULT_POINTS = 4096
_REPLICATES = 8
_CHUNK = 16


@functools.lru_cache(maxsize=32)
def _points(dimension: int, points: int) -> np.ndarray:
    """Normal quantiles of independently scrambled Sobol points, (replicates, chunks, chunk, dimension)."""
    from scipy import special, stats  # here: `import widelimit` must stay quick

    each = max(_CHUNK, 2 ** int(np.ceil(np.log2(points / _REPLICATES))))
    out = []
    for seed in range(_REPLICATES):
        uniform = stats.qmc.Sobol(dimension, scramble=True, rng=np.random.default_rng(seed)).random(each)
        out.append(special.ndtri(np.clip(uniform, 2.0**-53, 1 - 2.0**-53)))
    return np.stack(out).reshape(_REPLICATES, each // _CHUNK, _CHUNK, dimension)


def _factor(covariance: list[list[Any]]) -> list[list[Any]]:
    """Cholesky factor, entry by entry; None is a structural zero, and so is a pivot below rounding."""
    size = len(covariance)
    L: list[list[Any]] = [[None] * size for _ in range(size)]
    for j in range(size):
        variance = covariance[j][j]
        pivot = _less(variance, L[j][:j], L[j][:j])
        positive = pivot > 16 * jnp.finfo(jnp.result_type(variance)).eps * variance
        root = jnp.sqrt(jnp.where(positive, pivot, 1))
        L[j][j] = jnp.where(positive, root, 0)
        for i in range(j + 1, size):
            value = _less(covariance[i][j], L[i][:j], L[j][:j])
            L[i][j] = None if value is None else jnp.where(positive, value / root, 0)
    return L


def _less(value, row, column):
    for a, b in zip(row, column, strict=True):
        if a is not None and b is not None:
            value = (0.0 if value is None else value) - a * b
    return value


def gaussian_average(
    function: Callable, means: list[Any], covariance: list[list[Any]], points: int = DEFAULT_POINTS
) -> tuple[Any, Any]:
    """``E[phi(u_1, ..., u_k)]``, ``u ~ N(means, covariance)``, and its standard error.

    ``(1/N) sum_i phi(means + L z_i)``, ``L L^T = covariance``, over 8 independent scramblings of Sobol points, whose
    scatter gives the error.  function: of a tuple of arrays with a leading axis over points.  means: arrays or None;
    covariance: lower triangle, arrays that broadcast against each other, or None for 0; singular ones are right.
    Source: Owen 1997 (scrambled nets); error by replication, Owen 2013, ch. 17.
    """
    dtype = jnp.result_type(*(covariance[i][i] for i in range(len(covariance))))
    L = _factor(covariance)
    nodes = jnp.asarray(_points(len(L), points), dtype)
    entries = [a for row in L for a in row if a is not None] + [m for m in means if m is not None]
    shape = jnp.broadcast_shapes(*(jnp.shape(a) for a in entries))

    def chunk(z):
        z = z.reshape(z.shape + (1,) * len(shape))
        u = []
        for row, mean in zip(L, means, strict=True):
            value = sum(a * z[:, j] for j, a in enumerate(row) if a is not None)
            value = value if mean is None else value + mean
            u.append(jnp.broadcast_to(value, (z.shape[0], *shape)))
        return jnp.sum(function(tuple(u)), axis=0).astype(dtype)

    def replicate(_, chunks):
        start = jnp.zeros(jax.eval_shape(chunk, chunks[0]).shape, dtype)
        total, _ = jax.lax.scan(lambda total, z: (total + chunk(z), None), start, chunks)
        return None, total / (chunks.shape[0] * chunks.shape[1])

    _, values = jax.lax.scan(replicate, None, nodes)
    error = jnp.std(values, axis=0, ddof=1) / _REPLICATES**0.5
    return jnp.mean(values, axis=0), jax.lax.stop_gradient(error)
