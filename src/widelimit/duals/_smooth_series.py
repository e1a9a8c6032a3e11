"""Hermite series of functions without jumps: ``E[phi(u) phi(v)]`` from the gap of the pair, and the gap of the image.

With ``h = E[phi(u)^2]``, normalised coefficients ``b_k = a_k / sqrt(h)``, ``s' = sqrt(h1 h2)`` and ``rho = k / s``,

    (s' - K)/s' = sum_k b_k(v1) b_k(v2) (1 - rho^k) + sum_k (b_k(v1) - b_k(v2))^2 / 2,

where ``1 - rho^k`` comes from ``m / s = 1 - rho`` by a recurrence without subtractions; ``(s' + K)/s'`` likewise from
``p / s``, the even orders with ``1 + |rho|^k``.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from widelimit.duals._dual import Pair, derivative, deviation, half_line_rule

__all__ = ["smooth_image"]


@functools.lru_cache(maxsize=4)
def _rule(order: int):
    """Nodes z > 0 and the matrices ``w_i he_k(z_i)`` of even and of odd k, ``he_k = He_k / sqrt(k!)``."""
    z, w = half_line_rule()
    z, w = z[z > 0], w[z > 0]
    rows = [w, z * w]
    for k in range(1, order - 1):
        rows.append((z * rows[k] - np.sqrt(k) * rows[k - 1]) / np.sqrt(k + 1))
    return z, np.stack(rows[0:order:2]), np.stack(rows[1:order:2])


class _Side(NamedTuple):
    """Of one of the two variances v: ``sqrt(v)``, ``sqrt(h)``, ``b_k(v)`` of even and of odd k, the root of Parseval's
    defect, and ``E[phi'(u)]``."""

    sigma: Any
    root: Any
    b: tuple[Any, Any]
    tail: Any
    slope: Any


def _side(function, v, order: int) -> _Side:
    """The b_k are exact zeros where the function is odd or even."""
    dtype = jnp.result_type(v)
    z, even, odd = (jnp.asarray(a, dtype) for a in _rule(order))
    nodes, weights = (jnp.asarray(a, dtype) for a in half_line_rule())
    sigma = deviation(v)
    values = function(sigma[..., None] * nodes)
    h = values**2 @ weights
    root = deviation(h)
    inverse = 1 / jnp.where(h > 0, root, jnp.inf)
    right, left = values[..., len(z) :], values[..., : len(z)][..., ::-1]
    b = tuple(jnp.moveaxis(part @ H.T, -1, 0) * inverse for part, H in ((right + left, even), (right - left, odd)))
    # below the rounding of the sums that it is the difference of the defect is not known
    defect = 1 - 8 * jnp.finfo(dtype).eps - sum((a**2).sum(0) for a in b)
    tail = jax.lax.stop_gradient(jnp.sqrt(jnp.where(h > 0, jnp.maximum(defect, 0), 0)))
    # by Stein's lemma the coefficient of order 1 over sqrt(v)
    at_zero = derivative(function)(jnp.zeros((), dtype))
    slope = jnp.where(v > 0, b[1][0] * root / jnp.where(v > 0, sigma, 1), at_zero)
    return _Side(sigma, root, b, tail, jax.lax.stop_gradient(slope))


def smooth_image(function, pair: Pair, order: int):
    """K, differentiable, and the gap ``(s' - K, s' + K)`` of a function without jumps, from `order` (even) terms."""
    k, v1, v2, m, p = (jnp.asarray(a) for a in pair.with_gap()[:5])
    one = _side(function, v1, order)
    two = one if pair.v2 is pair.v1 else _side(function, v2, order)
    s, size = one.sigma * two.sigma, one.root * two.root
    positive = s > 0
    inverse = 1 / jnp.where(positive, s, jnp.inf)
    rho = jnp.clip(k * inverse, -1, 1)
    near = rho >= 0
    # the smaller of 1 - rho and 1 + rho: with the derivative of either, and the value of the gap
    tau = jnp.where(near, rho, -rho)
    edge = jnp.where(positive, jnp.where(near, m, p) * inverse, 1)
    q = 1 - tau + jax.lax.stop_gradient(edge - (1 - tau))
    small = size * _sums(tau, q, near, v1 == v2, one.b, two.b, one.tail, two.tail)
    large = 2 * size - small
    # where a variance is 0 rho is not differentiable, but K is: its slope is E[phi'(u)] E[phi'(v)] (Price 1958)
    edgeless = jnp.where(positive, 0, one.slope * two.slope) * (k - jax.lax.stop_gradient(k))
    kernel = jnp.where(near, size - small, small - size) + edgeless
    gap = jax.lax.stop_gradient((jnp.where(near, small, large), jnp.where(near, large, small)))
    return kernel, gap


@jax.jit  # traced once, not once a layer
def _sums(tau, q, near, equal, b1, b2, tail1, tail2):
    """``1 -+ K/s'``, whichever is the smaller by the sign of rho: see the top of the file."""
    shape = jnp.broadcast_shapes(tau.shape, tail1.shape, tail2.shape)
    sign = jnp.where(near, 1.0, -1.0).astype(q.dtype)

    def step(state, terms):
        y, total, evens, uneven = state  # y = 1 - tau^k
        (e1, o1), (e2, o2) = terms
        even, next_y = e1 * e2, q + tau * y
        total = total + even * y + sign * (o1 * o2) * next_y
        uneven = uneven + (e1 - e2) ** 2 + (o1 - o2) ** 2
        return (q + tau * next_y, total, evens + even, uneven), None

    start = (jnp.zeros(shape, q.dtype),) * 4
    (y, total, evens, uneven), _ = jax.lax.scan(step, start, (b1, b2), unroll=4)
    total, evens = total + tail1 * tail2 * y, evens + tail1 * tail2
    uneven = uneven + (tail1 - tail2) ** 2
    return jnp.where(near, total, 2 * evens - total) + jnp.where(equal, 0, uneven / 2)
