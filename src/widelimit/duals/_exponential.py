"""Exponentials of linear and quadratic arguments: sin, cos, exp, the Gaussian."""

from __future__ import annotations

import dataclasses
import math

import jax.numpy as jnp

from widelimit.duals._dual import Dual, Sides, image_gap, refined

__all__ = ["Exponential", "Gaussian", "Sine"]


def _signed_sum(A, B, sign):
    # (e^(B - A) + sign e^(-B - A)) / 2 without cancellation between the two, for A >= |B|
    if sign == 0:
        return jnp.exp(B - A) / 2
    size = jnp.abs(B)
    big = jnp.exp(size - A) / 2
    difference = -big * jnp.expm1(-2 * size)
    first = jnp.where(B >= 0, difference, -difference)
    return first + (1 + sign) * jnp.exp(-B - A) / 2


@dataclasses.dataclass(frozen=True)
class Sine(Dual):
    """``phi(z) = a sin(b z + c)``.

    With ``A = b^2 (v1 + v2)/2`` and ``B = b^2 k``,

        E[phi phi]   = a^2/2 (e^(B-A) - cos(2c) e^(-B-A)),
        E[phi' phi'] = a^2 b^2/2 (e^(B-A) + cos(2c) e^(-B-A)).   Source: Rahimi & Recht 2007.
    """

    a: float = 1.0
    b: float = 1.0
    c: float = 0.0
    carries_gap = True

    def __call__(self, z):
        return self.a * jnp.sin(self.b * z + self.c)

    @property
    def _phase(self):
        # cos(2c), an exact 0 at c = pi/4: elsewhere its rounding would swamp e^(B-A) at opposite inputs
        C = math.cos(2 * self.c)
        return C if abs(C) > 4e-16 else 0.0

    def _sum(self, pair, sign):
        A, B = self.b**2 * (pair.v1 + pair.v2) / 2, self.b**2 * pair.k
        return _signed_sum(A, B, sign * self._phase)

    def kernel(self, pair):
        direct = self.a**2 * self._sum(pair, -1)
        if pair.m is None:
            return direct
        return refined(direct, self.gap(pair), self.second_moment(pair.v1), self.second_moment(pair.v2))

    def second_moment(self, v):
        C = self._phase
        return self.a**2 / 2 * ((1 - C) - C * jnp.expm1(-2 * self.b**2 * v))

    def gap(self, pair):
        """With ``X = A - B``, ``Y = A + B``, ``C = cos(2c)``, ``g = e^(-b^2 v)``, ``f(X) = 1 - e^(-X)``:

            E[(phi(u) - phi(v))^2]/2 = a^2/2 [f(X) (1 + C - C f(Y)) - C (g1 - g2)^2 / 2],

        and the sum's by exchange of X and Y in the part that is C times that of the sine.
        """
        _, v1, v2, m, p = pair.with_gap()[:5]
        b2, C = self.b**2, self._phase
        half = Sides.of(v1, v2, m).root ** 2 / 2
        fX, fY = -jnp.expm1(-b2 * (m + half)), -jnp.expm1(-b2 * (p + half))
        uneven = (jnp.exp(-b2 * jnp.minimum(v1, v2)) * jnp.expm1(-b2 * jnp.abs(v1 - v2))) ** 2 / 2
        below = fX * (1 + C - C * fY) - C * uneven
        above = (1 - C) * (2 - fX) + C * (fY * (2 - fX) - uneven)
        size = self.a**2 / 2
        return image_gap(size * below, size * above, self.second_moment(v1), self.second_moment(v2))

    def derivative_kernel(self, pair):
        return (self.a * self.b) ** 2 * self._sum(pair, 1)

    def mean(self, v):
        return self.a * math.sin(self.c) * jnp.exp(-(self.b**2) * v / 2)

    def mean_derivative(self, v):
        return self.a * self.b * math.cos(self.c) * jnp.exp(-(self.b**2) * v / 2)


@dataclasses.dataclass(frozen=True)
class Exponential(Dual):
    """``phi(z) = a exp(b z)``: ``E[phi phi] = a^2 exp(b^2 (v1 + v2 + 2 k)/2)``, ``E[phi' phi'] = b^2 E[phi phi]``."""

    a: float = 1.0
    b: float = 1.0

    def __call__(self, z):
        return self.a * jnp.exp(self.b * z)

    def kernel(self, pair):
        return self.a**2 * jnp.exp(self.b**2 * (pair.v1 + pair.v2 + 2 * pair.k) / 2)

    def derivative_kernel(self, pair):
        return self.b**2 * self.kernel(pair)

    def mean(self, v):
        return self.a * jnp.exp(self.b**2 * v / 2)

    def mean_derivative(self, v):
        return self.b * self.mean(v)


@dataclasses.dataclass(frozen=True)
class Gaussian(Dual):
    """``phi(z) = a exp(-b z^2)``, b > 0.

    ``E[phi phi] = a^2 / sqrt(disc)``, ``E[phi' phi'] = 4 a^2 b^2 k / disc^(3/2)``,
    ``disc = 1 + 2 b (v1 + v2) + 4 b^2 (v1 v2 - k^2)``.  Source: Williams 1997, eq. 13 (the integral).
    """

    a: float = 1.0
    b: float = 1.0

    def __call__(self, z):
        return self.a * jnp.exp(-self.b * z**2)

    def _disc(self, pair):
        return 1 + 2 * self.b * (pair.v1 + pair.v2) + 4 * self.b**2 * (pair.v1 * pair.v2 - pair.k**2)

    def kernel(self, pair):
        return self.a**2 / jnp.sqrt(self._disc(pair))

    def derivative_kernel(self, pair):
        return 4 * (self.a * self.b) ** 2 * pair.k * self._disc(pair) ** -1.5

    def mean(self, v):
        return self.a / jnp.sqrt(1 + 2 * self.b * v)

    def mean_derivative(self, v):
        return jnp.zeros_like(v)
