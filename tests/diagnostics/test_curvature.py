"""Extreme eigenvalues from products, and features from the program."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from widelimit.diagnostics import effective_rank, extreme_eigenvalues, largest_eigenvalue
from widelimit.empirical import layer_inputs


@pytest.mark.parametrize("size", [1, 5, 80])
def test_extreme_eigenvalues(size):
    A = np.random.default_rng(size).normal(size=(size, size))
    A = A + A.T
    lam = np.linalg.eigvalsh(A)
    np.testing.assert_allclose(extreme_eigenvalues(lambda v: A @ v, size), lam[[0, -1]], rtol=1e-3)
    np.testing.assert_allclose(largest_eigenvalue(lambda v: A @ v, size), lam[-1], rtol=1e-3)


def test_eigenvalues_of_opposite_sign_and_equal_size():
    """The Hessian of a network of two layers has them in pairs; power iteration would not settle."""
    B = np.random.default_rng(0).normal(size=(40, 40))
    A = np.block([[np.zeros((40, 40)), B], [B.T, np.zeros((40, 40))]])
    top = np.linalg.norm(B, 2)
    np.testing.assert_allclose(extreme_eigenvalues(lambda v: A @ v, 80), [-top, top], rtol=1e-3)


def test_a_zero_matrix_and_one_that_has_overflowed():
    assert extreme_eigenvalues(lambda v: 0 * v, 50) == (0, 0)
    assert np.isnan(extreme_eigenvalues(lambda v: v * np.inf, 50)).all()


def test_effective_rank_counts_equal_eigenvalues():
    assert effective_rank(np.eye(7)) == pytest.approx(7)
    assert effective_rank(np.ones((5, 5))) == pytest.approx(1)
    assert effective_rank(np.zeros((5, 5))) == 0


def test_inputs_of_dense_layers_convolutions_and_a_layer_used_twice():
    rng = np.random.default_rng(0)
    params = {
        "F": rng.normal(size=(3, 3, 1, 4)), "W": rng.normal(size=(4, 4)), "v": rng.normal(size=4),
    }  # fmt: skip

    def hidden(params, x):
        h = jax.lax.conv_general_dilated(
            x[None], params["F"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )[0]
        return jnp.tanh(h).mean((0, 1))

    def f(params, x):
        h = hidden(params, x)
        return jnp.tanh(jnp.tanh(h @ params["W"]) @ params["W"]) @ params["v"]

    x = rng.normal(size=(5, 5, 1))
    found = jax.jit(layer_inputs(f, params))(params, x)
    h = hidden(params, x)
    once = jnp.tanh(h @ params["W"])
    np.testing.assert_allclose(found["['W']"], np.concatenate([h, once]), rtol=1e-5)
    np.testing.assert_allclose(found["['v']"].ravel(), jnp.tanh(once @ params["W"]), rtol=1e-5)
    patches = np.stack([x[i : i + 3, j : j + 3, 0].ravel() for i in range(3) for j in range(3)])
    np.testing.assert_allclose(found["['F']"][0], patches, rtol=1e-5)
