"""Piecewise-linear functions with one kink at 0: relu, leaky relu, abs, the identity."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp

from widelimit.duals._arc import half_angle, theta_and_g
from widelimit.duals._dual import Dual, Pair, deviation

__all__ = ["PiecewiseLinear", "piecewise_linear_cross"]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _kernel(aa, bb, k, v1, v2, m, p):
    # E[(alpha1 u + beta1 |u|)(alpha2 v + beta2 |v|)], aa = alpha1 alpha2, bb = beta1 beta2: the mixed terms are odd.
    s, near, h2 = half_angle(v1, v2, m, p)
    _, g = theta_and_g(h2)
    return s * (jnp.where(near, bb + aa, bb - aa) * (1 - 2 * h2) + (2 / jnp.pi) * bb * g)


@_kernel.defjvp
def _kernel_jvp(aa, bb, primals, tangents):
    _k, v1, v2, m, p = primals
    dk, dv1, dv2, _, _ = tangents
    D = _derivative(aa, bb, *primals)
    # E[phi'' psi] = (2/pi) beta1 beta2 sqrt(v2/v1) sin(theta), with s sin(theta) = sqrt(m p)
    area = (2 / jnp.pi) * bb * jnp.sqrt(m) * jnp.sqrt(p)
    one = jnp.ones_like(v1)
    half1 = jnp.where(v1 > 0, area / (2 * jnp.where(v1 > 0, v1, one)), 0)
    half2 = jnp.where(v2 > 0, area / (2 * jnp.where(v2 > 0, v2, jnp.ones_like(v2))), 0)
    return _kernel(aa, bb, *primals), D * dk + half1 * dv1 + half2 * dv2


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _derivative(aa, bb, k, v1, v2, m, p):
    _, near, h2 = half_angle(v1, v2, m, p)
    theta, _ = theta_and_g(h2)
    swing = (2 / jnp.pi) * theta
    return jnp.where(near, aa + bb * (1 - swing), aa - bb + bb * swing)


@_derivative.defjvp
def _derivative_jvp(aa, bb, primals, tangents):
    k, v1, v2, m, p = primals
    dk, dv1, dv2, _, _ = tangents
    area = jnp.sqrt(m) * jnp.sqrt(p)
    safe = (area > 0) & (v1 > 0) & (v2 > 0)

    def over(x, y):
        return x / jnp.where(safe, y, 1)

    # d(rho)/sin(theta) = (dk - k/2 (dv1/v1 + dv2/v2)) / sqrt(m p); at theta = 0, pi the cusp's symmetric slope is 0.
    slope = over(dk - k * (over(dv1, 2 * v1) + over(dv2, 2 * v2)), area)
    return _derivative(aa, bb, *primals), jnp.where(safe, (2 / jnp.pi) * bb * slope, 0)


def piecewise_linear_cross(first: PiecewiseLinear, second: PiecewiseLinear, pair: Pair, derivative: bool = False):
    """``E[phi(u) psi(v)]`` (or of the derivatives) of two piecewise-linear functions."""
    rule = _derivative if derivative else _kernel
    arrays = jnp.broadcast_arrays(*pair.with_gap()[:5])
    return rule(first.alpha * second.alpha, first.beta * second.beta, *arrays)


@dataclasses.dataclass(frozen=True)
class PiecewiseLinear(Dual):
    """``phi(z) = alpha z + beta |z|`` (relu: 1/2, 1/2; abs: 0, 1).

    With the angle ``theta = arccos(k/s)`` and ``s = sqrt(v1 v2)``,

        E[phi phi]   = s [alpha^2 cos(theta) + beta^2 (cos(theta) + (2/pi)(sin(theta) - theta cos(theta)))],
        E[phi' phi'] = alpha^2 + beta^2 (1 - 2 theta/pi),

    evaluated from ``1 -+ cos(theta)`` and hence without cancellation at any angle.
    Source: Cho & Saul 2009, eq. 4-6 (relu); the even part by symmetry.
    """

    alpha: float
    beta: float

    @property
    def kinked(self):  # type: ignore[override]
        return self.beta != 0

    def __call__(self, z):
        return self.alpha * z + self.beta * jnp.abs(z)

    def kernel(self, pair):
        return self.alpha**2 * pair.k if not self.beta else piecewise_linear_cross(self, self, pair)

    def derivative_kernel(self, pair):
        if not self.beta:
            return self.alpha**2 * jnp.ones_like(pair.k)
        return piecewise_linear_cross(self, self, pair, derivative=True)

    def gap(self, pair):
        aa, bb = self.alpha**2, self.beta**2
        _k, v1, v2, m, p = pair.with_gap()[:5]
        if not bb:
            return aa * m, aa * p
        s, near, h2 = half_angle(v1, v2, m, p)
        _, g = theta_and_g(h2)
        bend = (2 / jnp.pi) * bb * g
        c = 1 - 2 * h2
        small = (aa + bb) * 2 * h2
        m_out = s * jnp.where(near, small - bend, 2 * aa - (aa - bb) * 2 * h2 - bend)
        p_out = s * jnp.where(near, (aa + bb) * (1 + c) + bend, 2 * bb * c + small + bend)
        return jnp.maximum(m_out, 0), p_out

    def root(self, pair):
        return super().root(pair) if pair.r is None else (self.alpha**2 + self.beta**2) ** 0.5 * pair.r

    def mean(self, v):
        return self.beta * (2 / jnp.pi) ** 0.5 * deviation(v)

    def mean_derivative(self, v):
        return jnp.full_like(v, self.alpha)

    def second_moment(self, v):
        return (self.alpha**2 + self.beta**2) * v

    def derivative_second_moment(self, v):
        return jnp.full_like(v, self.alpha**2 + self.beta**2)
