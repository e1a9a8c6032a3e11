"""Arrays of numbers with 31 digits, each the unevaluated sum of two float64 (Dekker 1971; Hida, Li and Bailey 2001)."""

from __future__ import annotations

import functools

import numpy as np
from mpmath import mp, mpf


class DoubleDouble:
    """An array ``hi + lo`` with ``|lo| <= ulp(hi) / 2``; arithmetic to a relative error of about 1e-31."""

    __array_ufunc__ = None  # NumPy's operators leave the work to the reflected ones below

    def __init__(self, hi, lo=0.0):
        self.hi = np.asarray(hi, np.float64)
        self.lo = np.broadcast_to(lo, self.hi.shape)

    @classmethod
    def of(cls, numbers: list[mpf]) -> DoubleDouble:
        hi = [float(x) for x in numbers]
        return cls(hi, [float(x - h) for x, h in zip(numbers, hi, strict=True)])

    def __getitem__(self, index) -> DoubleDouble:
        return DoubleDouble(self.hi[index], self.lo[index])

    def __neg__(self) -> DoubleDouble:
        return DoubleDouble(-self.hi, -self.lo)

    def __add__(self, other) -> DoubleDouble:
        other = _lifted(other)
        s, e = _two_sum(self.hi, other.hi)
        t, f = _two_sum(self.lo, other.lo)
        s, e = _quick_two_sum(s, e + t)
        return DoubleDouble(*_quick_two_sum(s, e + f))

    def __sub__(self, other) -> DoubleDouble:
        return self + -_lifted(other)

    def __mul__(self, other) -> DoubleDouble:
        other = _lifted(other)
        p, e = _two_product(self.hi, other.hi)
        return DoubleDouble(*_quick_two_sum(p, e + (self.hi * other.lo + self.lo * other.hi)))

    def reciprocal(self) -> DoubleDouble:
        """``1 / x`` by one step of Newton's iteration from the float64 quotient."""
        first = DoubleDouble(1 / self.hi)
        return first + first * (1 - first.hi * self)

    def sum(self) -> DoubleDouble:
        """Over the last axis, halving it."""
        total = self
        while (n := total.hi.shape[-1]) > 1:
            half = n // 2
            rest = total[..., 2 * half :]
            total = total[..., :half] + total[..., half : 2 * half]
            if n % 2:
                total = DoubleDouble(np.concatenate([total.hi, rest.hi], -1), np.concatenate([total.lo, rest.lo], -1))
        return total[..., 0]

    def numbers(self) -> list[mpf]:
        """Of an array with one axis."""
        return [mpf(float(h)) + mpf(float(e)) for h, e in zip(self.hi, self.lo, strict=True)]

    __radd__, __rmul__ = __add__, __mul__

    def __rsub__(self, other) -> DoubleDouble:
        return -self + other


def exp_of_negative(x: np.ndarray) -> DoubleDouble:
    """``exp(-x)`` for float64 ``0 <= x < 1000``: from a table at multiples of 1/64, and Taylor's series."""
    index = np.rint(64 * x).astype(int)
    rest = index / 64 - x  # exact
    table, factorials = _exponentials(), _reciprocal_factorials()
    total = factorials[12]
    for i in range(11, -1, -1):
        total = total * rest + factorials[i]
    return total * table[index]


@functools.cache
def _exponentials() -> DoubleDouble:
    with mp.workdps(45):
        step = mp.exp(mpf(-1) / 64)
        powers = [mpf(1)]
        for _ in range(64 * 1000):
            powers.append(powers[-1] * step)
        return DoubleDouble.of(powers)


@functools.cache
def _reciprocal_factorials() -> DoubleDouble:
    with mp.workdps(45):
        return DoubleDouble.of([1 / mp.factorial(i) for i in range(13)])


def _lifted(x) -> DoubleDouble:
    return x if isinstance(x, DoubleDouble) else DoubleDouble(x)


def _quick_two_sum(a, b):
    s = a + b
    return s, b - (s - a)


def _two_sum(a, b):
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def _split(a):
    t = 134217729.0 * a  # 2^27 + 1
    high = t - (t - a)
    return high, a - high


def _two_product(a, b):
    p = a * b
    (a1, a2), (b1, b2) = _split(a), _split(b)
    return p, ((a1 * b1 - p) + a1 * b2 + a2 * b1) + a2 * b2
