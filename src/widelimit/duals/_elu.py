"""Exponential linear units: elu, celu, selu."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from widelimit.duals._dual import Dual, Pair, Sides, deviation
from widelimit.duals._mills import ROOT_TAU, bend, mills
from widelimit.duals._rectified import _angle
from widelimit.duals._wedge import Wedge, below, edge, facing_and_crossed, legendre, sine

__all__ = ["Elu"]

# Below this difference of deviations four Gauss-Legendre nodes are exact, above it differences lose few digits.
_SHORT = 1 / 8

# Functions below are of phi(z) = z if z > 0 else gamma (e^z - 1); gamma is their first argument.


def _mean(gamma, v):
    return ((1 - gamma) * deviation(v) + gamma * bend(v)) / ROOT_TAU


def _square(gamma, v):
    return v / 2 + gamma**2 * (bend(4 * v) - 2 * bend(v)) / ROOT_TAU


def _parallel(gamma, v1, v2):
    # E[phi phi] at rho = 1
    s1, s2 = deviation(v1), deviation(v2)
    return s1 * s2 / 2 + gamma**2 * (bend((s1 + s2) ** 2) - bend(v1) - bend(v2)) / ROOT_TAU


def _parts(gamma, v1, v2, m, p):
    """near, and ``E[phi phi]``: if near, what it lacks of its value at rho = 1; else itself."""
    w = Wedge.of(v1, v2, m, p)
    relu = w.s * jnp.where(w.near, w.h2 - w.g / (2 * jnp.pi), w.g / (2 * jnp.pi))
    facing, crossed = facing_and_crossed(w, m)
    return w.near, relu + gamma * jnp.where(w.near, 1, -1) * facing + gamma**2 * crossed


@functools.lru_cache(maxsize=2)
def _orders(count: int) -> np.ndarray:
    """Of n = 2, 3, ...: ``he_(n-2)(0)``, ``n - 1``, ``n (n - 1)``."""
    hermite = [1.0, 0.0]
    for j in range(1, count):
        hermite.append(-hermite[j - 1] * (j / (j + 1)) ** 0.5)
    n = np.arange(2.0, count)
    return np.stack([hermite[: count - 2], n - 1, n * (n - 1)], axis=1)


@functools.partial(jax.jit, static_argnums=0)
def _about_orthogonal(gamma, k, v1, v2):
    """``E[phi phi] = sum_n a_n(v1) a_n(v2) rho^n``, and where it has all its digits: ``|rho| <= 1/2``.

    By Stein's lemma ``sqrt(n (n-1)) a_n = v E[phi'' he_(n-2)]``, and ``c_j = E[e^(s z) 1(z < 0) he_j(z)]`` is
    ``(s c_(j-1) - he_(j-1)(0)/sqrt(2 pi)) / sqrt(j)``; he_j: the Hermite polynomial over ``sqrt(j!)``.
    """
    s = [deviation(v) for v in (v1, v2)]
    rho = k / jnp.where(s[0] * s[1] > 0, s[0] * s[1], 1)
    inside = (jnp.abs(rho) <= 1 / 2) & (jnp.abs(rho) * jnp.maximum(*s) <= 1)
    rho = jnp.where(inside, rho, 0)
    halves = [1 / 2 + gamma * mills(x) / ROOT_TAU for x in s]  # E[phi']
    start = _mean(gamma, v1) * _mean(gamma, v2) + k * halves[0] * halves[1]

    def term(state, orders):
        total, power, *tilted = state
        even, j, both = orders
        a = [x * ((1 - gamma) / ROOT_TAU * even + gamma * x * c) for x, c in zip(s, tilted, strict=True)]
        tilted = [(x * c - even / ROOT_TAU) / jnp.sqrt(j) for x, c in zip(s, tilted, strict=True)]
        return (total + a[0] * a[1] / both * power, power * rho, *tilted), None

    orders = _orders(50 if k.dtype == jnp.float64 else 22)
    first = (start, rho**2, *(mills(x) / ROOT_TAU for x in s))
    return jax.lax.scan(term, first, jnp.asarray(orders, k.dtype))[0][0], inside


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _kernel(gamma, k, v1, v2, m, p):
    near, part = _parts(gamma, v1, v2, m, p)
    value = jnp.where(near, _parallel(gamma, v1, v2) - part, part)
    central, inside = _about_orthogonal(gamma, k, v1, v2)
    return jnp.where((v1 > 0) & (v2 > 0), jnp.where(inside, central, value), 0)


@_kernel.defjvp
def _kernel_jvp(gamma, primals, tangents):
    k, v1, v2, m, p = primals
    dk, dv1, dv2, _, _ = tangents
    out = _slope(gamma, *primals) * dk
    q, (one, two, both) = sine(*primals), below(*primals)
    for a, b, dv, above in ((v1, v2, dv1, two), (v2, v1, dv2, one)):
        # E[phi''(u) phi(v)]: phi'' = (1 - gamma) delta + gamma e^u 1(u < 0)
        s = jnp.where(a > 0, deviation(a), 1)
        right = k * (above - 1 / (2 * ROOT_TAU * s)) + b * edge(k, b, a, m, p)
        curved = right + gamma * (both - mills(s) / ROOT_TAU + above)
        value = (1 - gamma) * _mean(gamma, b * q**2) / (ROOT_TAU * s) + gamma * curved
        value = jnp.where(a > 0, value, 0)
        # phi(0) = 0: of what b = 0 leaves, its value is rounding, but not its derivatives
        value = value - jax.lax.stop_gradient(jnp.where(b > 0, 0, value))
        out = out + value * dv / 2
    return _kernel(gamma, *primals), out


def _slope(gamma, k, v1, v2, m, p):
    # E[phi' phi']
    theta = _angle(k, v1, v2, m, p)
    one, two, both = below(k, v1, v2, m, p)
    return (jnp.pi - theta) / (2 * jnp.pi) + gamma * (one + two) + gamma**2 * both


def _root_and_defect(gamma, v1, v2, d):
    """``sqrt(E[phi(u)^2]) - sqrt(E[phi(v)^2])``, and at rho = 1 ``s' - E[phi phi]``, s' the product of the two roots.

    From ``d = sqrt(v1) - sqrt(v2)``: right relatively to d, and to its square, however small.
    """
    total, (x, w) = deviation(v1) + deviation(v2), legendre(4)
    h1, h2 = _square(gamma, v1), _square(gamma, v2)
    slope = second = 0.0
    for y, c in zip(x, w, strict=True):
        s = total / 2 + d * (y - 0.5)
        slope = slope + c * (s + 2 * gamma**2 * s * (2 * mills(2 * s) - mills(s)) / ROOT_TAU)
        for z in (total + d * y, total - d * y):  # a second difference is a mean of M''
            second = second + c * (1 - y) / 2 * ((1 + z**2) * mills(z) - z)
    short = jnp.abs(d) < _SHORT
    size = jnp.sqrt(h1) + jnp.sqrt(h2)
    root = jnp.where(short, d * slope, h1 - h2) / jnp.where(size > 0, size, 1)
    bent = jnp.where(short, d**2 * second, (bend(4 * v1) + bend(4 * v2)) / 2 - bend(total**2))
    return root, jnp.maximum(d**2 / 4 + gamma**2 * bent / ROOT_TAU - root**2 / 2, 0)


@dataclasses.dataclass(frozen=True)
class Elu(Dual):
    """``phi(z) = scale (z if z > 0 else alpha (e^(z/beta) - 1))``: elu, celu (alpha = beta), selu.

    In units of beta and with ``M(x) = e^(x^2/2) int_x^oo e^(-t^2/2) dt``, ``F(x) = 1 - x M(x)``, the quadrants give

        E[1(u > 0) e^v 1(v < 0)]       = (1/2 pi) int_0^theta F(sqrt(v2) sin t) dt,
        E[e^(u+v) 1(u < 0) 1(v < 0)]   = (1/2 pi) int_a^(pi - b) F(S sin t) dt,    S^2 = v1 + v2 + 2 k,

    a and b the angles of the triangle of sides sqrt(v1), sqrt(v2) and S (polar coordinates; the first is Owen's T
    function, tilted).  ``E[phi phi]`` and its difference from rho = 1 are sums of such integrals with the first two
    terms of F in S left out, which cancel: it loses no digits where v is small.  Of v1 much smaller than v2 it loses
    those of ``sqrt(v1/v2)``.  About ``k = 0``, where the sums would cancel, it is its Hermite series instead.
    """

    scale: float = 1.0
    alpha: float = 1.0
    beta: float = 1.0
    carries_gap = True

    @property
    def kinked(self):  # type: ignore[override]
        return self.alpha != self.beta

    def __call__(self, z):
        return self.scale * jnp.where(z > 0, z, self.alpha * jnp.expm1(jnp.minimum(z, 0) / self.beta))

    @property
    def _gamma(self):
        return self.alpha / self.beta

    @property
    def _size(self):
        return self.scale * self.beta

    def _scaled(self, pair: Pair):
        return tuple(x / self.beta**2 for x in jnp.broadcast_arrays(*pair.with_gap()[:5]))

    def kernel(self, pair):
        return self._size**2 * _kernel(self._gamma, *self._scaled(pair))

    def derivative_kernel(self, pair):
        return self.scale**2 * _slope(self._gamma, *self._scaled(pair))

    def _sizes(self, pair):
        # v1, v2, sqrt(v1) - sqrt(v2)
        step = Sides.of(pair.v1, pair.v2, 0.0).root if pair.r is None else pair.r
        v1, v2, step = jnp.broadcast_arrays(pair.v1, pair.v2, step)
        return v1 / self.beta**2, v2 / self.beta**2, step / self.beta

    def gap(self, pair):
        _, v1, v2, m, p = self._scaled(pair)
        near, part = _parts(self._gamma, v1, v2, m, p)
        s = jnp.sqrt(_square(self._gamma, v1)) * jnp.sqrt(_square(self._gamma, v2))
        below = jnp.where(near, _root_and_defect(self._gamma, *self._sizes(pair))[1] + part, s - part)
        below = jnp.where((v1 > 0) & (v2 > 0), below, 0)
        return self._size**2 * below, self._size**2 * (2 * s - below)

    def root(self, pair):
        return abs(self._size) * _root_and_defect(self._gamma, *self._sizes(pair))[0]

    def mean(self, v):
        return self._size * _mean(self._gamma, v / self.beta**2)

    def mean_derivative(self, v):
        return self.scale * (1 / 2 + self._gamma * mills(deviation(v) / self.beta) / ROOT_TAU)

    def second_moment(self, v):
        return self._size**2 * _square(self._gamma, v / self.beta**2)

    def derivative_second_moment(self, v):
        return self.scale**2 * (1 / 2 + self._gamma**2 * mills(2 * deviation(v) / self.beta) / ROOT_TAU)
