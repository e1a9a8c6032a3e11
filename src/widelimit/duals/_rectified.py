"""Step functions and rectified powers: arc-cosine kernels of every order."""

from __future__ import annotations

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from widelimit.duals._arc import half_angle, theta_and_g
from widelimit.duals._dual import Dual, Pair, deviation

__all__ = ["RectifiedMonomial", "Step"]


@functools.partial(jax.custom_jvp, nondiff_argnums=())
def _angle(k, v1, v2, m, p):
    # theta = arccos(k / s), from m and p
    _, near, h2 = half_angle(v1, v2, m, p)
    theta, _ = theta_and_g(h2)
    return jnp.where(near, theta, jnp.pi - theta)


@_angle.defjvp
def _angle_jvp(primals, tangents):
    k, v1, v2, m, p = primals
    dk, dv1, dv2, _, _ = tangents
    area = jnp.sqrt(m) * jnp.sqrt(p)
    safe = (area > 0) & (v1 > 0) & (v2 > 0)
    one = jnp.ones_like(area)
    scaled = dk - k * (dv1 / jnp.where(safe, 2 * v1, one) + dv2 / jnp.where(safe, 2 * v2, one))
    return _angle(*primals), jnp.where(safe, -scaled / jnp.where(safe, area, one), 0)


@jax.custom_jvp
def _arcsine(k, v1, v2, m, p):
    # arcsin(k / s) with its relative accuracy about 0; only for |k / s| <= 1/2
    s = jnp.sqrt(v1) * jnp.sqrt(v2)
    c = jnp.clip(jnp.where(s > 0, k / jnp.where(s > 0, s, 1), 0), -0.5, 0.5)
    return jnp.sign(c) * theta_and_g(c**2)[0] / 2


@_arcsine.defjvp
def _arcsine_jvp(primals, tangents):
    return _arcsine(*primals), -jax.jvp(_angle, primals, tangents)[1]


def _theta(pair: Pair):
    return _angle(*jnp.broadcast_arrays(*pair.with_gap()[:5]))


@dataclasses.dataclass(frozen=True)
class Step(Dual):
    """``phi(z) = a + b sign(z)``: ``E[phi phi] = a^2 + b^2 (1 - 2 theta/pi)``; phi' = 0 almost everywhere.

    zero: ``phi(0)``, which is what an input of zero variance gives; None: a.
    """

    a: float = 0.0
    b: float = 1.0
    zero: float | None = None
    kinked = True

    def __call__(self, z):
        return jnp.where(z == 0, self._zero, self.a + self.b * jnp.sign(z))

    @property
    def _zero(self):
        return self.a if self.zero is None else self.zero

    def _dead(self, v1, v2):
        # E[phi phi] where u or v (or both) is 0
        return jnp.where(v1 > 0, self.a, self._zero) * jnp.where(v2 > 0, self.a, self._zero)

    def kernel(self, pair):
        # from the nearest of theta = 0, pi/2, pi: step's K at opposite inputs, theta/(2 pi), and sign's at orthogonal
        # ones, to which a deep network tends, are right relatively
        live = (pair.v1 > 0) & (pair.v2 > 0)
        pair = Pair(*jnp.broadcast_arrays(*pair.with_gap()[:5]))
        m, p = pair.m, pair.p
        opposite = _angle(-pair.k, pair.v1, pair.v2, p, m)
        near = self.a**2 + self.b**2 - (2 / jnp.pi) * self.b**2 * _theta(pair)
        middle = self.a**2 + (2 / jnp.pi) * self.b**2 * _arcsine(*pair[:5])
        far = self.a**2 - self.b**2 + (2 / jnp.pi) * self.b**2 * opposite
        out = jnp.where(3 * m < p, near, jnp.where(3 * p < m, far, middle))
        return jnp.where(live, out, self._dead(pair.v1, pair.v2))

    def derivative_kernel(self, pair):
        return jnp.zeros_like(pair.k)

    def gap(self, pair):
        _, near, h2 = half_angle(pair.v1, pair.v2, *pair.with_gap()[3:5])
        theta, _ = theta_and_g(h2)
        swing = (2 / jnp.pi) * theta
        m = self.b**2 * jnp.where(near, swing, 2 - swing)
        p = 2 * self.a**2 + self.b**2 * jnp.where(near, 2 - swing, swing)
        s = jnp.sqrt(self.second_moment(pair.v1)) * jnp.sqrt(self.second_moment(pair.v2))
        live = (pair.v1 > 0) & (pair.v2 > 0)
        dead = self._dead(pair.v1, pair.v2)
        return jnp.where(live, m, jnp.maximum(s - dead, 0)), jnp.where(live, p, s + dead)

    def mean(self, v):
        return jnp.where(v > 0, self.a, self._zero)

    def mean_derivative(self, v):
        return jnp.zeros_like(v)

    def second_moment(self, v):
        return jnp.where(v > 0, self.a**2 + self.b**2, self._zero**2)

    def derivative_second_moment(self, v):
        return jnp.zeros_like(v)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _rectified(n, k, v1, v2, m, p):
    # E[u+^n v+^n]: in polar coordinates of the plane, (2 s)^n n!/(2 pi) int (sin(h + t) sin(h - t))^n dt, |t| < h,
    # with h = (pi - theta)/2.  Its Gauss-Legendre rule is a sum of positive terms: right relatively at every angle.
    opposite = _angle(-k, v1, v2, p, m)
    s = deviation(v1) * deviation(v2)
    if n == 0:
        return opposite / (2 * jnp.pi)
    h = opposite / 2
    nodes, weights = np.polynomial.legendre.leggauss(2 * (8 + n))
    total = 0.0
    for x, w in zip(nodes[8 + n :].tolist(), weights[8 + n :].tolist(), strict=True):
        total = total + w * (jnp.sin(h * (1 + x)) * jnp.sin(h * (1 - x))) ** n
    return (2 * s) ** n * (math.factorial(n) / jnp.pi) * h * total


