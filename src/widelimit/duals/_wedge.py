"""Moments of ``1(u > 0)``, ``u+`` and ``e^(-|u|) 1(u < 0)`` over the quadrants of a Gaussian plane.

In polar coordinates a quadrant is a wedge, the radius integrates to a Mills ratio, and what remains is an integral over
the angle of ``F(S sin t)`` or a relative of it.  Nothing is ever scaled by ``e^v``, so that no variance is too large.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from widelimit.duals._arc import half_angle, theta_and_g
from widelimit.duals._dual import deviation
from widelimit.duals._mills import ROOT_TAU, bend, flux_and_fall, mills
from widelimit.duals._rectified import _angle

__all__ = ["Wedge", "both_below", "crossed", "facing", "one_below", "sine"]


@functools.lru_cache(maxsize=1)
def _tables() -> tuple[np.ndarray, ...]:
    """Chebyshev coefficients of `_tilted`, `_excess`, `_facing` in `(X - 4)/(X + 4)` and the square of the angle.

    Of ``(X + 4) int_0^1 f(X sin(angle y) / sin(angle)) dy``, for angles up to pi/2, by quadrature with the layer of width
    1/X at y = 0 stretched.
    """
    order = (40, 24)
    w, t = (np.cos(np.pi * (np.arange(n) + 0.5) / n) for n in order)
    X, angle = (4 * (1 + w) / (1 - w))[:, None, None], (np.pi / 2 * np.sqrt((1 + t) / 2))[None, :, None]
    nodes, weights = np.polynomial.legendre.leggauss(80)
    reach = np.arcsinh(X)
    stretched = np.sinh(reach * (nodes + 1) / 2)
    y, weights = stretched / X, weights / 2 * reach / X * np.sqrt(1 + stretched**2)
    x = X * np.sin(angle * y) / np.sin(angle)
    F, below = flux_and_fall(x)
    out = []
    for f in (F, x * below / X**2, np.sin(angle * (1 - y)) / np.sin(angle) * (below + x * F) / X):
        values = (X + 4)[..., 0] * (weights * f).sum(-1)
        for n in order:  # along the first axis, then along the second
            basis = np.cos(np.outer(np.arange(n), np.pi * (np.arange(n) + 0.5) / n)) * (2 - (np.arange(n) == 0)[:, None]) / n
            values = (basis @ values).T
        out.append(values)
    return tuple(out)


@functools.lru_cache(maxsize=8)
def _powers(which: int, terms: tuple[int, int]) -> np.ndarray:
    table = _tables()[which][: terms[0], : terms[1]]
    table = np.stack([np.polynomial.chebyshev.cheb2poly(row) for row in table])
    return np.stack([np.polynomial.chebyshev.cheb2poly(column) for column in table.T], axis=1)


@functools.partial(jax.jit, static_argnums=0)
def _over_angle(which, X, angle):
    terms = (24, 14) if jnp.result_type(X) == jnp.float64 else (12, 7)
    w, t = (X - 4) / (X + 4), 8 * (angle / jnp.pi) ** 2 - 1

    def row(total, coefficients):
        inner = coefficients[-1]
        for i in range(terms[1] - 2, -1, -1):
            inner = inner * t + coefficients[i]
        return total * w + inner, None

    total, _ = jax.lax.scan(row, jnp.zeros_like(w + t), jnp.asarray(_powers(which, terms)[::-1], X.dtype))
    return total * angle / (2 * jnp.pi * (X + 4))


def _tilted(X, angle):
    """``int_0^angle F(S sin t) dt / (2 pi)``, ``X = S sin(angle)``, angle <= pi/2: Owen's T function, tilted."""
    return _over_angle(0, X, angle)


def _excess(X, angle):
    """The same of ``F(x) - 1 + M(0) x``, which is of second order in X."""
    return X**2 * _over_angle(1, X, angle)


def _facing(X, angle):
    """``int_0^angle sin(angle - t) N(S sin t) dt / (2 pi)``, ``N(x) = int_0^oo r^2 (1 - e^(-x r)) e^(-r^2/2) dr``."""
    return X * jnp.sin(angle) * _over_angle(2, X, angle)


def _up_to(part, half_plane, X, angle, rest):
    """``part(X, .)`` at any angle; rest: pi less the angle; half_plane: the value at pi."""
    wide = angle > rest
    value = part(X, jnp.where(wide, rest, angle))
    return jnp.where(wide, half_plane - value, value)


