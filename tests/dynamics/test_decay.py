"""The scalar equations against 60 digits, from eigenvalues at rounding to the largest stable ones."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest

import widelimit as wl
from widelimit.dynamics._decay import Decay

# 0.0025 is critical damping for momentum 0.9
EIGENVALUES = np.array([1e-14, 1e-8, 1e-3, 0.0024999999, 0.0025, 0.00250001, 0.1, 1.0, 1.7])


def residual(x, t, momentum, discrete):
    m = mpmath.mpf(momentum)
    if discrete:
        now = before = mpmath.mpf(1)
        for _ in range(int(t)):
            now, before = now + m * (now - before) - x * now, now
        return now
    if m == 0:
        return mpmath.exp(-x * t)
    friction = 1 - m
    root = mpmath.sqrt(mpmath.mpc(friction**2 - 4 * x))
    slow, fast = (-friction + root) / 2, (-friction - root) / 2
    return ((slow * mpmath.exp(fast * t) - fast * mpmath.exp(slow * t)) / (slow - fast)).real


@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("t", [1, 3, 50, 2000])
def test_residual_gain_and_difference(momentum, discrete, t):
    with mpmath.workdps(60):
        x, ridge = [mpmath.mpf(float(v)) for v in EIGENVALUES], mpmath.mpf(0.01)
        exact = [residual(v, t, momentum, discrete) for v in x]
        gain = [float((1 - C) / v) for C, v in zip(exact, x, strict=True)]
        first = residual(ridge, t, momentum, discrete)
        difference = [float((first - residual(ridge + v, t, momentum, discrete)) / v) for v in x]
    found = Decay(1.0, momentum, discrete)
    np.testing.assert_allclose(found.residual(EIGENVALUES, t), np.array(exact, float), atol=1e-12)
    np.testing.assert_allclose(found.gain(EIGENVALUES, t), gain, rtol=1e-12)
    np.testing.assert_allclose(found.gain(np.zeros(1), t), gain[0], rtol=1e-9)
    # in units of the largest possible slope: the residual's error over 1e-5
    scale = t / (1 - momentum)
    np.testing.assert_allclose(found.difference(0.01, EIGENVALUES, t), difference, atol=1e-8 * scale)


def test_modes_decay_each_at_its_rate():
    rng = np.random.default_rng(0)
    A, Y, f0 = rng.normal(size=(5, 8)), rng.normal(size=5), rng.normal(size=5)
    K, times = A @ A.T, [0.0, 0.1, 3.0]
    F = wl.flow(K, Y, learning_rate=0.2, f0=f0)
    expected = F.spectrum.V.T @ (Y - f0) * np.exp(-0.2 * np.outer(times, F.spectrum.lam))
    np.testing.assert_allclose(F.modes(times), expected, rtol=1e-12)  # also what has all but vanished
    np.testing.assert_allclose((F.spectrum.V @ F.modes(times)[..., None])[..., 0], Y - F(times), atol=1e-12)
    G = wl.steps(K, Y, learning_rate=0.02, f0=f0, ridge=0.3)
    np.testing.assert_allclose(G.modes(7), G.spectrum.V.T @ (Y - G(7)), atol=1e-12)
    assert wl.flow(K, np.stack([Y, f0], 1)).modes(times).shape == (3, 5, 2)
    with pytest.raises(ValueError, match="squared loss"):
        wl.flow(K, np.sign(Y), loss="logistic").modes(1.0)
