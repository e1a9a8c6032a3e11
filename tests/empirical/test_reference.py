"""Empirical kernels and expansions of a small MLP against the reference."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import erf

import widelimit as wl


def mlp(params, x):
    h = x
    for i, phi in enumerate((erf, lambda z: jnp.maximum(z, 0), lambda z: z)):
        W, b = params[2 * i], params[2 * i + 1]
        h = phi(1.5 / W.shape[0] ** 0.5 * h @ W + 0.1 * b[0])
    return h


@pytest.fixture
def reference(shared, float64):
    z = np.load(shared / "reference" / "empirical.npz")
    return z, [jnp.asarray(z[f"mlp/param{i}"]) for i in range(6)]


@pytest.mark.parametrize(("output", "name"), [("mean", "trace"), ("full", "full"), ("diag", "diag_out")])
def test_kernels(reference, output, name):
    z, params = reference
    k = wl.empirical_ntk(mlp, params, output=output)
    for x2, suffix in ((None, "11"), (z["mlp/x2"], "12")):
        K = wl.gram(k, z["mlp/x1"], x2)
        np.testing.assert_allclose(K, z[f"mlp/ntk_{name}_{suffix}"], rtol=1e-10, atol=1e-12)


def test_sum_scalar_and_learning_rates(reference):
    z, params = reference
    x, y = jnp.asarray(z["mlp/x1"][0]), jnp.asarray(z["mlp/x2"][1])
    full = wl.empirical_ntk(mlp, params, output="full")(x, y)
    np.testing.assert_allclose(wl.empirical_ntk(mlp, params, output="sum")(x, y), jnp.trace(full), rtol=1e-12)
    first = wl.empirical_ntk(mlp, params, output=lambda f: f[0] - 2 * f[2])(x, y)
    c = np.array([1.0, 0.0, -2.0])
    np.testing.assert_allclose(first, c @ full @ c, rtol=1e-12)
    twice = wl.empirical_ntk(mlp, params, output="full", lr=2.0)(x, y)
    np.testing.assert_allclose(twice, 2 * full, rtol=1e-12)
    with pytest.raises(ValueError, match="output must be"):
        wl.empirical_ntk(mlp, params, output="trace")


def test_expansions(reference):
    z, params = reference
    moved = [p + jnp.asarray(z[f"mlp/dparam{i}"]) for i, p in enumerate(params)]
    x = jnp.asarray(z["mlp/x1"])
    np.testing.assert_allclose(wl.linearize(mlp, params)(moved, x), z["mlp/linearize_x1"], rtol=1e-10, atol=1e-12)
    for order in (2, 3):
        out = wl.taylor(mlp, params, order=order)(moved, x)
        np.testing.assert_allclose(out, z[f"mlp/taylor{order}_x1"], rtol=1e-10, atol=1e-12)
