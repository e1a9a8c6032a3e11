"""The error that a series reports bounds its true error, measured against multiple precision.

elu and selu have closed forms, but their series is that of any function that bends and has a kink at 0.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mpmath import mp, mpf

import oracle
import widelimit as wl
from widelimit import nn
from widelimit.duals import Pair, Series

CASES = {
    "tanh": (jnp.tanh, oracle.tanh(18)),
    "sigmoid": (jax.nn.sigmoid, oracle.sigmoid(18)),
    "softplus": (jax.nn.softplus, oracle.softplus(18)),
    "silu": (jax.nn.silu, oracle.silu(18)),
    "elu": (jax.nn.elu, oracle.elu(1.0)),
    "selu": (jax.nn.selu, oracle.selu()),
}


@pytest.mark.parametrize("std", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("float64")
def test_the_reported_error_is_a_bound(name, std):
    function, moments = CASES[name]
    dual, v = Series.of(function), std**2
    with mp.workdps(30):
        whole = [float(x) for x in moments(mpf(v), mpf(v), mpf(v))]
    bounds = [float(e) for e in dual.error(jnp.asarray(v))]
    for rho in (1.0, -1.0) if std != 1.0 else (1.0, -1.0, 0.5):
        pair = Pair(*map(jnp.asarray, (rho * v, v, v)))
        with mp.workdps(30):
            exact = [float(x) for x in moments(mpf(v), mpf(v), mpf(rho) * v)]
        got = float(dual.kernel(pair)), float(dual.derivative_kernel(pair))
        for value, truth, size, bound in zip(got, exact, whole, bounds, strict=True):
            assert abs(value - truth) <= (bound + 1e-13) * size


@pytest.mark.parametrize("name", ["elu", "selu"])
@pytest.mark.usefixtures("float64")
def test_a_kink_at_0_costs_no_digits(name):
    """Jumps of every order that matters are split off: that of the third derivative alone would leave 4e-9."""
    function, moments = CASES[name]
    dual, v = Series.of(function), 1.5
    for rho in (1.0, 0.99, -1.0):
        with mp.workdps(30):
            exact = [float(x) for x in moments(mpf(v), mpf(v), mpf(rho) * mpf(v))]
        pair = Pair(*map(jnp.asarray, (rho * v, v, v)))
        assert float(dual.kernel(pair)) == pytest.approx(exact[0], rel=2e-13)
        assert float(dual.derivative_kernel(pair)) == pytest.approx(exact[1], rel=2e-13)


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "softplus", "silu"])
@pytest.mark.usefixtures("float64")
def test_small_gaps_keep_their_digits(name):
    """``s' - K`` and ``s' + K`` at angles where the difference of the two would lose half of the digits."""
    dual, moments = Series.of(CASES[name][0]), getattr(oracle, name)(26)
    for v1, v2, edge in ((1.5, 1.5, 1e-9), (0.5, 0.5, 1e-5), (1.5, 1.25, 1e-9)):
        with mp.workdps(40):
            s, m = mp.sqrt(mpf(v1) * mpf(v2)), mpf(edge)
            k, h1, h2 = s - m, *(moments(mpf(v), mpf(v), mpf(v))[0] for v in (v1, v2))
            below = mp.sqrt(h1 * h2) - moments(mpf(v1), mpf(v2), k)[0]
            above = mp.sqrt(h1 * h2) + moments(mpf(v1), mpf(v2), -k)[0]
        near = Pair(*map(jnp.asarray, (float(k), v1, v2, edge, float(2 * s - m))))
        far = Pair(*map(jnp.asarray, (-float(k), v1, v2, float(2 * s - m), edge)))
        tolerance = 1e-12 if v1 == v2 else 1e-10  # then a difference of coefficients is part of it
        assert float(dual.gap(near)[0]) == pytest.approx(float(below), rel=tolerance)
        assert float(dual.gap(far)[1]) == pytest.approx(float(above), rel=tolerance)
        assert float(dual.kernel(near)) == pytest.approx(float(mp.sqrt(h1 * h2) - below), rel=4e-15)


def test_chaotic_tanh_in_float32():
    """Each layer doubles a small angle, and so the rounding of k."""
    x = np.random.default_rng(3).normal(size=(2, 3)).astype(np.float32)
    x[1] = x[0] + np.float32(1e-2) * x[1]
    net = nn.Sequential(*[m for _ in range(8) for m in (nn.Dense(8, 2.5), nn.Tanh())], nn.Dense(1, 2.5))
    got = wl.gram(wl.kernels(net), jnp.asarray(x[:1]), jnp.asarray(x[1:]))
    numbers = [[float(a) for a in row] for row in x]
    exact = oracle.fully_connected(oracle.tanh(24), *numbers, depth=8, W_std=2.5)
    assert float(got.nngp[0, 0]) == pytest.approx(float(exact.nngp), rel=1e-5)
    assert float(got.ntk[0, 0]) == pytest.approx(float(exact.ntk), rel=1e-5)
