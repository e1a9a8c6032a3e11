"""Step functions and rectified powers: arc-cosine kernels of every order."""

from __future__ import annotations

import dataclasses
import functools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp

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
        # from the side of the nearer end, so that step's K at opposite inputs, theta/(2 pi), is right relatively
        live = (pair.v1 > 0) & (pair.v2 > 0)
        m, p = pair.with_gap()[3:5]
        opposite = _angle(*jnp.broadcast_arrays(-pair.k, pair.v1, pair.v2, p, m))
        near = self.a**2 + self.b**2 - (2 / jnp.pi) * self.b**2 * _theta(pair)
        far = self.a**2 - self.b**2 + (2 / jnp.pi) * self.b**2 * opposite
        return jnp.where(live, jnp.where(m <= p, near, far), self._dead(pair.v1, pair.v2))

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


@functools.lru_cache(maxsize=32)
def _arc_cosine(n: int) -> tuple[tuple[Fraction, ...], tuple[Fraction, ...]]:
    """Polynomials (A, B) in ``c = cos(theta)`` of ``J_n = A sin(theta) + B (pi - theta)``.

    ``dJ_n/dc = n^2 J_(n-1)`` (Price) gives ``B' = n^2 B_(n-1)`` and ``A' (1 - c^2) - c A + B = n^2 (1 - c^2) A_(n-1)``.
    """
    if n == 0:
        return (Fraction(0),), (Fraction(1),)
    A0, B0 = _arc_cosine(n - 1)
    B = [Fraction(0)] + [n * n * b / (j + 1) for j, b in enumerate(B0)]
    if n % 2 == 0:  # B is even: its constant term is J_n(-1) = 0 at c = -1 in disguise, found from E[u+^n]^2 at c = 0
        # J_n(c=0) = 2 pi E[u+^n]^2 = A(0) + B(0) pi/2 with rational A(0), and E[u+^n] = (n-1)!!/2 rational for even n
        B[0] = Fraction(math.prod(range(n - 1, 0, -2))) ** 2
    rhs = [Fraction(0)] * (n + 3)
    for j, a in enumerate(A0):
        rhs[j] += n * n * a
        rhs[j + 2] -= n * n * a
    for j, b in enumerate(B):
        rhs[j] -= b
    # coefficient of c^j: (j+1) a_(j+1) - (j-1) a_(j-1) - a_(j-1) = rhs_j
    A = [Fraction(0)] * n
    for j in range(n, 0, -1):  # from the top: -j a_(j-1) = rhs_j - (j+1) a_(j+1)
        above = A[j + 1] if j + 1 < n else Fraction(0)
        A[j - 1] = ((j + 1) * above - rhs[j]) / j
    return tuple(A), tuple(B)


@dataclasses.dataclass(frozen=True)
class RectifiedMonomial(Dual):
    """``phi(z) = a max(z, 0)^n``, n >= 1: ``E[phi phi] = a^2/(2 pi) s^n J_n(theta)``, ``E[phi' phi']`` that of n - 1.

    Source: Cho & Saul 2009, eq. 3-8; J_n here by Price's recursion.
    """

    n: int
    a: float = 1.0
    kinked = True

    def __call__(self, z):
        return self.a * jnp.where(z > 0, z**self.n, 0)

    def _expectation(self, pair, n):
        pair = pair.with_gap()
        s = deviation(pair.v1) * deviation(pair.v2)
        theta = _theta(pair)
        c = jnp.where(s > 0, pair.k / jnp.where(s > 0, s, 1), 0)
        A, B = ([float(x) for x in poly] for poly in _arc_cosine(n))
        sine = jnp.sin(theta)
        J = sine * sum(a * c**j for j, a in enumerate(A)) + (jnp.pi - theta) * sum(b * c**j for j, b in enumerate(B))
        return s**n * J / (2 * jnp.pi)

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
