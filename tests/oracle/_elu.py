"""Exponential linear units: a tilt of the Gaussian leaves bivariate normal quadrants, which are Owen's T functions."""

from __future__ import annotations

import functools

from mpmath import mp, mpf

from oracle._moments import Moments


def _normal(z):
    return mp.erfc(-z / mp.sqrt(2)) / 2


def _owen(h: mpf, slope: mpf) -> mpf:
    """``T(h, slope) = (1/2 pi) int_0^arctan(slope) exp(-h^2 / (2 cos^2 t)) dt`` for ``0 <= slope <= 1`` (Owen 1956).

    ``2 pi T = arctan(slope) - sum_j (-1)^j slope^(2 j + 1) / (2 j + 1) P(Poisson(h^2 / 2) > j)``,
    with absolute errors: the working precision must hold ``exp(-h^2 / 2)``.
    """
    bits = mp.prec + 20
    one = 1 << bits

    def integer(x):  # in units of 2^-bits: the sum has hundreds of terms, of size 1 at most
        return int(mp.nint(mp.ldexp(x, bits)))

    mean, square = integer(h * h / 2), integer(slope**2)
    weight = integer(mp.exp(-h * h / 2))
    j, power, tail, total = 0, one, one - weight, 0
    while weight or j << bits < mean:
        total += power * tail // (2 * j + 1)
        j += 1
        power = -(power * square >> bits)
        weight = (weight * mean >> bits) // j
        tail -= weight
    return (mp.atan(slope) - slope * mp.ldexp(mpf(total), -2 * bits)) / (2 * mp.pi)


def _side(x: mpf, s: mpf, std: mpf) -> mpf:
    """``T(x / std, s / x)``, and 1/2 more where x < 0, which makes it continuous at x = 0."""
    h, over = abs(x) / std, s / std
    if h == over == 0:
        return mpf(1) / 4
    if over <= h:
        found = _owen(h, over / h)
    else:
        found = (_normal(h) + _normal(over)) / 2 - _normal(h) * _normal(over) - _owen(over, h / over)
    return found if x >= 0 else mpf(1) / 2 - found


def _product(alpha: mpf, p: mpf, q: mpf, k: mpf) -> tuple[mpf, mpf]:
    """With ``s^2 = p q - k^2``, Stein's lemma and the quadrants of the normal distribution tilted by an exponential.

        E[u+ v+] = (s + k (pi - theta)) / (2 pi)
        E[u+ 1(v < 0)] = (sqrt(p) - k / sqrt(q)) / (2 sqrt(2 pi))
        E[u+ e^v 1(v < 0)] = k E[1(u > 0) e^v 1(v < 0)] + sqrt(p / 2 pi) e^(s^2 / 2 p) Phi(-s / sqrt(p))
            - k / (2 sqrt(2 pi q))
        E[e^v 1(u < 0, v < 0)] = e^(q / 2) P(u < -k, v < -q)
        E[e^(u + v) 1(u < 0, v < 0)] = e^((p + q) / 2 + k) P(u < -p - k, v < -k - q)

    A quadrant is ``P(X < h, Y < g) = (Phi(h) + Phi(g)) / 2`` less two `_side` (Owen 1956).
    """
    a, b, s, root = mp.sqrt(p), mp.sqrt(q), mp.sqrt(max(p * q - k * k, mpf(0))), mp.sqrt(2 * mp.pi)
    theta = mp.atan2(s, k)
    both_signs = (mp.pi - theta) / (2 * mp.pi)  # P(u > 0, v > 0) = P(u < 0, v < 0)

    def mixed(std, other):
        # of the variable with `other`: E[e^v 1(v < 0)], E[e^v 1(u < 0, v < 0)], E[u+ (e^v - 1) 1(v < 0)]
        tilt, below = mp.exp(other**2 / 2), _normal(-other)
        quadrant = tilt * ((_normal(-k / std) + below) / 2 - _side(k, s, std))
        crossed = tilt * below - quadrant
        bump = std / root * mp.exp((s / std) ** 2 / 2) * _normal(-s / std)
        facing = k * crossed + bump - k / (2 * root * other) - (std - k / other) / (2 * root)
        return crossed, quadrant, facing

    (right1, left1, facing1), (right2, left2, facing2) = mixed(a, b), mixed(b, a)
    quadrant = (_normal(-(p + k) / a) + _normal(-(q + k) / b)) / 2 - _side(p + k, s, a) - _side(q + k, s, b)
    both = mp.exp((p + q) / 2 + k) * quadrant
    value = s / (2 * mp.pi) + k * both_signs + alpha * (facing1 + facing2)
    value += alpha**2 * (both - left1 - left2 + both_signs)
    return value, both_signs + alpha * (right1 + right2) + alpha**2 * both


def _elu_like(scale: str, alpha: float | str) -> Moments:
    """``scale (z if z > 0 else alpha (exp(z) - 1))``."""

    @functools.lru_cache(maxsize=1 << 14)
    def at(p, q, k, digits):
        # terms of size 1 cancel to sqrt(p q), and tails of size exp(-p - q) are multiplied by exp(p + q)
        lost = -mp.log10(min(p * q, mpf(1))) / 2 if p and q else mpf(0)
        with mp.workdps(digits + int(mp.ceil(lost + (p + q) / mp.log(10))) + 5):
            if p == 0 or q == 0:
                # phi(0) = 0, and phi'(0) is taken to be alpha
                return mpf(0), mpf(scale) ** 2 * mpf(alpha) * _mean_slope(mpf(alpha), max(p, q))
            value, slope = _product(mpf(alpha), p, q, k)
            return mpf(scale) ** 2 * value, mpf(scale) ** 2 * slope

    return lambda p, q, k: at(p, q, k, mp.dps)


def _mean_slope(alpha, v):
    return 1 / mpf(2) + alpha * mp.exp(v / 2) * _normal(-mp.sqrt(v)) if v else alpha


def elu(alpha: float = 1.0) -> Moments:
    return _elu_like("1", alpha)


def selu() -> Moments:
    """Klambauer et al. 2017 with the constants of their paper."""
    return _elu_like("1.0507009873554804934193349852946", "1.6732632423543772848170429916717")
