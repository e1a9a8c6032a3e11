"""How fast one mode is learnt: the scalar equations behind flow and steps, with and without momentum."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:  # shapes in signatures, for readers and type checkers: nothing is loaded
    from jaxtyping import Float

__all__ = ["Decay"]


class Decay(NamedTuple):
    """The residual ``C_x(t)`` of a mode of eigenvalue x, ``C_x(0) = 1``, and its gain ``G_x(t) = (1 - C_x(t)) / x``.

    With the rate c and momentum m (0: the first of each pair),

        flow:   C' = -c x C,            or  C'' = -(1 - m) C' - c x C,                      C'(0) = 0,
        steps:  C_(k+1) = (1 - c x) C_k,  or  C_(k+1) = C_k + m (C_k - C_(k-1)) - c x C_k,  C_(-1) = 1.

    All other solutions are made of these two functions (see `Flow`).
    """

    rate: float
    momentum: float
    discrete: bool

    def residual(self, x: Float[np.ndarray, " n"], t: float) -> Float[np.ndarray, " n"]:
        """``C_x(t)``; at infinite time 0, and 1 for x = 0."""
        if np.isinf(t):
            return np.where(x > 0, 0.0, 1.0)
        if self.discrete:
            return _heavy_ball(self.rate * x, self.momentum, t)[1] if self.momentum else _power(self.rate * x, t)
        return _oscillator(self.rate * x, 1 - self.momentum, t)[1] if self.momentum else np.exp(-self.rate * x * t)

    def gain(self, x: Float[np.ndarray, " n"], t: float) -> Float[np.ndarray, " n"]:
        """``(1 - C_x(t)) / x`` and its limit at x = 0; at infinite time 1 / x, and 0 for x = 0 (pseudo-inverse)."""
        positive = x > 0
        safe = np.where(positive, x, 1.0)
        if np.isinf(t):
            return np.where(positive, 1 / safe, 0.0)
        if self.momentum:
            solve = _heavy_ball if self.discrete else _oscillator
            return self.rate * solve(self.rate * x, 1 - self.momentum if not self.discrete else self.momentum, t)[0]
        if not self.discrete:
            return np.where(positive, -np.expm1(-self.rate * safe * t) / safe, self.rate * t)
        step = self.rate * safe
        slow = step < 1  # the other form would lose the digits of small eigenvalues
        grown = np.where(slow, -np.expm1(t * np.log1p(-np.where(slow, step, 0.0))), 1 - _power(step, t))
        return np.where(positive, grown / safe, self.rate * t)

    def difference(self, x: float, s: Float[np.ndarray, " n"], t: float) -> Float[np.ndarray, " n"]:
        """``(C_x(t) - C_(x+s)(t)) / s`` for s >= 0, minus the derivative at s = 0; 0 at infinite time if x > 0."""
        if x == 0 or np.isinf(t):
            return self.gain(s, t) if x == 0 else np.zeros_like(s)
        # Where s is so small that the difference would be rounding, the symmetric difference quotient about the same
        # midpoint: its error is the square of 1e-5, that of the rounding 1e-16 / 1e-5.
        scale = self.rate * max(t, 1.0) / (1 - self.momentum)
        half = np.maximum(s / 2, 1e-5 / scale)
        middle = x + s / 2
        return (self.residual(middle - half, t) - self.residual(middle + half, t)) / (2 * half)


def _power(step, t):
    with np.errstate(over="ignore"):
        return (1 - step) ** int(t)


def _heavy_ball(step, momentum, t):
    """(gain at rate 1, residual) after t steps of ``d <- m d + 1 - step G,  G <- G + d``, by repeated squaring."""
    matrices = np.zeros((*np.shape(step), 3, 3))  # acts on (G, d, 1)
    matrices[..., 0, 0], matrices[..., 0, 1], matrices[..., 0, 2] = 1 - step, momentum, 1
    matrices[..., 1, 0], matrices[..., 1, 1], matrices[..., 1, 2] = -step, momentum, 1
    matrices[..., 2, 2] = 1
    with np.errstate(over="ignore", invalid="ignore"):
        gain = np.linalg.matrix_power(matrices, int(t))[..., 0, 2]
        # C is the homogeneous solution from C_0 = C_(-1) = 1
        residual = np.linalg.matrix_power(matrices[..., :2, :2], int(t))[..., 0, 0]
    return gain, residual


def _oscillator(stiffness, friction, t):
    """(gain at rate 1, residual) at t of ``C'' + friction C' + stiffness C = 0`` from (1, 0)."""
    discriminant = friction**2 - 4 * stiffness
    damped = discriminant > (1e-3 * friction) ** 2
    # two real rates, slow and fast; slow / stiffness stays finite at 0
    d = np.sqrt(np.where(damped, discriminant, friction**2))
    fast, slow_over = -(friction + d) / 2, -2 / (friction + d)
    slow = slow_over * stiffness
    z = slow * t
    phi = np.where(z == 0, 1.0, np.expm1(np.where(damped, z, 0.0)) / np.where(z == 0, 1.0, z))
    gain_damped = (t * phi - slow_over * np.expm1(fast * t)) / d
    with np.errstate(over="ignore", invalid="ignore"):
        residual_damped = (slow * np.exp(fast * t) - fast * np.exp(np.where(damped, z, 0.0))) / d
    # a pair of complex rates, or nearly equal ones
    root = np.sqrt(np.abs(np.where(damped, 0.0, discriminant))) / 2
    angle = np.where(discriminant < 0, root * t, np.minimum(root * t, 700.0))
    cosine = np.where(discriminant < 0, np.cos(angle), np.cosh(np.where(discriminant < 0, 0.0, angle)))
    ratio = np.where(discriminant < 0, np.sinc(angle / np.pi), _sinhc(np.where(discriminant < 0, 0.0, angle)))
    residual_wave = np.exp(-friction * t / 2) * (cosine + friction * t / 2 * ratio)
    gain_wave = (1 - residual_wave) / np.where(damped, 1.0, stiffness)
    return np.where(damped, gain_damped, gain_wave), np.where(damped, residual_damped, residual_wave)


def _sinhc(z):
    return np.where(z == 0, 1.0, np.sinh(z) / np.where(z == 0, 1.0, z))
