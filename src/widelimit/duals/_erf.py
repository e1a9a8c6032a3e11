"""The error function and the exact GELU."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jax.scipy.special import erf

from widelimit.duals._dual import Dual, Pair

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


@dataclasses.dataclass(frozen=True)
class Erf(Dual):
    """``phi(z) = a erf(b z) + c``: ``E[phi phi] = a^2 S + c^2`` and ``E[phi' phi'] = a^2 D`` of `erf_cross`."""

    a: float = 1.0
    b: float = 1.0
    c: float = 0.0

    def __call__(self, z):
        return self.a * erf(self.b * z) + self.c

    def kernel(self, pair):
        return self.a**2 * erf_cross(self.b, self.b, pair._replace(m=None, p=None))[0] + self.c**2

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
        return self.a**2 / 4 * (k * (1 + S) + (pair.v1 * pair.v2 + k**2 * B) * D)

    def derivative_kernel(self, pair):
        S, D, disc, B, beta = self._parts(pair)
        k = pair.k
        dD = D * 4 * beta**4 * k / disc
        return self.a**2 / 4 * (1 + S + k * D * (1 + 2 * B) + (pair.v1 * pair.v2 + k**2 * B) * dD)

    def mean(self, v):
        return self.a * self.b * v / jnp.sqrt(2 * jnp.pi * (1 + self.b**2 * v))

    def mean_derivative(self, v):
        return jnp.full_like(v, self.a / 2)
