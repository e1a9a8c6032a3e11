"""The recursion over layers (Jacot et al. 2018, Lee et al. 2019), in the NTK parameterisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from mpmath import mp, mpf

from oracle._moments import Moments


class Pair(NamedTuple):
    """NNGP and NTK of one pair of inputs, per output."""

    nngp: mpf
    ntk: mpf


def fully_connected(
    activation: Moments,
    x1: Sequence[float | mpf],
    x2: Sequence[float | mpf],
    *,
    depth: int,
    W_std: float | mpf,
    b_std: float | mpf = 0.0,
    digits: int = 60,
) -> Pair:
    """Kernels of ``Dense, phi, Dense, phi, ..., Dense`` with `depth` hidden layers, right to about `digits` digits.

        K = W_std^2 <x1, x2> / d + b_std^2,  T = K                        first layer
        K = W_std^2 E[phi(u) phi(v)] + b_std^2,  T = K + W_std^2 E[phi'(u) phi'(v)] T      each further layer

    The floating-point numbers given are taken as exact.  Near equal inputs half of the digits of an angle are lost,
    hence the doubled working precision.
    """
    if len(x1) != len(x2):
        raise ValueError("x1 and x2 differ in length")
    with mp.workdps(2 * digits + 40):
        w, b = mpf(W_std) ** 2, mpf(b_std) ** 2
        x1, x2 = [mpf(x) for x in x1], [mpf(x) for x in x2]

        def first(x, y):
            return w * mp.fdot(x, y) / len(x) + b

        p, q, k = first(x1, x1), first(x2, x2), first(x1, x2)
        T = k
        for _ in range(depth):
            (value, slope) = activation(p, q, k)
            p, q = w * activation(p, p, p)[0] + b, w * activation(q, q, q)[0] + b
            k = w * value + b
            T = k + w * slope * T
        return Pair(k, T)


def derivative(f: Callable[[mpf], mpf], at: float | mpf = 0.0, *, digits: int = 60) -> mpf:
    """Central difference of f, to a few tens of digits where f is smooth.

    Where the left and the right derivative differ (a ReLU kernel seen from equal inputs), it is their mean.
    """
    with mp.workdps(2 * digits + 40):
        h = mpf(10) ** (-digits // 2)
        at = mpf(at)
        return (f(at + h) - f(at - h)) / (2 * h)
