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
_DRAWN = 192  # coordinates of the points, of which the first are used
_FEW = 12  # Gaussians that are computed one array each, which vectorises; more compile too long


@functools.lru_cache(maxsize=32)
def _points(dimension: int, points: int) -> np.ndarray:
    """Normal quantiles of independently scrambled Sobol points, (replicates, chunks, chunk, dimension).

    The first coordinates do not depend on how many there are, so that averages over one example and over it and its
    equal have the same error: what is a covariance of both stays one.
    """
    from scipy import special, stats  # here: `import widelimit` must stay quick

    each = max(_CHUNK, 2 ** int(np.ceil(np.log2(points / _REPLICATES))))
    drawn = max(dimension, _DRAWN)
    out = []
    for seed in range(_REPLICATES):
        uniform = stats.qmc.Sobol(drawn, scramble=True, rng=np.random.default_rng(seed)).random(each)[:, :dimension]
        out.append(special.ndtri(np.clip(uniform, 2.0**-53, 1 - 2.0**-53)))
    return np.stack(out).reshape(_REPLICATES, each // _CHUNK, _CHUNK, dimension)


def _factor(covariance):
    """Cholesky factor of (..., k, k); a pivot below rounding, of a singular covariance, counts as 0."""
    size = covariance.shape[-1]
    scale = jnp.diagonal(covariance, axis1=-2, axis2=-1)
    eps = jnp.finfo(covariance.dtype).eps

    def column(j, state):
        rest, L = state
        pivot = rest[..., j, j]
        positive = pivot > 16 * eps * scale[..., j]
        root = jnp.sqrt(jnp.where(positive, pivot, 1))
        new = jnp.where(positive[..., None], rest[..., j] / root[..., None], 0)
        new = jnp.where(jnp.arange(size) >= j, new, 0)
        return rest - new[..., :, None] * new[..., None, :], L.at[..., j].set(new)

    return jax.lax.fori_loop(0, size, column, (covariance, jnp.zeros_like(covariance)))[1]


def gaussian_average(function: Callable, means, covariance, points: int = DEFAULT_POINTS) -> tuple[Any, Any]:
    """``E[phi(u_1, ..., u_k)]``, ``u ~ N(means, covariance)``, and its standard error.

    ``(1/N) sum_i phi(means + L z_i)``, ``L L^T = covariance``, over 8 independent scramblings of Sobol points, whose
    scatter gives the error.  function: of the tuple u of arrays (points, ...).  means (..., k), covariance (..., k, k):
    singular ones too.  Source: Owen 1997 (scrambled nets); error by replication, Owen 2013, ch. 17.
    """
    dtype, size = covariance.dtype, covariance.shape[-1]
    L = _factor(covariance)
    rows = [(means[..., i], [L[..., i, j] for j in range(i + 1)]) for i in range(size if size <= _FEW else 0)]
    nodes = jnp.asarray(_points(size, points), dtype)

    def vector(z):
        if size > _FEW:
            # few axes: XLA's products of arrays of many have failed
            u = jnp.einsum("bij,pj->pbi", L.reshape(-1, size, size), z, precision="highest")
            u = means + u.reshape(len(z), *L.shape[:-1])
            return tuple(u[..., i] for i in range(size))
        z = z.T.reshape((size, -1) + (1,) * (L.ndim - 2))
        return tuple(mean + sum(a * zj for a, zj in zip(row, z, strict=False)) for mean, row in rows)

    def chunk(z):
        return jnp.sum(function(vector(z)), axis=0).astype(dtype)

    def replicate(_, chunks):
        start = jnp.zeros(jax.eval_shape(chunk, chunks[0]).shape, dtype)
        total, _ = jax.lax.scan(lambda total, z: (total + chunk(z), None), start, chunks)
        return None, total / (chunks.shape[0] * chunks.shape[1])

    _, values = jax.lax.scan(replicate, None, nodes)
    error = jnp.std(values, axis=0, ddof=1) / _REPLICATES**0.5
    return jnp.mean(values, axis=0), jax.lax.stop_gradient(error)
