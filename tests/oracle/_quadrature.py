"""The same means for functions without a closed form, by quadrature in multiple precision."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from mpmath import mp, mpf

from oracle._double_double import DoubleDouble, exp_of_negative
from oracle._moments import Moments

# z -> (phi(z), phi'(z))
Both = Callable[[mpf], tuple[mpf, mpf]]
# the same of arrays, given z and exp(z)
OnGrid = Callable[[DoubleDouble, DoubleDouble], tuple[DoubleDouble, DoubleDouble]]


# 31 digits of `DoubleDouble`, less what the sums lose
_DOUBLE_DOUBLE_DIGITS = 26


def _trapezoid_moments(both: Both, on_grid: OnGrid, strip: Callable[[], mpf], digits: int) -> Moments:
    """Trapezoidal rule in both directions of the plane, right to about `digits` digits.

    For an integrand analytic for |Im z| < y, where the Gaussian weight has grown by exp(y^2 / 2), the rule with step h
    errs by exp(y^2 / 2 - 2 pi y / h) (Trefethen and Weideman 2014, theorem 5.1).
    """

    def rule(std):
        needed = (digits + 4) * mp.log(10)
        y = mp.sqrt(2 * needed)  # the best for an entire function
        if std > 0:
            y = min(y, mpf("0.85") * strip() / std)
        h = 2 * mp.pi * y / (needed + y * y / 2)
        return h, int(mp.ceil(mp.sqrt(2 * needed) / h))

    plane = _plane_by_arrays if digits <= _DOUBLE_DOUBLE_DIGITS else _plane_by_numbers

    @functools.lru_cache(maxsize=1 << 15)
    def at(p, q, k):
        with mp.workdps(digits + 15):
            a = mp.sqrt(p)
            along = k / a if p > 0 else mpf(0)  # u = a z1, v = along z1 + across z2
            across = mp.sqrt(max(q - along**2, mpf(0)))
            inner = rule(across) if across > 0 else (mpf(0), 0)
            return plane(both, on_grid, (a, along, across), rule(max(a, abs(along))), inner)

    return at


def _plane_by_numbers(both, on_grid, scales, outer, inner) -> tuple[mpf, mpf]:
    a, along, across = scales
    nodes = [list(zip(_multiples(h, n), _weights(h, n), strict=True)) for h, n in (outer, inner)]
    value, slope = mpf(0), mpf(0)
    for z1, w1 in nodes[0]:
        phi, phi1 = both(a * z1)
        sums = [(w2 * f, w2 * g) for z2, w2 in nodes[1] for f, g in [both(along * z1 + across * z2)]]
        value += w1 * phi * mp.fsum(f for f, _ in sums)
        slope += w1 * phi1 * mp.fsum(g for _, g in sums)
    return value, slope


def _plane_by_arrays(both, on_grid, scales, outer, inner) -> tuple[mpf, mpf]:
    """The same sums with arrays; ``exp(along z1 + across z2)`` is a product of two numbers of one index each."""
    a, along, across = scales
    (h1, n1), (h2, n2) = outer, inner
    weights = _weights(h1, n1)
    phis = [both(a * z1) for z1 in _multiples(h1, n1)]
    z1, z2 = (DoubleDouble.of(_multiples(c * h, n)) for c, h, n in ((along, h1, n1), (across, h2, n2)))
    e1, e2 = (DoubleDouble.of(_powers(mp.exp(c * h), n)) for c, h, n in ((along, h1, n1), (across, h2, n2)))
    w2 = DoubleDouble.of(_weights(h2, n2))
    rows = max(1, 8192 // (2 * n2 + 1))  # as much as a processor's cache holds
    value, slope = mpf(0), mpf(0)
    for i in range(0, 2 * n1 + 1, rows):
        part = slice(i, i + rows)
        f, g = on_grid(z1[part, None] + z2, e1[part, None] * e2)
        sums = [(w2 * values).sum().numbers() for values in (f, g)]
        for w, (phi, phi1), F, G in zip(weights[part], phis[part], *sums, strict=True):
            value += w * phi * F
            slope += w * phi1 * G
    return value, slope


def _multiples(h: mpf, n: int) -> list[mpf]:
    return [i * h for i in range(-n, n + 1)]


def _powers(e: mpf, n: int) -> list[mpf]:
    """``e^i`` for i from -n to n, the rounding of which adds up to n ulps."""
    up, down = [mpf(1)], [mpf(1)]
    for _ in range(n):
        up.append(up[-1] * e)
        down.append(down[-1] / e)
    return [*down[:0:-1], *up]


def _weights(h: mpf, n: int) -> list[mpf]:
    """``h exp(-(i h)^2 / 2) / sqrt(2 pi)``; one node has all of the weight."""
    if n == 0:
        return [mpf(1)]
    half, ratio, square = [h / mp.sqrt(2 * mp.pi)], mp.exp(-(h**2) / 2), mp.exp(-(h**2))
    for _ in range(n):
        half.append(half[-1] * ratio)
        ratio *= square
    return [*half[:0:-1], *half]


def tanh(digits: int = 50) -> Moments:
    def both(z):
        t = mp.tanh(z)
        return t, 1 - t * t

    def on_grid(z, e):
        square = e * e
        r = (square + 1).reciprocal()
        return 1 - 2 * r, 4 * (square * r * r)

    return _trapezoid_moments(both, on_grid, lambda: mp.pi / 2, digits)


def _logistic(z):
    return 1 / (1 + mp.exp(-z))


def sigmoid(digits: int = 50) -> Moments:
    def both(z):
        s = _logistic(z)
        return s, s * (1 - s)

    def on_grid(z, e):
        r = (e + 1).reciprocal()
        s = e * r
        return s, s * r

    return _trapezoid_moments(both, on_grid, lambda: mp.pi, digits)


def softplus(digits: int = 50) -> Moments:
    def both(z):
        e = mp.exp(-abs(z))
        return max(z, mpf(0)) + mp.log1p(e), (1 if z > 0 else e) / (1 + e)

    def on_grid(z, e):
        first = np.logaddexp(0, z.hi)  # then a step of Newton's iteration for log(1 + e)
        return (e + 1) * exp_of_negative(first) - 1 + first, e * (e + 1).reciprocal()

    return _trapezoid_moments(both, on_grid, lambda: mp.pi, digits)


def silu(digits: int = 50) -> Moments:
    """``z / (1 + exp(-z))``."""

    def both(z):
        s = _logistic(z)
        return z * s, s * (1 + z * (1 - s))

    def on_grid(z, e):
        r = (e + 1).reciprocal()
        s = e * r
        return z * s, s * (z * r + 1)

    return _trapezoid_moments(both, on_grid, lambda: mp.pi, digits)
