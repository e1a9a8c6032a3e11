"""The gap ``s -+ K`` is carried wherever a rule gives it: what it is for is single precision at small angles."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl
from widelimit import nn

X = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
X[1], X[2], X[3] = X[0] * np.float32(1 + 1e-4), -X[0], X[0]


@pytest.mark.parametrize(
    "activation",
    [pytest.param(nn.ABRelu(-0.3, 1.2), marks=pytest.mark.slow), nn.Sum(nn.Relu(), nn.Abs()), nn.LeakyRelu(0.1)],
)
def test_single_precision_where_terms_depend_on_each_other(activation):
    """A sum of functions of one preactivation is one function of it."""
    net = nn.Sequential(*(m for _ in range(8) for m in (nn.Dense(8, 1.5, 0.1), activation)), nn.Dense(1))
    single, double = wl.gram(wl.kernels(net), jnp.asarray(X)), wl.gram(wl.kernels(net), X)
    for a, b in zip(single, double, strict=True):
        np.testing.assert_allclose(a, b, rtol=5e-6)


def test_a_function_of_a_shifted_preactivation_keeps_its_closed_form():
    """``sin(z + pi/4)`` is a function of z, not of a Gaussian with a mean: RBF networks stay exact when deep."""
    hidden = [m for _ in range(10) for m in (nn.Dense(8), nn.Rbf(0.5))]
    k = wl.kernels(nn.Sequential(*hidden, nn.Dense(1)))
    x = jnp.asarray(np.random.default_rng(0).standard_normal(5), jnp.float32)
    x = x / jnp.linalg.norm(x) * 5**0.5
    both = k(x, x + 0)
    assert float(both.nngp) == pytest.approx(1, rel=1e-6)
    assert float(both.ntk) == pytest.approx(11, rel=2e-6)  # each layer adds its NNGP, and E[phi' phi'] = 1
