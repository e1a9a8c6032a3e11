"""Products of float32 matrices are rounded to float32, also where an accelerator's default is coarser."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl
from widelimit import nn


def _products(jaxpr):
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in ("dot_general", "conv_general_dilated"):
            yield eqn
        for value in eqn.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from _products(inner)


NETWORKS = {
    "dense": (nn.mlp(2), (6,)),
    "tanh": (nn.Sequential(nn.Dense(16), nn.Tanh(), nn.Dense(1)), (6,)),
    "cnn": (nn.Sequential(nn.Conv(16, (3, 3)), nn.Relu(), nn.GlobalAvgPool(), nn.Dense(1)), (5, 5, 2)),
    "attention": (nn.transformer(1), (3, 4)),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("kernel", ["analytic", "empirical"])
def test_products_are_of_full_precision(name, kernel):
    net, shape = NETWORKS[name]
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    k = wl.kernels(net) if kernel == "analytic" else wl.empirical_ntk(net.apply, net.init(jax.random.key(0), shape))
    found = list(_products(jax.make_jaxpr(lambda a, b: k(a, b))(x, x + 1).jaxpr))
    assert found
    for eqn in found:
        precision = eqn.params["precision"]
        pair = precision if isinstance(precision, tuple) else (precision,) * 2
        # XLA computes with the higher of the two; JAX's patches of a convolution state it of the data only
        assert any(p == jax.lax.Precision.HIGHEST for p in pair), eqn
