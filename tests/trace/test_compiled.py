"""A kernel under `jit` is that of the same pair evaluated operation by operation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl
from widelimit import nn

LAYERS = {
    "step": nn.RectifiedMonomial(0),
    "rectified square": nn.RectifiedMonomial(2),
    "sign": nn.Sign(),
    "ab relu": nn.ABRelu(-0.5, 2.0),
    "where": nn.Elementwise(lambda z: jnp.where(z > 0.5, z - 0.5, 0.0)),
    "relu6": nn.Elementwise(jax.nn.relu6),
    "scaled": nn.Elementwise(lambda z: np.float64(0.75) * jnp.maximum(z, np.zeros(()))),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.usefixtures("float64")
def test_constants_of_a_function_stay_known(name):
    """A constant that came to be traced would hide which function it is part of, and with it the closed form."""
    k = wl.kernels(nn.Sequential(nn.Dense(8, 1.1, 0.1), LAYERS[name], nn.Dense(1, 1.1, 0.1)))
    x, y = np.random.default_rng(5).normal(size=(2, 3))
    for pair in ((x, y), (x, x), (x, -x)):
        arrays = [jnp.asarray(a) for a in pair]
        np.testing.assert_allclose(jax.jit(k)(*arrays), k(*arrays), rtol=1e-13, atol=1e-15)
