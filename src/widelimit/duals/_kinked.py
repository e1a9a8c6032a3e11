"""Piecewise-linear functions with kinks anywhere, of Gaussians with any mean: relu6, hard_tanh, shifted relu."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erfc

from widelimit.duals._dual import Dual, Pair, deviation
from widelimit.duals._piecewise_linear import PiecewiseLinear

__all__ = ["Kinked", "as_kinked", "kinked_cross"]

_TINY = 1e-18


def _density(z):
    return jnp.exp(-(z**2) / 2) / (2 * jnp.pi) ** 0.5


def _above(z):
    return erfc(z / 2**0.5) / 2


def _owen(h, y):
    """Owen's ``T(|h|, |y/h|)``, sign of ``y/h``: Gauss-Legendre on at most an eighth of the plane (Owen 1956, eq. 2.7).

    The integrand there is analytic far around the interval, so 20 nodes give 1e-16 and 9 give 1e-8.
    """
    x, w = np.polynomial.legendre.leggauss(20 if jnp.result_type(h) == jnp.float64 else 9)
    nodes, weights = (jnp.asarray(a, h.dtype) for a in ((x + 1) / 2, w / (4 * np.pi)))
    H, Y = jnp.abs(h), jnp.abs(y)
    big, slope = jnp.maximum(H, Y), jnp.minimum(H, Y) / jnp.maximum(H, Y)
    t = 1 + (slope[..., None] * nodes) ** 2
    core = slope * jnp.sum(weights * jnp.exp(-(big[..., None] ** 2) * t / 2) / t, axis=-1)
    P, R = _above(H), _above(Y)
    return jnp.sign(h) * jnp.sign(y) * jnp.where(Y <= H, core, (P + R) / 2 - P * R - core)


class _Corner(NamedTuple):
    """Of the quadrant ``u > a, v > b``: its probability and what its moments are made of."""

    L: Any
    a_density: Any
    b_density: Any
    a_tail: Any
    b_tail: Any
    y: Any
    z: Any
    q: Any
    sigma: tuple
    h: tuple


def _corner(a, b, k, v1, v2, m, p) -> _Corner:
    """``L = (Q(h) + Q(g))/2 - T(h, y/h) - T(g, z/g) - [h g < 0]/2``, ``y = (g - rho h)/q``, ``q = sqrt(1 - rho^2)``."""
    s1, s2 = (jnp.maximum(jnp.sqrt(v), _TINY) for v in (v1, v2))
    live = (v1 > 0) & (v2 > 0)
    s = jnp.where(live, s1 * s2, 1)
    below, above = jnp.where(live, m / s, 1), jnp.where(live, p / s, 1)
    q = jnp.maximum(jnp.sqrt(below * above), _TINY)
    h, g = a / s1, b / s2
    h, g = (jnp.where(jnp.abs(x) < _TINY, _TINY, x) for x in (h, g))
    near = below <= above
    y = jnp.where(near, (g - h) + h * below, (g + h) - h * above) / q
    z = jnp.where(near, (h - g) + g * below, (g + h) - g * above) / q
    L = (_above(h) + _above(g)) / 2 - _owen(h, y) - _owen(g, z) - jnp.where(h * g < 0, 0.5, 0)
    return _Corner(jnp.clip(L, 0, 1), _density(h), _density(g), _above(y), _above(z), y, z, q, (s1, s2), (h, g))


@jax.custom_jvp
def _probability(a, b, k, v1, v2, m, p):
    # P(u > a, v > b)
    return _corner(a, b, k, v1, v2, m, p).L


@_probability.defjvp
def _probability_jvp(primals, tangents):
    _a, _b, k, v1, v2, _m, _p = primals
    da, db, dk, dv1, dv2, _, _ = tangents
    c = _corner(*primals)
    (s1, s2), (h, g) = c.sigma, c.h
    d1, d2 = dv1 / (2 * s1**2), dv2 / (2 * s2**2)
    s = s1 * s2
    smooth = c.q > 1e3 * _TINY  # at rho = +-1 with h = +-g the symmetric slope of the cusp is 0
    joint = jnp.where(smooth, c.a_density * _density(c.y) / jnp.where(smooth, c.q, 1), 0)
    out = joint * (dk - k * (d1 + d2)) / s
    out = out - c.a_density * c.a_tail * (da / s1 - h * d1) - c.b_density * c.b_tail * (db / s2 - g * d2)
    return c.L, jnp.where((v1 > 0) & (v2 > 0), out, 0)


@jax.custom_jvp
def _rectified(a, b, k, v1, v2, m, p):
    # E[max(u - a, 0) max(v - b, 0)]
    c = _corner(a, b, k, v1, v2, m, p)
    (s1, s2), _ = c.sigma, c.h
    edge = b * s1 * c.a_density * c.a_tail + a * s2 * c.b_density * c.b_tail
    return (k + a * b) * c.L - edge + s1 * s2 * c.q * c.a_density * _density(c.y)


@_rectified.defjvp
def _rectified_jvp(primals, tangents):
    a, b, k, v1, v2, _m, _p = primals
    da, db, dk, dv1, dv2, _, _ = tangents
    c = _corner(*primals)
    s1, s2 = c.sigma
    # E[delta(u - a) (v - b)+] and its mirror image; E[1(u > a) (v - b)+] and its
    on_a = c.a_density * c.q * (s2 / s1) * (_density(c.y) - c.y * c.a_tail)
    on_b = c.b_density * c.q * (s1 / s2) * (_density(c.z) - c.z * c.b_tail)
    past_a = k / s1 * c.a_density * c.a_tail + s2 * c.b_density * c.b_tail - b * c.L
    past_b = k / s2 * c.b_density * c.b_tail + s1 * c.a_density * c.a_tail - a * c.L
    on_a, on_b = jnp.where(v1 > 0, on_a, 0), jnp.where(v2 > 0, on_b, 0)
    return _rectified(*primals), _probability(
        *primals
    ) * dk + on_a * dv1 / 2 + on_b * dv2 / 2 - past_a * da - past_b * db


def _one_sided(a, v):
    # P(u > a) and E[max(u - a, 0)]
    sigma = deviation(v)
    h = a / jnp.where(v > 0, sigma, _TINY)
    tail = _above(h)
    return tail, sigma * _density(h) - a * tail


def kinked_cross(first: Kinked, second: Kinked, pair: Pair, derivative: bool = False, means=(None, None)):
    """``E[phi(mu1 + u) psi(mu2 + v)]`` (or of the derivatives), u and v centred, of two piecewise-linear functions.

    means: (mu1, mu2), arrays that broadcast with `pair`, or None for 0; they shift the kinks.  Derivatives with
    respect to the pair and the means are those of Price's theorem, finite everywhere.
    """
    pair = pair.with_gap()
    k = jnp.asarray(pair.k)
    sides = []
    for dual, v, mean in ((first, pair.v1, means[0]), (second, pair.v2, means[1])):
        mean = jnp.zeros_like(k) if mean is None else mean
        kinks = [(w, a - mean) for a, w in zip(dual.kinks, dual.weights, strict=True)]
        parts = [(w, *_one_sided(a, v)) for w, a in kinks]
        slope = dual.slope + sum(w * tail for w, tail, _ in parts)
        sides.append((kinks, slope - dual.slope, sum(w * x for w, _, x in parts), dual.offset + dual.slope * mean))
    (kinks1, bend1, rise1, c1), (kinks2, bend2, rise2, c2) = sides
    rule = _probability if derivative else _rectified
    corner = 0.0
    for w1, a in kinks1:
        for w2, b in kinks2:
            corner = corner + w1 * w2 * rule(*jnp.broadcast_arrays(a, b, *pair[:5]))
    d1, d2 = first.slope, second.slope
    if derivative:
        return corner + d1 * d2 + d1 * bend2 + d2 * bend1
    return corner + c1 * c2 + c1 * rise2 + c2 * rise1 + k * (d1 * d2 + d1 * bend2 + d2 * bend1)


@dataclasses.dataclass(frozen=True)
class Kinked(Dual):
    """``phi(z) = offset + slope z + sum_j w_j max(z - a_j, 0)``: any continuous piecewise-linear function.

    With ``h = a/sqrt(v1)``, ``g = b/sqrt(v2)``, Q and n the tail and density of a standard normal, L the probability
    of the quadrant (Owen 1956), ``y = (g - rho h)/q``, ``z = (h - rho g)/q``, ``q = sqrt(1 - rho^2)``,

        E[(u - a)+ (v - b)+] = (k + a b) L - b sqrt(v1) n(h) Q(y) - a sqrt(v2) n(g) Q(z) + s q n(h) n(y),

    and ``E[phi' phi']`` from L alone; the linear part by Stein's lemma.
    """

    offset: float
    slope: float
    kinks: tuple[float, ...]
    weights: tuple[float, ...]
    kinked = True

    def __call__(self, z):
        return (
            self.offset
            + self.slope * z
            + sum(w * jnp.maximum(z - a, 0) for a, w in zip(self.kinks, self.weights, strict=True))
        )

    def kernel(self, pair):
        return kinked_cross(self, self, pair)

    def derivative_kernel(self, pair):
        return kinked_cross(self, self, pair, derivative=True)

    def moved(self, mean) -> Kinked:
        """``phi(mean + z)`` as a function of z; mean may be an array."""
        kinks = tuple(a - mean for a in self.kinks)
        return Kinked(self.offset + self.slope * mean, self.slope, kinks, self.weights)

    def mean(self, v):
        return self.offset + sum(w * _one_sided(a, v)[1] for a, w in zip(self.kinks, self.weights, strict=True))

    def mean_derivative(self, v):
        return self.slope + sum(w * _one_sided(a, v)[0] for a, w in zip(self.kinks, self.weights, strict=True))


def as_kinked(dual: Dual) -> Kinked | None:
    """The same function as a `Kinked`, whose kinks may be shifted by means; None if it is not piecewise linear."""
    if isinstance(dual, PiecewiseLinear):
        return Kinked(0.0, dual.alpha - dual.beta, (0.0,), (2 * dual.beta,))
    return dual if isinstance(dual, Kinked) else None
