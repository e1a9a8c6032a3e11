"""PyTorch, Flax and Equinox models in the laziness report, beside the same network in plain JAX."""

from __future__ import annotations

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl
from widelimit.diagnostics import built

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(8, 3)), RNG.normal(size=8)


def plain(params, x):
    return jnp.tanh(x @ params["W"] + params["b"]) @ params["V"] + params["c"]


def run(model, **more):
    return wl.laziness(model, X, Y, steps=20, learning_rate=0.01, hessian=False, **more)


def same(one, two):
    for name in ("loss", "drift", "gap", "movement", "alignment", "sharpness"):
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), rtol=1e-5, atol=1e-13, err_msg=name)


def test_pytorch_its_checkpoints_and_its_builder():
    torch = pytest.importorskip("torch", reason="the torch extra is not installed")
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)).double()
    W, b, V, c = (p.detach().numpy() for p in net.parameters())
    found = run(net)
    same(found, run(plain, params={"W": W.T, "b": b, "V": V[0], "c": c[0]}))
    assert list(found.drift_by_parameter) == ["0.bias", "0.weight", "2.bias", "2.weight"]
    assert list(found.features) == ["0.weight", "2.weight"]
    later = copy.deepcopy(net.state_dict())
    later["2.weight"] *= 1.1
    read = wl.laziness(net, X, Y, checkpoints=[later], hessian=False)
    assert read.movement_by_parameter["2.weight"][-1] == pytest.approx(0.1 * np.linalg.norm(V))
    with pytest.raises(ValueError, match=r"lacks '2\.weight'"):
        wl.laziness(net, X, Y, checkpoints=[{k: v for k, v in later.items() if k != "2.weight"}])
    with pytest.raises(ValueError, match="shape"):
        wl.laziness(net, X, Y, checkpoints=[{**later, "2.weight": torch.zeros(1, 5)}])
    with pytest.raises(ValueError, match="dropout"):
        wl.laziness(torch.nn.Sequential(torch.nn.Linear(3, 1), torch.nn.Dropout(0.5)), X, Y)

    def build(width):
        return torch.nn.Sequential(torch.nn.Linear(3, width), torch.nn.Tanh(), torch.nn.Linear(width, 1))

    def first(key):
        return next(built(build, 5, jax.random.key(key)).parameters()).detach().numpy()

    assert np.array_equal(first(0), first(0)) and not np.array_equal(first(0), first(1)), "seeded from the key"


def test_flax_nnx_and_linen():
    pytest.importorskip("flax", reason="the flax extra is not installed")
    import flax.linen as linen
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self):
            self.first, self.last = nnx.Linear(3, 4, rngs=nnx.Rngs(0)), nnx.Linear(4, 1, rngs=nnx.Rngs(1))

        def __call__(self, x):
            return self.last(jnp.tanh(self.first(x)))

    net = Net()
    W, b, V, c = (np.asarray(a[...]) for a in (net.first.kernel, net.first.bias, net.last.kernel, net.last.bias))
    same(run(net), run(plain, params={"W": W, "b": b, "V": V[:, 0], "c": c[0]}))

    class Other(linen.Module):
        @linen.compact
        def __call__(self, x):
            return linen.Dense(1)(jnp.tanh(linen.Dense(4)(x)))

    variables = Other().init(jax.random.key(0), X[0])
    same(run(Other(), key=jax.random.key(0)), run(Other(), params=variables))


def test_equinox():
    eqx = pytest.importorskip("equinox", reason="equinox is not installed")
    net = eqx.nn.MLP(3, 1, 4, 1, activation=jnp.tanh, key=jax.random.key(0))
    first, last = net.layers
    params = {"W": first.weight.T, "b": first.bias, "V": last.weight[0], "c": last.bias[0]}
    found = run(net)
    same(found, run(plain, params=params))
    assert list(found.features) == ["layers.0.weight", "layers.1.weight"]