@_rectified.defjvp
def _rectified_jvp(n, primals, tangents):
    k, v1, v2, _m, _p = primals
    dk, dv1, dv2, _, _ = tangents
    value = _rectified(n, *primals)
    if n == 0:
        return value, -jax.jvp(_angle, primals, tangents)[1] / (2 * jnp.pi)
    slope = n * n * _rectified(n - 1, *primals)  # Price; those in v1 and v2 by homogeneity
    sides = 0.0
    for v, dv in ((v1, dv1), (v2, dv2)):
        sides = sides + dv * jnp.where(v > 0, (n * value - k * slope) / jnp.where(v > 0, 2 * v, 1), 0)
    return value, slope * dk + sides


@dataclasses.dataclass(frozen=True)
class RectifiedMonomial(Dual):
    """``phi(z) = a max(z, 0)^n``, n >= 1: ``E[phi phi] = a^2/(2 pi) s^n J_n(theta)``, ``E[phi' phi']`` that of n - 1.

    Source: Cho & Saul 2009, eq. 3-8; the integral over the angle by quadrature.
    """

    n: int
    a: float = 1.0
    kinked = True

    def __call__(self, z):
        return self.a * jnp.where(z > 0, z**self.n, 0)

    def _expectation(self, pair, n):
        return _rectified(n, *jnp.broadcast_arrays(*pair.with_gap()[:5]))

    def kernel(self, pair):
        return self.a**2 * self._expectation(pair, self.n)

    def derivative_kernel(self, pair):
        return (self.a * self.n) ** 2 * self._expectation(pair, self.n - 1)

    def _moment(self, n, v):
        return float(_absolute_moment(n)) / 2 * deviation(v) ** n

    def mean(self, v):
        return self.a * self._moment(self.n, v)

    def mean_derivative(self, v):
        return self.a * self.n * self._moment(self.n - 1, v)

    def second_moment(self, v):
        return self.a**2 * math.prod(range(2 * self.n - 1, 0, -2)) / 2 * v**self.n

    def derivative_second_moment(self, v):
        n = self.n - 1
        return (self.a * self.n) ** 2 * math.prod(range(2 * n - 1, 0, -2)) / 2 * v**n


def _absolute_moment(n: int) -> float:
    # E|z|^n of a standard normal
    return 2 ** (n / 2) * math.gamma((n + 1) / 2) / math.sqrt(math.pi)
