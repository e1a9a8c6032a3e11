"""The error that a series reports bounds its true error, measured against multiple precision.

elu and selu have closed forms, but their series is that of any function that bends and has a kink at 0.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from mpmath import mp, mpf

import oracle
from widelimit.duals import Pair, Series

CASES = {
    "tanh": (jnp.tanh, oracle.tanh(18)),
    "sigmoid": (jax.nn.sigmoid, oracle.sigmoid(18)),
    "softplus": (jax.nn.softplus, oracle.softplus(18)),
    "silu": (jax.nn.silu, oracle.silu(18)),
    "elu": (jax.nn.elu, oracle.elu(1.0, 18)),
    "selu": (jax.nn.selu, oracle.selu(18)),
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
