"""Derivatives of whole kernels in the input, W_std and b_std where the closed forms have a 0/0.

The kernel of a ReLU network has a corner at equal and at opposite inputs; what is asked for there is the mean of the
two one-sided derivatives, which is also what the oracle's symmetric difference tends to.
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

CASES = {
    "relu": (nn.Relu(), oracle.relu()),
    "erf": (nn.Erf(), oracle.erf()),
    "gelu": (nn.Gelu(), oracle.gelu()),
    "step": (nn.Step(), oracle.step()),
}
DEPTH, W_STD = 2, 1.5
X, V = np.random.default_rng(0).normal(size=(2, 3))
PLACES = {"x = x'": (X, X), "x = -x'": (X, -X), "x = 0": (0 * X, X), "x = x' = 0": (0 * X, 0 * X)}


def _exact(moments, p, q, b):
    def pair(t=0, w=W_STD, c=b):
        moved = [mpf(float(a)) + mpf(t) * mpf(float(s)) for a, s in zip(p, V, strict=True)]
        return oracle.fully_connected(moments, moved, [float(a) for a in q], depth=DEPTH, W_std=mpf(w), b_std=mpf(c))

    with mp.workdps(160):
        return [
            [
                oracle.derivative(lambda t, i=i: pair(t=t)[i]),
                oracle.derivative(lambda w, i=i: pair(w=w)[i], W_STD),
                oracle.derivative(lambda c, i=i: pair(c=c)[i], b) if b else mpf(0),
                pair()[i],
            ]
            for i in range(2)
        ]


CORNERED = {"relu", "step"}


@pytest.mark.parametrize(
    ("name", "b_std"), [("relu", 0.125), ("relu", 0.0), ("erf", 0.125), ("gelu", 0.125), ("step", 0.125)]
)
@pytest.mark.usefixtures("float64")
def test_derivatives_of_both_kernels(name, b_std):
    layer, moments = CASES[name]

    def kernels(at, p, q):
        t, w, c = at
        c = c if b_std else None
        hidden = [m for _ in range(DEPTH) for m in (nn.Dense(8, w, c), layer)]
        return jnp.stack(wl.kernels(nn.Sequential(*hidden, nn.Dense(1, w, c)))(p + t * V, q))

    at = jnp.asarray([0.0, W_STD, b_std])
    slopes = jax.jit(jax.jacfwd(kernels))
    for place, (p, q) in PLACES.items():
        got = np.asarray(slopes(at, jnp.asarray(p), jnp.asarray(q)))
        assert np.isfinite(got).all(), place
        if name == "step" and place == "x = x'":
            continue  # the slope of a square root
        skipped = 1 if name in CORNERED and not b_std and place == "x = 0" else 0  # |t| f(direction): no slope at 0
        for row, exact in zip(got, _exact(moments, p, q, b_std), strict=True):
            size = max(abs(exact[3]), mpf(1))
            for value, truth in list(zip(row, exact[:3], strict=True))[skipped:]:
                assert abs(mpf(float(value)) - truth) <= 1e-12 * max(abs(truth), size), (place, got, exact)


@pytest.mark.usefixtures("float64")
def test_reverse_mode_is_forward_mode():
    ntk = wl.ntk(nn.Sequential(nn.Dense(8, 1.5, 0.125), nn.Relu(), nn.Dense(1)))
    both = jax.jit(lambda p, q: (jax.jacfwd(ntk)(p, q), jax.grad(ntk)(p, q)))
    for p, q in PLACES.values():
        np.testing.assert_allclose(*both(jnp.asarray(p), jnp.asarray(q)), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["tanh", "silu"])
@pytest.mark.usefixtures("float64")
def test_gradient_of_a_series_at_zero_without_bias(name):
    """The correlation with 0 is not defined, but the kernels are differentiable there."""
    layer, moments = {"tanh": (nn.Tanh(), oracle.tanh(26)), "silu": (nn.Silu(), oracle.silu(26))}[name]
    kernels = wl.kernels(nn.Sequential(nn.Dense(8, W_STD), layer, nn.Dense(8, W_STD), layer, nn.Dense(1, W_STD)))
    got = jax.jit(jax.jacfwd(lambda t: jnp.stack(kernels(t * V, jnp.asarray(X)))))(0.0)

    def exact(t):
        moved = [t * mpf(float(v)) for v in V]
        return oracle.fully_connected(moments, moved, [float(a) for a in X], depth=2, W_std=W_STD)

    for i in range(2):
        truth = oracle.derivative(lambda t, i=i: exact(t)[i], digits=12)
        assert float(got[i]) == pytest.approx(float(truth), rel=1e-10)
