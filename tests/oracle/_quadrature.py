"""The same means for functions without a closed form, by quadrature in multiple precision."""

from __future__ import annotations

import functools
from collections.abc import Callable

from mpmath import mp, mpf

from oracle._moments import Moments

# z -> (phi(z), phi'(z))
Both = Callable[[mpf], tuple[mpf, mpf]]


def _trapezoid_moments(both: Both, strip: Callable[[], mpf], digits: int) -> Moments:
    """Trapezoidal rule in both directions of the plane, right to about `digits` digits.

    For an integrand analytic for |Im z| < y, where the Gaussian weight has grown by exp(y^2 / 2), the rule with step h
    errs by exp(y^2 / 2 - 2 pi y / h) (Trefethen and Weideman 2014, theorem 5.1).
    """

    def nodes(std):
        needed = (digits + 4) * mp.log(10)
        y = mp.sqrt(2 * needed)  # the best for an entire function
        if std > 0:
            y = min(y, mpf("0.85") * strip() / std)
        h = 2 * mp.pi * y / (needed + y * y / 2)
        n = int(mp.ceil(mp.sqrt(2 * needed) / h))
        norm = h / mp.sqrt(2 * mp.pi)
        return [(i * h, norm * mp.exp(-((i * h) ** 2) / 2)) for i in range(-n, n + 1)]

    def product(p, q, k):
        a = mp.sqrt(p)
        along = k / a if p > 0 else mpf(0)  # u = a z1, v = along z1 + across z2
        across = mp.sqrt(max(q - along**2, mpf(0)))
        inner = nodes(across) if across > 0 else [(mpf(0), mpf(1))]
        value, slope = mpf(0), mpf(0)
        for z1, w1 in nodes(max(a, abs(along))):
            phi, phi1 = both(a * z1)
            sums = [(w2 * f, w2 * g) for z2, w2 in inner for f, g in [both(along * z1 + across * z2)]]
            value += w1 * phi * mp.fsum(f for f, _ in sums)
            slope += w1 * phi1 * mp.fsum(g for _, g in sums)
        return value, slope

    @functools.lru_cache(maxsize=4096)
    def at(p, q, k):
        with mp.workdps(digits + 15):
            return product(p, q, k)

    return at


def tanh(digits: int = 50) -> Moments:
    def both(z):
        t = mp.tanh(z)
        return t, 1 - t * t

    return _trapezoid_moments(both, lambda: mp.pi / 2, digits)


def _logistic(z):
    return 1 / (1 + mp.exp(-z))


def sigmoid(digits: int = 50) -> Moments:
    def both(z):
        s = _logistic(z)
        return s, s * (1 - s)

    return _trapezoid_moments(both, lambda: mp.pi, digits)


def softplus(digits: int = 50) -> Moments:
    def both(z):
        e = mp.exp(-abs(z))
        return max(z, mpf(0)) + mp.log1p(e), (1 if z > 0 else e) / (1 + e)

    return _trapezoid_moments(both, lambda: mp.pi, digits)


def silu(digits: int = 50) -> Moments:
    """``z / (1 + exp(-z))``."""

    def both(z):
        s = _logistic(z)
        return z * s, s * (1 + z * (1 - s))

    return _trapezoid_moments(both, lambda: mp.pi, digits)


def _normal(z):
    return mp.erfc(-z / mp.sqrt(2)) / 2


def _elu_like(scale: Callable[[], mpf], alpha: Callable[[], mpf], digits: int) -> Moments:
    """``scale (z if z > 0 else alpha (exp(z) - 1))``: the mean over v given u is closed, the one over u split at 0."""

    def given(mean, std):
        if std == 0:
            e = mp.expm1(min(mean, mpf(0)))
            return (mean, mpf(1)) if mean > 0 else (alpha() * e, alpha() * (1 + e))
        t = mean / std
        below, tilted = _normal(-t), mp.exp(mean + std**2 / 2) * _normal(-t - std)
        return mean * (1 - below) + std * mp.npdf(t) + alpha() * (tilted - below), 1 - below + alpha() * tilted

    def product(p, q, k):
        if p == 0:
            return tuple(x * y for x, y in zip(given(mpf(0), mpf(0)), given(mpf(0), mp.sqrt(q)), strict=True))
        a = mp.sqrt(p)
        along = k / a
        across = mp.sqrt(max(q - along**2, mpf(0)))
        reach = mp.sqrt(2 * (digits + 6) * mp.log(10))
        ratio = across / abs(along) if along else mpf(0)
        cuts = sorted({mpf(0), *(s * min(reach, c * ratio) for s in (-1, 1) for c in (1, 8)), -reach, reach})

        def integrand(z):  # both means at once, as the two parts of a complex number
            (value1, slope1), (value2, slope2) = given(a * z, mpf(0)), given(along * z, across)
            return mp.npdf(z) * mp.mpc(value1 * value2, slope1 * slope2)

        both = mp.quad(integrand, cuts)
        return both.real, both.imag

    @functools.lru_cache(maxsize=4096)
    def at(p, q, k):
        with mp.workdps(digits + 15):
            s2 = scale() ** 2
            value, slope = product(p, q, k)
            return s2 * value, s2 * slope

    return at


def elu(alpha: float = 1.0, digits: int = 50) -> Moments:
    return _elu_like(lambda: mpf(1), lambda: mpf(alpha), digits)


def selu(digits: int = 50) -> Moments:
    """Klambauer et al. 2017 with the constants of their paper."""
    return _elu_like(
        lambda: mpf("1.0507009873554804934193349852946"),
        lambda: mpf("1.6732632423543772848170429916717"),
        digits,
    )
