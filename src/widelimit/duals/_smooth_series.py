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

from widelimit.duals._dual import PANEL, Pair, derivative, deviation, half_line_rule

__all__ = ["smooth_image", "smooth_kernel"]


@functools.lru_cache(maxsize=4)
def _rule(order: int, panel: int):
    """Nodes z and -z on an axis of two, weights w, and ``w_i he_k(z_i)`` by parity and k/2, ``he_k = He_k / sqrt(k!)``.

    The nodes in panels of a given length: sums over the nodes of one and then over panels round less than a long one.
    """
    z, w = half_line_rule()
    z, w = z[z > 0], w[z > 0]
    rows = [w, z * w]
    for k in range(1, order - 1):
        rows.append((z * rows[k] - np.sqrt(k) * rows[k - 1]) / np.sqrt(k + 1))
    H = np.stack(rows).reshape(order // 2, 2, -1, panel or len(z)).swapaxes(0, 1)
    return np.stack([z, -z]).reshape(2, *H.shape[2:]), 2 * w.reshape(H.shape[2:]), 2 * H


class _Side(NamedTuple):
    """Of one of the two variances v: ``sqrt(v)``, ``sqrt(h)``, ``b_k(v)`` (k/2, parity, ...), the root of Parseval's
    defect (parity, ...), and ``E[phi'(u)]``."""

    sigma: Any
    root: Any
    b: Any
    tail: Any
    slope: Any


def _side(function, v, order: int) -> _Side:
    """The b_k are exact zeros where the function is odd or even."""
    dtype = jnp.result_type(v)
    sigma, points = _points(v, order)
    at_zero = derivative(function)(jnp.zeros((), dtype))
    return _Side(*_coefficients(v, sigma, function(points), at_zero, order))


def _arrays(dtype, order: int):
    return (jnp.asarray(a, dtype) for a in _rule(order, 0 if dtype == jnp.float64 else PANEL))


@functools.partial(jax.jit, static_argnums=1)
def _points(v, order: int):
    sigma = deviation(v)
    return sigma, sigma[..., None, None, None] * next(_arrays(jnp.result_type(v), order))


@functools.partial(jax.jit, static_argnums=4)
def _coefficients(v, sigma, values, at_zero, order: int):
    """The fields of a `_Side` from the function's values at the points."""
    dtype = jnp.result_type(v)
    _, w, H = _arrays(dtype, order)
    right, left = values[..., 0, :, :], values[..., 1, :, :]
    halves = jnp.stack([right + left, right - left]) / 2  # the even and the odd part
    squares = jnp.einsum("q...pn,pn->q...p", halves**2, w).sum(-1)
    h = squares[0] + squares[1]
    root = deviation(h)
    inverse = 1 / jnp.where(h > 0, root, jnp.inf)
    b = jnp.einsum("q...pn,qkpn->kq...p", halves, H).sum(-1) * inverse
    # below the rounding of the sums that it is the difference of the defect is not known
    defect = squares * inverse**2 - (b**2).sum(0) - 8 * jnp.finfo(dtype).eps
    # by Stein's lemma E[phi'(u)] is the coefficient of order 1 over sqrt(v)
    slope = jnp.where(v > 0, b[0, 1] * root / jnp.where(v > 0, sigma, 1), at_zero)
    return sigma, root, b, *jax.lax.stop_gradient((jnp.sqrt(jnp.maximum(defect, 0)), slope))


def smooth_image(function, pair: Pair, order: int):
    """K, differentiable, and the gap ``(s' - K, s' + K)`` of a function without jumps, from `order` (even) terms."""
    k, v1, v2, m, p = (jnp.asarray(a) for a in pair.with_gap()[:5])
    one = _side(function, v1, order)
    two = one if pair.v2 is pair.v1 else _side(function, v2, order)
    return _image(k, v1, v2, m, p, one, two)


@jax.jit
def _image(k, v1, v2, m, p, one: _Side, two: _Side):
    s, size = one.sigma * two.sigma, one.root * two.root
    positive = s > 0
    inverse = 1 / jnp.where(positive, s, jnp.inf)
    rho = jnp.clip(k * inverse, -1, 1)
    near = rho >= 0
    # the smaller of 1 - rho and 1 + rho: with the derivative of either, and the value of the gap
    tau = jnp.where(near, rho, -rho)
    edge = jnp.where(positive, jnp.where(near, m, p) * inverse, 1)
    q = 1 - tau + jax.lax.stop_gradient(edge - (1 - tau))
    direct, small = (size * a for a in _sums(tau, q, near, v1 == v2, one.b, two.b, one.tail, two.tail))
    large = 2 * size - small
    # where a variance is 0 rho is not differentiable, but K is: its slope is E[phi'(u)] E[phi'(v)] (Price 1958)
    edgeless = jnp.where(positive, 0, one.slope * two.slope) * (k - jax.lax.stop_gradient(k))
    value = jnp.where(2 * small < size, jnp.where(near, size - small, small - size), direct)
    kernel = direct + jax.lax.stop_gradient(value - direct) + edgeless
    gap = jax.lax.stop_gradient((jnp.where(near, small, large), jnp.where(near, large, small)))
    return kernel, gap


@jax.jit  # traced once, not once a layer
def _sums(tau, q, near, equal, b1, b2, tail1, tail2):
    """``K/s'`` and, not differentiable, ``1 -+ K/s'``, the minus for positive rho: see the top of the file."""
    shape = jnp.broadcast_shapes(tau.shape, tail1.shape[1:], tail2.shape[1:])
    sign = jnp.where(near, 1.0, -1.0).astype(q.dtype)

    def step(state, terms):
        y, direct, total, evens, uneven = state  # y = 1 - tau^k
        (e1, o1), (e2, o2) = terms
        even, odd, next_y = e1 * e2, sign * (o1 * o2), q + tau * y
        direct = direct + even * (1 - y) + odd * (1 - next_y)
        total = total + even * y + odd * next_y
        uneven = uneven + (e1 - e2) ** 2 + (o1 - o2) ** 2
        return (q + tau * next_y, direct, total, evens + even, uneven), None

    start = (jnp.zeros(shape, q.dtype),) * 5
    state, _ = jax.lax.scan(step, start, (b1, b2), unroll=8)
    # what is left out as if of the first orders left out
    _, direct, total, evens, uneven = step(state, (tail1, tail2))[0]
    small = jnp.where(near, total, 2 * evens - total) + jnp.where(equal, 0, uneven / 2)
    return direct, jax.lax.stop_gradient(small)


def smooth_kernel(function, pair: Pair, order: int):
    """K of a function without jumps, where the gap of the pair does not matter."""
    v1, v2 = jnp.asarray(pair.v1), jnp.asarray(pair.v2)
    one = _side(function, v1, order)
    two = one if pair.v2 is pair.v1 else _side(function, v2, order)
    return _kernel(pair.k, one, two)


@jax.jit
def _kernel(k, one: _Side, two: _Side):
    s = one.sigma * two.sigma
    rho = jnp.clip(k / jnp.where(s > 0, s, jnp.inf), -1, 1)
    total = _power_series(rho, one.b, two.b, one.tail, two.tail)
    return one.root * two.root * total


def _power_series(rho, b1, b2, tail1, tail2):
    def step(total, terms):
        (e1, o1), (e2, o2) = terms
        return (total * rho + o1 * o2) * rho + e1 * e2, None

    start = jnp.broadcast_to(tail1[1] * tail2[1] * rho + tail1[0] * tail2[0], jnp.shape(rho + tail1[0] * tail2[0]))
    reverse = jax.tree.map(lambda a: a[::-1], (b1, b2))
    return jax.lax.scan(step, start, reverse, unroll=8)[0]
