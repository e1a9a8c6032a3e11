"""Kernels between outputs: against finite networks, and against each other."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl
from widelimit import nn

X = np.random.default_rng(2).normal(size=(3, 4))


def _correlated(p, x):
    """Three outputs: two readouts of one hidden layer, the third the sum of them."""
    h = jnp.tanh(p["W"] @ x)
    out = p["v"] @ h / h.size**0.5
    return jnp.concatenate([out, out.sum(keepdims=True)])


def _prior(n):
    return {"W": wl.normal((n, 4), 0.6), "v": wl.normal((2, n), 1.1)}


def test_outputs_that_share_weights():
    one = wl.gram(wl.limit(_correlated, _prior, output="diag").kernels, X)
    full = wl.gram(wl.limit(_correlated, _prior, output="full").kernels, X)
    mixing = np.array([[1.0, 0, 1], [0, 1, 1], [1, 1, 2]])
    for d, f in zip(one, full, strict=True):
        np.testing.assert_allclose(f, d[..., :1, None] * mixing, rtol=1e-12)
        np.testing.assert_allclose(d, np.diagonal(f, axis1=2, axis2=3))
    mean, total = (wl.gram(wl.limit(_correlated, _prior, output=o).ntk, X) for o in ("mean", "sum"))
    np.testing.assert_allclose(total, 3 * mean, rtol=1e-12)
    np.testing.assert_allclose(total, np.trace(full.ntk, axis1=2, axis2=3), rtol=1e-12)


def test_full_agrees_with_the_empirical_kernel():
    params = wl.limit(_correlated, _prior).draw(4096, jax.random.key(0))
    finite = wl.gram(wl.empirical_ntk(_correlated, params, output="full"), np.float32(X))
    exact = wl.gram(wl.limit(_correlated, _prior, output="full").ntk, X)
    assert finite.shape == exact.shape == (3, 3, 3, 3)
    assert np.abs(finite - exact).max() < 0.1 * exact.max()


def test_outputs_of_modules_are_independent_and_of_one_law():
    net = nn.Sequential(nn.Dense(64), nn.Relu(), nn.Dense(5, b_std=0.3))
    full, mean = wl.gram(wl.ntk(net, output="full"), X), wl.gram(wl.ntk(net), X)
    np.testing.assert_allclose(full, mean[..., None, None] * np.eye(5), rtol=1e-12)


def test_different_channels_share_their_means():
    net = nn.Sequential(nn.Dense(3), nn.Relu())
    full = wl.nngp(net, output="full")(X[0], X[1])
    norms = np.linalg.norm(X[:2], axis=1) / 2  # W_std / sqrt(fan_in) |x|
    np.testing.assert_allclose(full[0, 1], norms.prod() / (2 * np.pi), rtol=1e-12)
    np.testing.assert_allclose(full[0, 0], wl.nngp(net)(X[0], X[1]), rtol=1e-12)


@pytest.mark.parametrize(
    ("kernel", "tile"), [pytest.param("limit", 1, marks=pytest.mark.slow), ("limit", 3), ("empirical", 2)]
)
def test_transposed_tiles(kernel, tile):
    """``k(x', x) = k(x, x')^T`` also where a tile below the diagonal is copied from above."""

    def f(p, x):  # outputs that differ in law, so that (O, O) is not symmetric for x != x'
        return jnp.stack([jnp.tanh(p["W"] @ x) @ p["v"], jnp.sin(p["W"] @ x) @ p["v"]]) / p["v"].size ** 0.5

    def prior(n):
        return {"W": wl.normal((n, 4), 0.6), "v": wl.normal((n,))}

    k = wl.limit(f, prior, output="full").ntk
    if kernel == "empirical":
        k = wl.empirical_ntk(f, wl.limit(f, prior).draw(16, jax.random.key(1)), output="full")
    whole = wl.gram(k, X, X, batch_size=3)
    assert np.abs(whole - np.swapaxes(whole, 2, 3)).max() > 1e-3
    np.testing.assert_allclose(wl.gram(k, X, batch_size=tile), whole, rtol=2e-5, atol=1e-7)


def test_bad_output():
    net = nn.Sequential(nn.Dense(8), nn.Relu(), nn.Dense(1))
    with pytest.raises(ValueError, match="output must be one of"):
        wl.ntk(net, output="all")
    with pytest.raises(ValueError, match="4096"):
        wl.gram(wl.limit(lambda p, x: p["W"] @ x, lambda n: {"W": wl.normal((n, 4))}, output="full").ntk, X)


def test_a_vector_over_positions_is_a_weighted_sum():
    w = np.array([0.2, -0.5, 1.0])

    def by_dot(p, x):  # (positions, width)
        return (w @ jnp.tanh(x[:, None] * p["b"] + p["c"])) @ p["v"] / p["v"].size ** 0.5

    def by_sum(p, x):
        return (w[:, None] * jnp.tanh(x[:, None] * p["b"] + p["c"])).sum(0) @ p["v"] / p["v"].size ** 0.5

    def prior(n):
        return {"b": wl.normal((n,)), "c": wl.normal((n,)), "v": wl.normal((n,))}

    dot, total = (wl.limit(f, prior).kernels(X[0, :3], X[1, :3]) for f in (by_dot, by_sum))
    np.testing.assert_allclose(dot, total, rtol=1e-12)
