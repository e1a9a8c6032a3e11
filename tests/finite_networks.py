"""Both kernels of finite networks, averaged over draws of their parameters.

The finite networks know nothing of the limit: parameters theta and directions d (variance lr) are drawn, and f and
its derivative along d are run.  At every width ``E[df(x) df(x')] = E[sum lr df(x)/dtheta df(x')/dtheta]``, so one
program gives both kernels, averaged over many outputs.  Means at one width are off by O(1/n); ``2 m(2n) - m(n)`` is off
by O(1/n^2) only, so that 4 standard errors need no allowance.
"""

from __future__ import annotations

import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np

SEEDS = 2000


@functools.cache
def numbers(shape, name):
    """Standard normal numbers, the same for every network: each comparison is sound by itself."""
    seed = zlib.crc32(f"{shape} {name}".encode())
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def kernels_of_draws(f, params, directions, inputs, seed):
    """``f f'`` and ``df df'`` averaged over outputs, of each draw: (SEEDS, 2, inputs, inputs).

    f: ``f(params, x, key)``; params, directions: pytrees whose leaves have a leading axis over draws.
    """
    x = jnp.asarray(inputs, jnp.float32)

    def one(params, direction, key):
        noise = jax.random.split(key, len(x))  # each example has masks of its own
        both = jax.jvp(lambda p: jax.vmap(f, (None, 0, 0))(p, x, noise), (params,), (direction,))
        return jnp.stack([a @ a.T / a.shape[1] for a in both])

    keys = jax.random.split(jax.random.key(seed, impl="rbg"), SEEDS)  # compiles quickly
    return np.asarray(jax.jit(jax.vmap(one))(params, directions, keys), np.float64)


def extrapolated(small, large):
    """``2 m(2n) - m(n)`` and its standard error, from the draws at width n and 2n."""
    error = np.sqrt((4 * large.var(0, ddof=1) + small.var(0, ddof=1)) / len(small))
    return 2 * large.mean(0) - small.mean(0), error
