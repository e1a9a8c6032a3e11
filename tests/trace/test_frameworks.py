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


@pytest.mark.slow
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


EPSILON = 0.1
BATCHES = np.random.default_rng(3).normal(size=(2, 8, 10))


def _nnx(width_in, training):
    nnx = pytest.importorskip("flax.nnx")

    class Model(nnx.Module):
        def __init__(self, n, rngs):
            self.first = nnx.Linear(width_in, n, use_bias=False, rngs=rngs)
            self.norm = nnx.BatchNorm(n, use_running_average=not training, epsilon=EPSILON, rngs=rngs)
            self.last = nnx.Linear(n, 1, use_bias=False, rngs=rngs)

        def __call__(self, x):
            return self.last(nnx.relu(self.norm(self.first(x))))

    return lambda n, key: Model(n, nnx.Rngs(key))


def _linen(width_in, training):
    linen = pytest.importorskip("flax.linen")

    class Model(linen.Module):
        n: int

        @linen.compact
        def __call__(self, x):
            norm = linen.BatchNorm(use_running_average=not training, epsilon=EPSILON)
            return linen.Dense(1, use_bias=False)(linen.relu(norm(linen.Dense(self.n, use_bias=False)(x))))

    def build(n, key):
        model = Model(n)
        variables = model.init(key, jnp.zeros((4, width_in)))
        return jax.tree_util.Partial(lambda v, x: model.apply(v, x, mutable=["batch_stats"])[0], variables)

    return build if training else lambda n, key: Model(n)


def _equinox(width_in, training):
    eqx = pytest.importorskip("equinox")

    class Model(eqx.Module):
        first: eqx.nn.Linear
        norm: eqx.nn.BatchNorm
        last: eqx.nn.Linear

        def __init__(self, n, key):
            one, two = jax.random.split(key)
            self.first = eqx.nn.Linear(width_in, n, use_bias=False, key=one)
            self.norm = eqx.nn.BatchNorm(n, "batch", eps=EPSILON, mode="batch", inference=not training)
            self.last = eqx.nn.Linear(n, 1, use_bias=False, key=two)

        def __call__(self, x, state):
            h, state = self.norm(self.first(x), state)
            return self.last(jax.nn.relu(h)), state

    def on_batch(model, x):
        parts, state = model
        return jax.vmap(parts, (0, None), (0, None), axis_name="batch")(x, state)[0]

    def on_example(model, x):
        return model[0](x, model[1])[0]

    def build(n, key):
        return jax.tree_util.Partial(on_batch if training else on_example, eqx.nn.make_with_state(Model)(n, key))

    return build


_FRAMEWORKS = {"nnx": (_nnx, 1.0), "linen": (_linen, 1.0), "equinox": (_equinox, 1 / 3)}  # variance times the fan-in


@pytest.mark.parametrize("name", _FRAMEWORKS)
def test_batch_normalisation_in_inference_scales(name):
    make, variance = _FRAMEWORKS[name]
    limit = wl.limit(make(5, False))

    def f(p, x):
        return jax.nn.relu(x @ p["W"]) @ p["v"] * variance / np.sqrt(1 + EPSILON)

    def prior(n):
        return {"W": wl.normal((5, n), 5**-0.5), "v": wl.normal((n,), n**-0.5)}

    wanted = wl.limit(f, prior, lr="ntk").kernels(*VECTORS[:2])
    np.testing.assert_allclose(np.array(limit.kernels(*VECTORS[:2])), np.array(wanted), rtol=1e-6)
    assert "quasi-Monte Carlo" not in limit.explain(VECTORS[0])


@pytest.mark.parametrize("name", ["linen", *(pytest.param(n, marks=pytest.mark.slow) for n in ("nnx", "equinox"))])
def test_batch_normalisation_of_a_batch(name):
    make, variance = _FRAMEWORKS[name]
    K = wl.limit(make(10, True), output="full", points=2**16).nngp(*BATCHES).reshape(8, 8)
    both = np.concatenate([*BATCHES])
    u = np.random.default_rng(1).multivariate_normal(np.zeros(16), variance * both @ both.T / 10, size=100_000).T
    first, second = (
        np.maximum((h - h.mean(0)) / np.sqrt(h.var(0) + EPSILON), 0) * variance**0.5 for h in (u[:8], u[8:])
    )
    sampled = first @ second.T / first.shape[1]
    error = np.sqrt((first**2) @ (second**2).T / first.shape[1] - sampled**2) / first.shape[1] ** 0.5
    assert np.all(np.abs(K - sampled) < 5 * np.hypot(error, 2e-3 * sampled.max()))


def test_batch_normalisation_of_one_example_is_refused():
    """Flax NNX would give 0, Linen cannot change its averages, Equinox looks for a batch."""
    linen = pytest.importorskip("flax.linen")

    class Model(linen.Module):
        n: int

        @linen.compact
        def __call__(self, x):
            return linen.Dense(1)(linen.BatchNorm(use_running_average=False)(linen.Dense(self.n)(x)))

    batched = _equinox(5, True)

    def equinox(n, key):
        return jax.tree_util.Partial(lambda m, x: m[0](x, m[1])[0], batched(n, key).args[0])

    for build in (_nnx(5, True), lambda n, key: Model(n), equinox):
        with pytest.raises(ValueError, match=r"Remedy: BatchNorm in inference mode.*output='full'"):
            wl.limit(build).nngp(*VECTORS[:2])


def test_running_averages_do_not_train():
    """Under a number for lr too."""
    for make in (_nnx, _linen):
        told = wl.limit(make(5, False), lr=1e-3).explain(VECTORS[0])
        lines = [line for line in told.splitlines() if "(n)" in line]
        averages = [line for line in lines if "mean" in line or "var" in line]
        assert len(averages) == 2 and all(line.endswith("lr 0") for line in averages)
        assert sum(line.endswith("lr 0.001") for line in lines) == 2  # gain and bias
