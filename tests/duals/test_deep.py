"""Thirty layers in single precision: what one layer loses, the thirtieth must not have multiplied."""

import jax.numpy as jnp
import numpy as np
import pytest

import oracle
import widelimit as wl
from widelimit import nn

DEPTH = 30
ANGLES = [0.0, 1e-3, 1.0, np.pi - 1e-3]
NETWORKS = {
    "relu": (nn.Relu(), oracle.relu(), float(np.float32(2**0.5))),
    "erf": (nn.Erf(), oracle.erf(), 1.5),
    "tanh": (nn.Tanh(), oracle.tanh(24), 1.5),
    "selu": (nn.Selu(), oracle.selu(), 1.0),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_thirty_layers_in_float32(name):
    layer, moments, W_std = NETWORKS[name]
    hidden = [m for _ in range(DEPTH) for m in (nn.Dense(8, W_std=W_std, b_std=0.125), layer)]
    network = nn.Sequential(*hidden, nn.Dense(1, W_std=W_std, b_std=0.125))
    x, y = np.array([1.5, -0.25, 0.75]), np.array([0.25, 1.5, 0.0])
    y *= np.linalg.norm(x) / np.linalg.norm(y)
    X = np.stack([np.cos(a) * x + np.sin(a) * y for a in ANGLES]).astype(np.float32)
    row = wl.gram(wl.kernels(network), jnp.asarray(X[:1]), jnp.asarray(X))
    numbers = [[float(entry) for entry in each] for each in X]
    exact = [
        oracle.fully_connected(moments, numbers[0], each, depth=DEPTH, W_std=W_std, b_std=0.125) for each in numbers
    ]
    np.testing.assert_allclose(np.asarray(row.nngp)[0], [float(each.nngp) for each in exact], rtol=1e-5)
    np.testing.assert_allclose(np.asarray(row.ntk)[0], [float(each.ntk) for each in exact], rtol=1e-5)
