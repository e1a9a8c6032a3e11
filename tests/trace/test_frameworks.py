"""Models of other frameworks as they are: convolutions, pools and norms of Equinox, Flax NNX and Flax Linen."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl

IMAGES = np.random.default_rng(0).normal(size=(2, 6, 6, 3))
VECTORS = np.random.default_rng(1).normal(size=(3, 5))


def _agrees(limit, x, widths=(16, 128)):
    check = limit.check(x, key=jax.random.key(0), widths=widths, seeds=24)
    assert max(check.rows[-1].nngp_z, check.rows[-1].ntk_z) < 4
    assert check.rows[-1].ntk_error < 0.6 * check.rows[0].ntk_error


def test_equinox_convolutions():
    """Biases of inner layers are left out: they vanish as 1/n, but at width 128 are a fifth of so small a kernel."""
    eqx = pytest.importorskip("equinox")

    def build(n, key):
        one, two, three = jax.random.split(key, 3)
        return eqx.nn.Sequential(
            [
                eqx.nn.Conv2d(3, n, 3, padding=1, key=one), eqx.nn.Lambda(jax.nn.relu), eqx.nn.AvgPool2d(2, 2),
                eqx.nn.Conv2d(n, n, 2, use_bias=False, key=two), eqx.nn.Lambda(jax.nn.gelu), eqx.nn.Lambda(jnp.ravel),
                eqx.nn.Linear(4 * n, 1, use_bias=False, key=three),
            ]
        )  # fmt: skip

    _agrees(wl.limit(build), np.transpose(IMAGES, (0, 3, 1, 2)))


def test_flax_nnx():
    nnx = pytest.importorskip("flax.nnx")

    class Model(nnx.Module):
        def __init__(self, n, rngs):
            self.first, self.second = nnx.Linear(5, n, rngs=rngs), nnx.Linear(n, n, rngs=rngs)
            self.norm, self.last = nnx.LayerNorm(n, rngs=rngs), nnx.Linear(n, 1, rngs=rngs)

        def __call__(self, x):
            return self.last(nnx.gelu(self.norm(self.second(nnx.relu(self.first(x))))))

    limit = wl.limit(lambda n, key: Model(n, nnx.Rngs(key)))
    _agrees(limit, VECTORS, (64, 512))
    assert "quasi-Monte Carlo" not in limit.explain(VECTORS[0])  # gains of ones are constants


def test_flax_linen():
    linen = pytest.importorskip("flax.linen")

    class Model(linen.Module):
        n: int

        @linen.compact
        def __call__(self, x):
            h = linen.relu(linen.Conv(self.n, (3, 3))(x))
            h = linen.avg_pool(linen.relu(linen.Conv(self.n, (3, 3), strides=(2, 2))(h)), (2, 2), strides=(2, 2))
            return linen.Dense(1)(h.reshape(-1))

    def build(n, key):
        model = Model(n)
        return jax.tree_util.Partial(model.apply, model.init(key, jnp.zeros(IMAGES.shape[1:])))

    limit = wl.limit(build)
    _agrees(limit, IMAGES)
    as_it_is = wl.limit(lambda n, key: Model(n))
    np.testing.assert_allclose(np.array(as_it_is.kernels(*IMAGES)), np.array(limit.kernels(*IMAGES)), rtol=1e-12)
    assert as_it_is.finite(8, jax.random.key(0), IMAGES[0])(IMAGES[0]).shape == (1,)
    assert as_it_is.check(IMAGES, key=jax.random.key(0), widths=(8,), seeds=2).rows[0].width == 8
    with pytest.raises(ValueError, match="shapes depend on the input"):
        as_it_is.finite(8, jax.random.key(0))


def test_parameters_that_start_at_a_constant_are_told():
    """They are not trained unless a learning rate is given, and then count."""
    eqx = pytest.importorskip("equinox")

    def build(n, key):
        one, two = jax.random.split(key)
        layers = [
            eqx.nn.Linear(5, n, key=one),
            eqx.nn.LayerNorm(n),
            eqx.nn.Lambda(jnp.tanh),
            eqx.nn.Linear(n, 1, key=two),
        ]
        return eqx.nn.Sequential(layers)

    told = wl.limit(build).explain(VECTORS[0])
    assert 'layers[1].weight: starts at 1, and is not trained under lr="ntk"' in told
