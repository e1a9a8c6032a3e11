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
from widelimit.duals._mills import ROOT_TAU, bend, mills, terms, value
from widelimit.duals._rectified import _angle

__all__ = ["Wedge", "below", "edge", "evaluate", "facing_and_crossed", "legendre", "sine"]


@functools.lru_cache(maxsize=1)
def _tables() -> dict[str, np.ndarray]:
    """Chebyshev coefficients of the integrals of `evaluate` in ``(X - 4)/(X + 4)`` and the square of the angle.

    Of ``(X + 4) int_0^1 f(X sin(angle y) / sin(angle)) dy``, for angles up to pi/2, by quadrature with the layer of
    width 1/X at y = 0 stretched.
    """
    order = (40, 24)
    w, t = (np.cos(np.pi * (np.arange(n) + 0.5) / n) for n in order)
    X, angle = (4 * (1 + w) / (1 - w))[:, None, None], (np.pi / 2 * np.sqrt((1 + t) / 2))[None, :, None]
    nodes, weights = np.polynomial.legendre.leggauss(80)
    reach = np.arcsinh(X)
    stretched = np.sinh(reach * (nodes + 1) / 2)
    y, weights = stretched / X, weights / 2 * reach / X * np.sqrt(1 + stretched**2)
    x = X * np.sin(angle * y) / np.sin(angle)
    F, fall = value("flux", x), value("fall", x)
    facing = np.sin(angle * (1 - y)) / np.sin(angle) * (fall + x * F) / X
    out = {}
    for name, f in (("tilted", F), ("excess", x * fall / X**2), ("facing", facing)):
        values = (X + 4)[..., 0] * (weights * f).sum(-1)
        for n in order:  # along the first axis, then along the second
            rows = np.arange(n)
            steps = np.outer(rows, 2 * rows + 1) % (4 * n)  # of pi / (2 n): whole turns first, they cost digits
            cosines = np.sin(np.pi / (2 * n) * (np.abs(steps - 2 * n) - n))
            basis = cosines * (2 - (rows[:, None] == 0)) / n
            values = (basis @ values).T
        out[name] = values
    return out


@functools.lru_cache(maxsize=8)
def _powers(which: str, shape: tuple[int, int]) -> np.ndarray:
    table = _tables()[which][: shape[0], : shape[1]]
    table = np.stack([np.polynomial.chebyshev.cheb2poly(row) for row in table])
    return np.stack([np.polynomial.chebyshev.cheb2poly(column) for column in table.T], axis=1)[::-1]


@functools.partial(jax.jit, static_argnums=0)
def _polynomials(names, X, angle):
    dtype, ones = X.dtype, (1,) * (X.ndim - 1)
    order = terms(dtype), 14 if dtype == jnp.float64 else 7
    w, t = (X - 4) / (X + 4), 8 * (angle / jnp.pi) ** 2 - 1
    table = np.stack([_powers(name, order) for name in names], axis=-1).reshape(*order, len(names), *ones)

    def row(total, coefficients):
        inner = coefficients[-1]
        for i in range(order[1] - 2, -1, -1):
            inner = inner * t + coefficients[i]
        return total * w + inner, None

    # a loop: unrolled, there would be so many operations that compiling took longer than all the rest
    return jax.lax.scan(row, jnp.zeros_like(w), jnp.asarray(table, dtype))[0] * angle / (2 * jnp.pi * (X + 4))


def evaluate(integrals) -> list:
    """Values of integrals ``(name, X, angle)``, all in one loop.

    With ``X = S sin(angle)`` and the angle at most pi/2, an integral is ``int_0^angle f dt / (2 pi)`` of

        tilted: F(S sin t), which makes it Owen's T function, tilted;
        excess: F(x) - 1 + M(0) x at x = S sin t, which is of second order in S;
        facing: sin(angle - t)/sin(angle) N(S sin t),    N(x) = int_0^oo r^2 (1 - e^(-x r)) e^(-r^2/2) dr.
    """
    names, X, angle = zip(*integrals, strict=True)
    arrays = jnp.broadcast_arrays(*X, *angle)
    X, angle = arrays[: len(names)], arrays[len(names) :]
    power = {"tilted": 0, "excess": 2, "facing": 1}
    values = _polynomials(names, jnp.stack(X), jnp.stack(angle))
    return [x ** power[name] * value for name, x, value in zip(names, X, values, strict=True)]


def legendre(order: int):
    """Gauss-Legendre nodes and weights of the unit interval."""
    x, w = np.polynomial.legendre.leggauss(order)
    return ((1 + x) / 2).tolist(), (w / 2).tolist()


def _up_to(value, half_plane, side):
    # an integral up to an angle that may be obtuse, from that up to the acute one
    return jnp.where(side[1], half_plane - value, value)


