"""The error function and the exact GELU."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.scipy.special import erf

from widelimit.duals._dual import Dual, Pair, Sides, image_gap, refined

__all__ = ["Erf", "Gelu", "erf_cross"]


def _determinant(pair: Pair):
    # v1 v2 - k^2
    if pair.m is not None:
        return pair.m * pair.p
    return jnp.maximum(pair.v1 * pair.v2 - pair.k**2, 0)


def erf_cross(b1, b2, pair: Pair):
    """``S = E[erf(b1 u) erf(b2 v)]``, ``D = E[2 b1/sqrt(pi) e^(-b1^2 u^2) ...]`` and the discriminant they share.

    ``S = (2/pi) arctan2(2 b1 b2 k, sqrt(disc))``, ``D = (4 b1 b2/pi) / sqrt(disc)``,
    ``disc = 1 + 2 (b1^2 v1 + b2^2 v2) + 4 b1^2 b2^2 (v1 v2 - k^2)``.  Source: Williams 1997, eq. 11.
    """
    k, v1, v2 = pair.k, pair.v1, pair.v2
    bb = b1 * b2
    if pair.m is None:
        disc = 1 + 2 * (b1**2 * v1 + b2**2 * v2) + 4 * bb**2 * (v1 * v2 - k**2)
    else:
        disc = 1 + 2 * (b1**2 * v1 + b2**2 * v2) + 4 * bb**2 * _determinant(pair)
    root = jnp.sqrt(jnp.maximum(disc, 1.0))
    return (2 / jnp.pi) * jnp.arctan2(2 * bb * k, root), (4 * bb / jnp.pi) / root, disc


class _Step(NamedTuple):
    """Differences between the pair (u, u) and (u, v): of k, S, D and ``sqrt(disc)``, without cancellation."""

    k: Any
    S: Any
    D: Any


def _differences(b, k, v, e, skew, mp):
    # e = v - k; skew = v - v' of the other variance
    b2 = 2 * b**2
    y, y0 = b2 * k, b2 * v
    r0 = jnp.sqrt(1 + 2 * y0)
    r = jnp.sqrt(1 + 2 * y0 - b2 * skew + b2**2 * mp)
    dr = (b2 * skew - b2**2 * mp) / (r + r0)
    S = (2 / jnp.pi) * jnp.arctan2(b2 * e * r - y * dr, r * r0 + y * y0)
    return _Step(e, S, -(2 * b2 / jnp.pi) * dr / (r * r0))


@dataclasses.dataclass(frozen=True)
class Erf(Dual):
    """``phi(z) = a erf(b z) + c``: ``E[phi phi] = a^2 S + c^2`` and ``E[phi' phi'] = a^2 D`` of `erf_cross`."""

    a: float = 1.0
    b: float = 1.0
    c: float = 0.0
    carries_gap = True

    def __call__(self, z):
        return self.a * erf(self.b * z) + self.c

    def kernel(self, pair):
        direct = self.a**2 * erf_cross(self.b, self.b, pair._replace(m=None, p=None))[0] + self.c**2
        if pair.m is None:
            return direct
        return refined(direct, self.gap(pair), self.second_moment(pair.v1), self.second_moment(pair.v2))

    def second_moment(self, v):
        y = 2 * self.b**2 * v
        return self.a**2 * (2 / jnp.pi) * jnp.arctan2(y, jnp.sqrt(1 + 2 * y)) + self.c**2

    def gap(self, pair):
        k, v1, v2, m, p = pair.with_gap()[:5]
        halves = []
        for sign, edge in ((1, m), (-1, p)):  # erf is odd: s + K is s - K of (u, -v)
            e = Sides.of(v1, v2, edge)
            one = _differences(self.b, sign * k, v1, e.first, v1 - v2, m * p)
            two = _differences(self.b, sign * k, v2, e.second, v2 - v1, m * p)
            halves.append(self.a**2 * (one.S + two.S) / 2)
        h1, h2 = self.second_moment(v1), self.second_moment(v2)
        return image_gap(halves[0], halves[1] + 2 * self.c**2, h1, h2)

    def derivative_kernel(self, pair):
        return self.a**2 * erf_cross(self.b, self.b, pair._replace(m=None, p=None))[1]

    def mean(self, v):
        return jnp.full_like(v, self.c)

    def mean_derivative(self, v):
        return self.a * self.b * (2 / jnp.pi**0.5) / jnp.sqrt(1 + 2 * self.b**2 * v)


@dataclasses.dataclass(frozen=True)
class Gelu(Dual):
    """``phi(z) = a z Phi(b z)`` with Phi the normal distribution function.

    With ``beta = b/sqrt(2)``, S and D of `erf_cross` at beta, ``q = 2 beta^2 v`` and
    ``B = 1/(1+q1) + 1/(1+q2) - 1`` (Stein's lemma, four times):

        E[phi phi] = a^2/4 [k (1 + S) + (v1 v2 + k^2 B) D],

    and ``E[phi' phi']`` is its derivative in k.  Source: Tsuchida et al. 2021 (another form).
    """

    a: float = 1.0
    b: float = 1.0
    carries_gap = True

    def __call__(self, z):
        return self.a * z * (0.5 + 0.5 * erf(self.b * z / 2**0.5))

    def _parts(self, pair):
        beta = self.b / 2**0.5
        S, D, disc = erf_cross(beta, beta, pair._replace(m=None, p=None))
        B = 1 / (1 + 2 * beta**2 * pair.v1) + 1 / (1 + 2 * beta**2 * pair.v2) - 1
        return S, D, disc, B, beta

    def kernel(self, pair):
        S, D, _, B, _ = self._parts(pair)
        k = pair.k
        direct = self.a**2 / 4 * (k * (1 + S) + (pair.v1 * pair.v2 + k**2 * B) * D)
        if pair.m is None:
            return direct
        return refined(direct, self.gap(pair), self.second_moment(pair.v1), self.second_moment(pair.v2))

    def second_moment(self, v):
        y = self.b**2 * v
        root = jnp.sqrt(1 + 2 * y)
        S, D = (2 / jnp.pi) * jnp.arctan2(y, root), (2 * self.b**2 / jnp.pi) / root
        return self.a**2 / 4 * (v * (1 + S) + 2 * v**2 / (1 + y) * D)

    def gap(self, pair):
        """Differences of the terms of K one by one (product rule); ``s + K`` has no zero and needs none."""
        k, v1, v2, m, p = pair.with_gap()[:5]
        S, D, _, _, beta = self._parts(pair)
        e = Sides.of(v1, v2, m)
        c1, c2 = 1 / (1 + 2 * beta**2 * v1), 1 / (1 + 2 * beta**2 * v2)
        F = m * p + k**2 * (c1 + c2)
        below = 0.0
        for v, other, c, c_other, side in ((v1, v2, c1, c2, e.first), (v2, v1, c2, c1, e.second)):
            d = _differences(beta, k, v, side, v - other, m * p)
            dF = 2 * c * side * (v + k) + 2 * beta**2 * k**2 * c * c_other * (other - v) - m * p
            below = below + d.k * (1 + S + d.S) + k * d.S + dF * (D + d.D) + F * d.D
        h1, h2 = self.second_moment(v1), self.second_moment(v2)
        value = self.a**2 / 4 * (k * (1 + S) + F * D)
        return image_gap(self.a**2 / 8 * below, (h1 + h2) / 2 + value, h1, h2)

    def derivative_kernel(self, pair):
        S, D, disc, B, beta = self._parts(pair)
        k = pair.k
        dD = D * 4 * beta**4 * k / disc
        return self.a**2 / 4 * (1 + S + k * D * (1 + 2 * B) + (pair.v1 * pair.v2 + k**2 * B) * dD)

    def mean(self, v):
        return self.a * self.b * v / jnp.sqrt(2 * jnp.pi * (1 + self.b**2 * v))

    def mean_derivative(self, v):
        return jnp.full_like(v, self.a / 2)
