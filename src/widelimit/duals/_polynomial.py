"""Polynomials: finite Hermite expansions."""

from __future__ import annotations

import dataclasses
import math

import jax.numpy as jnp

from widelimit.duals._dual import Dual

__all__ = ["Polynomial"]


@dataclasses.dataclass(frozen=True)
class Polynomial(Dual):
    """``phi(z) = sum_j c_j z^j`` of degree J.

    With ``d_r(v) = E[phi^(r)(u)]``, a polynomial in v,

        E[phi phi]   = sum_r k^r / r! d_r(v1) d_r(v2),
        E[phi' phi'] = sum_r k^r / r! d_(r+1)(v1) d_(r+1)(v2).    Source: Mehler 1866.
    """

    coefficients: tuple[float, ...]

    def __call__(self, z):
        out = jnp.full_like(z, self.coefficients[-1])
        for c in self.coefficients[-2::-1]:
            out = out * z + c
        return out

    def _mean_of_derivative(self, r, v):
        out = jnp.zeros_like(v)
        for j in range(r, len(self.coefficients)):
            order = j - r
            if order % 2 == 0 and self.coefficients[j]:
                gaussian_moment = math.prod(range(order - 1, 0, -2))
                factor = math.factorial(j) // math.factorial(order) * gaussian_moment
                out = out + self.coefficients[j] * factor * v ** (order // 2)
        return out

    def _series(self, pair, shift):
        out = jnp.zeros_like(pair.k)
        for r in range(len(self.coefficients) - shift):
            d1, d2 = (self._mean_of_derivative(r + shift, v) for v in (pair.v1, pair.v2))
            out = out + pair.k**r / math.factorial(r) * d1 * d2
        return out

    def kernel(self, pair):
        return self._series(pair, 0)

    def derivative_kernel(self, pair):
        return self._series(pair, 1)

    def mean(self, v):
        return self._mean_of_derivative(0, v)

    def mean_derivative(self, v):
        return self._mean_of_derivative(1, v)