class Wedge(NamedTuple):
    """The plane of a pair: ``near``: ``rho >= 0``; ``theta = arccos(rho)`` or, if not near, pi less it.

    h2, g: ``sin^2(theta/2)`` and ``sin theta - theta cos theta``; ``S = sqrt(v1 + v2 + 2 k)``; first and second: the
    angles of the triangle of sides s1, s2 and S, opposite s2 and s1, or pi less it where the flag beside it is set;
    X1, X2: s1 and s2 times ``sin theta``, which are S times the sines of second and first.  In the quadrant of
    negative u and v, ``-u - v = r S sin t`` for t between first and ``pi - second``.
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
            sides.append((jnp.arctan2(across, jnp.abs(along)), along < 0))
        return cls(s1, s2, s, near, theta, h2, g, S, sides[0], sides[1], s1 * q, s2 * q)

    def corners(self, name: str) -> list:
        """The integrals, for `evaluate`, up to the acute angles of first and second."""
        return [(name, X, angle) for X, (angle, _) in ((self.X2, self.first), (self.X1, self.second))]


def facing_and_crossed(w: Wedge, m):
    """``E[u+ (1 - e^v) 1(v < 0)] + E[v+ (1 - e^u) 1(u < 0)]`` and ``E[(1 - e^u)(1 - e^v) 1(u < 0, v < 0)]``.

    Of the second, if near, what it lacks of its value at rho = 1.  The first is a sum of positive terms.
    """
    total = w.s1 + w.s2
    gap = 2 * m / jnp.where(total > 0, total + w.S, 1)  # s1 + s2 - S
    nodes, weights = legendre(7)
    between = [w.S + gap * x for x in nodes]
    sides = [(name, X, w.theta) for name in ("excess", "facing") for X in (w.X1, w.X2)]
    first, second, side1, side2, facing1, facing2 = evaluate(w.corners("excess") + sides)
    opposite = jnp.where(w.near, 0, w.s * (1 - 2 * w.h2) * (mills(w.s1) + mills(w.s2)) / ROOT_TAU)
    facing = w.X1 * facing2 + w.X2 * facing1 + opposite
    half = bend(w.S**2) / ROOT_TAU
    corners = _up_to(first, half, w.first) + _up_to(second, half, w.second)
    lost = gap * sum(c * z * mills(z) for c, z in zip(weights, between, strict=True)) / ROOT_TAU
    return facing, jnp.where(w.near, lost + corners, half - corners) - side1 - side2


@jax.custom_jvp
def sine(k, v1, v2, m, p):
    """``sin theta``."""
    h2 = half_angle(v1, v2, m, p)[2]
    return 2 * jnp.sqrt(h2 * (1 - h2))


@sine.defjvp
def _sine_jvp(primals, tangents):
    _, near, h2 = half_angle(*primals[1:])
    c = jnp.where(near, 1 - 2 * h2, 2 * h2 - 1)
    return sine(*primals), c * jax.jvp(_angle, primals, tangents)[1]


def _over(x, y):
    return jnp.where(y > 0, x / jnp.where(y > 0, y, 1), 0)


def edge(k, v1, v2, m, p):
    """``E[delta(u) e^v 1(v < 0)]``."""
    return _over(mills(deviation(v2) * sine(k, v1, v2, m, p)) / (2 * jnp.pi), deviation(v1))


@jax.custom_jvp
def below(k, v1, v2, m, p):
    """``E[1(u > 0) e^v 1(v < 0)]``, ``E[e^u 1(u < 0) 1(v > 0)]``, ``E[e^(u + v) 1(u < 0, v < 0)]``."""
    w = Wedge.of(v1, v2, m, p)
    sides = [("tilted", X, w.theta) for X in (w.X2, w.X1)]
    parts = evaluate(sides + w.corners("tilted"))
    first, second, half = (mills(x) / ROOT_TAU for x in (w.s2, w.s1, w.S))
    one, two = jnp.where(w.near, parts[0], first - parts[0]), jnp.where(w.near, parts[1], second - parts[1])
    return one, two, half - _up_to(parts[2], half, w.first) - _up_to(parts[3], half, w.second)


@below.defjvp
def _below_jvp(primals, tangents):
    k, v1, v2, m, p = primals
    dk, dv1, dv2, _, _ = tangents
    one, two, both = below(*primals)
    turn = jax.jvp(_angle, primals, tangents)[1] / (2 * jnp.pi)
    on_u, on_v = edge(*primals), edge(k, v2, v1, m, p)
    d1, d2 = k * _over(dv1, 2 * v1), k * _over(dv2, 2 * v2)
    out1 = turn + on_u * (dk - d1) + (one - _over(1 / (2 * ROOT_TAU), deviation(v2))) * dv2 / 2
    out2 = turn + on_v * (dk - d2) + (two - _over(1 / (2 * ROOT_TAU), deviation(v1))) * dv1 / 2
    out = both * (dk + (dv1 + dv2) / 2) - turn - on_u * (dk + dv1 / 2 - d1) - on_v * (dk + dv2 / 2 - d2)
    return (one, two, both), (out1, out2, out)