class Wedge(NamedTuple):
    """The plane of a pair: ``near``: ``rho >= 0``; ``theta = arccos(rho)`` or, if not near, pi less it.

    h2, g: ``sin^2(theta/2)`` and ``sin theta - theta cos theta``; ``S = sqrt(v1 + v2 + 2 k)``; first and second: the
    angles of the triangle of sides s1, s2 and S, opposite s2 and s1.  In the quadrant of negative u and v,
    ``-u - v = r S sin t`` for t between first and ``pi - second``.
    """

    s1: Any
    s2: Any
    s: Any
    near: Any
    theta: Any
    h2: Any
    g: Any
    S: Any
    first: tuple
    second: tuple
    X1: Any
    X2: Any

    @classmethod
    def of(cls, v1, v2, m, p) -> Wedge:
        s1, s2 = deviation(v1), deviation(v2)
        s, near, h2 = half_angle(v1, v2, m, p)
        theta, g = theta_and_g(h2)
        q = 2 * jnp.sqrt(h2 * (1 - h2))
        total, uneven = s1 + s2, s1 - s2
        S = jnp.sqrt(jnp.where(near, jnp.maximum(total**2 - 2 * m, 0), uneven**2 + 2 * p))
        sides = []
        for other, sign in ((s2, 1), (s1, -1)):  # S cos(first) = s1 + s2 rho
            along = jnp.where(near, total - 2 * other * h2, sign * uneven + 2 * other * h2)
            point = (other * q == 0) & (along == 0)  # no triangle: as one of two equal sides
            across = jnp.where(point, 1, other * q)
            along = jnp.where(point & near, 1, along)
            sides.append((jnp.arctan2(across, along), jnp.arctan2(across, -along)))
        return cls(s1, s2, s, near, theta, h2, g, S, *sides, s1 * q, s2 * q)


def facing(w: Wedge):
    """``E[u+ (1 - e^v) 1(v < 0)] + E[v+ (1 - e^u) 1(u < 0)]``, a sum of positive terms."""
    total = 0.0
    for a, b, X in ((w.s1, w.s2, w.X2), (w.s2, w.s1, w.X1)):
        total = total + a * _facing(X, w.theta) + jnp.where(w.near, 0, a * b * (1 - 2 * w.h2) * mills(b) / ROOT_TAU)
    return total


def crossed(w: Wedge, m):
    """``E[(1 - e^u)(1 - e^v) 1(u < 0, v < 0)]``: if near, what it lacks of its value at rho = 1; else itself."""
    half = bend(w.S**2) / ROOT_TAU
    corners = _up_to(_excess, half, w.X2, *w.first) + _up_to(_excess, half, w.X1, *w.second)
    sides = _excess(w.X1, w.theta) + _excess(w.X2, w.theta)
    total = w.s1 + w.s2
    gap = 2 * m / jnp.where(total > 0, total + w.S, 1)
    nodes, weights = np.polynomial.legendre.leggauss(10)
    lost = 0.0
    for x, c in zip((nodes + 1) / 2, weights / 2, strict=True):  # the integral of 1 - F from S to s1 + s2
        z = w.S + gap * float(x)
        lost = lost + float(c) * z * mills(z)
    return jnp.where(w.near, gap * lost / ROOT_TAU - sides + corners, half - corners - sides)


@jax.custom_jvp
def sine(k, v1, v2, m, p):
    """``sin theta``."""
    h2 = half_angle(v1, v2, m, p)[2]
    return 2 * jnp.sqrt(h2 * (1 - h2))


@sine.defjvp
def _sine_jvp(primals, tangents):
    s, near, h2 = half_angle(*primals[1:])
    c = jnp.where(near, 1 - 2 * h2, 2 * h2 - 1)
    return sine(*primals), c * jax.jvp(_angle, primals, tangents)[1]


def _over(x, y):
    return jnp.where(y > 0, x / jnp.where(y > 0, y, 1), 0)


def edge(k, v1, v2, m, p):
    """``E[delta(u) e^v 1(v < 0)]``."""
    return _over(mills(deviation(v2) * sine(k, v1, v2, m, p)) / (2 * jnp.pi), deviation(v1))


@jax.custom_jvp
def one_below(k, v1, v2, m, p):
    """``E[1(u > 0) e^v 1(v < 0)]``."""
    _, near, h2 = half_angle(v1, v2, m, p)
    s2, (theta, _) = deviation(v2), theta_and_g(h2)
    value = _tilted(s2 * 2 * jnp.sqrt(h2 * (1 - h2)), theta)
    return jnp.where(near, value, mills(s2) / ROOT_TAU - value)


@one_below.defjvp
def _one_below_jvp(primals, tangents):
    k, v1, v2, _m, _p = primals
    dk, dv1, dv2, _, _ = tangents
    value, on_u = one_below(*primals), edge(*primals)
    turn = jax.jvp(_angle, primals, tangents)[1] / (2 * jnp.pi)
    slope = value - _over(1 / (2 * ROOT_TAU), deviation(v2))
    return value, turn + on_u * (dk - k * _over(dv1, 2 * v1)) + slope * dv2 / 2


@jax.custom_jvp
def both_below(k, v1, v2, m, p):
    """``E[e^(u + v) 1(u < 0, v < 0)]``."""
    w = Wedge.of(v1, v2, m, p)
    half = mills(w.S) / ROOT_TAU
    return half - _up_to(_tilted, half, w.X2, *w.first) - _up_to(_tilted, half, w.X1, *w.second)


@both_below.defjvp
def _both_below_jvp(primals, tangents):
    k, v1, v2, m, p = primals
    dk, dv1, dv2, _, _ = tangents
    value = both_below(*primals)
    turn = jax.jvp(_angle, primals, tangents)[1] / (2 * jnp.pi)
    out = value * (dk + (dv1 + dv2) / 2) - turn
    on_u, on_v = edge(*primals), edge(k, v2, v1, m, p)
    out = out - on_u * (dk + dv1 / 2 - k * _over(dv1, 2 * v1)) - on_v * (dk + dv2 / 2 - k * _over(dv2, 2 * v2))
    return value, out
