"""What every Gram matrix must satisfy, whatever the network."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import widelimit as wl
from widelimit import nn
from widelimit._precision import enable_x64

D = 5
NETWORKS = {
    "relu": nn.Sequential(nn.Dense(8, 1.5, 0.1), nn.Relu(), nn.Dense(8, 1.5, 0.1), nn.Relu(), nn.Dense(1)),
    "erf residual": nn.Sequential(nn.Dense(8), nn.Residual(nn.Erf(), nn.Dense(8, 0.8)), nn.Erf(), nn.Dense(1)),
    "tanh gate": nn.Sequential(
        nn.Dense(8), nn.Product(nn.Sequential(nn.Dense(8), nn.Tanh()), nn.Dense(8)), nn.Dense(1)
    ),
    "layer norm": nn.Sequential(nn.Dense(8), nn.LayerNorm(), nn.Gelu(), nn.Dense(8), nn.LayerNorm(), nn.Dense(1)),
    "dropout": nn.Sequential(nn.Dense(8), nn.Relu(), nn.Dropout(0.5), nn.Dense(8), nn.Sin(), nn.Dense(1)),
}  # fmt: skip
every_network = pytest.mark.parametrize("name", NETWORKS)


def _inputs(n, seed=0):
    """Points of very different size, a repeated one, an antiparallel one and zero."""
    x = np.random.default_rng(seed).normal(size=(n, D)) * np.geomspace(0.1, 10, n)[:, None]
    x[1], x[2], x[3] = x[0], -2 * x[0], 0
    return x


@functools.cache
def _grams(name, n=12):
    return wl.gram(wl.kernels(NETWORKS[name]), _inputs(n))


def _same(a, b, rtol=1e-12):
    for one, other in zip(a, b, strict=True):
        np.testing.assert_allclose(one, other, rtol=rtol, atol=rtol * np.abs(other).max())


@every_network
def test_symmetric_and_positive_semidefinite(name):
    for G in _grams(name):
        np.testing.assert_array_equal(G, G.T)
        assert np.linalg.eigvalsh(G).min() > -1e-13 * np.trace(G)


@every_network
def test_one_argument_or_two(name):
    """The general rectangular Gram is the symmetric one, but for dropout, whose diagonal shares its masks."""
    x = _inputs(12)
    whole = wl.gram(wl.kernels(NETWORKS[name]), x, x[::-1])
    for one, other in zip(whole, _grams(name), strict=True):
        one = one[:, ::-1].copy()
        if name == "dropout":
            assert np.all(np.diag(other)[4:] > 1.2 * np.diag(one)[4:])
            np.fill_diagonal(one, np.diag(other))
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-12 * np.abs(other).max())


@every_network
def test_permutation_of_inputs(name):
    order = np.random.default_rng(5).permutation(12)
    permuted = wl.gram(wl.kernels(NETWORKS[name]), _inputs(12)[order])
    _same(permuted, [G[np.ix_(order, order)] for G in _grams(name)])


@pytest.mark.parametrize("name, how", [("erf", {"memory": 4801}), ("dropout", {"batch_size": 5})], ids=str)
def test_tiles_do_not_matter(name, how):
    net = nn.Sequential(nn.Dense(8), nn.Erf(), nn.Dense(1)) if name == "erf" else NETWORKS[name]
    k, x = wl.kernels(net), _inputs(12)
    whole = wl.gram(k, x)
    _same(wl.gram(k, x, **how), whole)
    _same(wl.gram(k, x[:7], x[7:], **how), [G[:7, 7:] for G in whole])
    _same(wl.gram_diag(k, x, **how), [np.diag(G) for G in whole])


@every_network
def test_diagonal(name):
    _same(wl.gram_diag(wl.kernels(NETWORKS[name]), _inputs(12)), [np.diag(G) for G in _grams(name)])


@every_network
def test_both_at_once_or_one(name):
    net, x = NETWORKS[name], _inputs(12)
    _same((wl.gram(wl.nngp(net), x), wl.gram(wl.ntk(net), x)), _grams(name))


@every_network
def test_single_precision(name):
    """JAX arrays keep their precision; the distance is that of single precision, at every angle and size."""
    x = _inputs(12).astype(np.float32)
    exact = wl.gram(wl.kernels(NETWORKS[name]), x)
    single = wl.gram(wl.kernels(NETWORKS[name]), jnp.asarray(x))
    for a, b in zip(single, exact, strict=True):
        assert isinstance(a, jax.Array) and a.dtype == np.float32
        assert isinstance(b, np.ndarray) and b.dtype == np.float64
        scale = np.sqrt(np.outer(np.diag(b), np.diag(b)))
        assert np.max(np.abs(a - b)[scale > 0] / scale[scale > 0]) < 2e-5


@pytest.mark.parametrize("make", [np.asarray, lambda x: x.tolist(), lambda x: x.astype(np.float32), jnp.asarray])
def test_kind_of_array_in_is_kind_out(make):
    net, x = NETWORKS["relu"], make(_inputs(12))
    is_jax = isinstance(x, jax.Array)
    k = wl.ntk(net)
    for value in (wl.gram(k, x), wl.gram(k, x, x), wl.gram_diag(k, x), k(x[0], x[1])):
        assert isinstance(value, jax.Array if is_jax else np.ndarray | np.generic)
        assert value.dtype == (np.float32 if is_jax else np.float64)


@every_network
def test_under_jit(name, float64):
    k, x = wl.kernels(NETWORKS[name]), jnp.asarray(_inputs(12))
    _same(jax.jit(lambda x: wl.gram(k, x))(x), _grams(name), 1e-10)


def test_under_vmap(float64):
    k, x = wl.kernels(NETWORKS["dropout"]), jnp.asarray(_inputs(12))
    batched = jax.jit(jax.vmap(lambda x: wl.gram(k, x)))(jnp.stack([x, x[::-1]]))
    for i, order in ((0, slice(None)), (1, slice(None, None, -1))):
        _same([G[i][order, order] for G in batched], _grams("dropout"), 1e-10)


@every_network
def test_gradient_is_the_slope(name, float64):
    x, y, step = (jnp.asarray(a) for a in np.random.default_rng(8).normal(size=(3, D)))
    k = wl.kernels(NETWORKS[name])

    @jax.jit
    def value_and_slope(t):
        def both(x):
            return jnp.stack(k(x, y))

        return both(x + t * step), jax.jacrev(both)(x + t * step) @ step

    e = 1e-5
    numerical = (value_and_slope(e)[0] - value_and_slope(-e)[0]) / (2 * e)
    value, slope = value_and_slope(0.0)
    np.testing.assert_allclose(slope, numerical, rtol=1e-6, atol=1e-8 * float(abs(value).max()))


@pytest.mark.parametrize("name", ["relu", "layer norm"])
def test_gradient_of_a_gram_is_finite_everywhere(name, float64):
    """Also at repeated, antiparallel and zero inputs."""
    k, x = wl.kernels(NETWORKS[name]), jnp.asarray(_inputs(6))
    slopes = jax.jit(jax.jacrev(lambda x: jnp.stack(wl.gram(k, x)).sum((1, 2))))(x)
    assert np.isfinite(slopes).all()


_of_any = jax.jit(lambda x: wl.gram(wl.ntk(NETWORKS["relu"]), x))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.floats(-30, 30), min_size=2, max_size=2), min_size=2, max_size=6))
def test_any_inputs(rows):
    with enable_x64():
        G = np.asarray(_of_any(jnp.asarray(np.resize(np.asarray(rows), (6, 2)))))
    assert np.isfinite(G).all()
    size = np.sqrt(np.outer(np.diag(G), np.diag(G)))  # of which an entry between lengths 240-fold apart is a part
    assert np.all(np.abs(G - G.T) <= 1e-13 * size)
    assert np.linalg.eigvalsh(G).min() > -1e-13 * np.trace(G)
    assert np.all(np.sqrt(np.outer(np.diag(G), np.diag(G))) * (1 + 1e-13) - G >= 0)


def test_the_global_flag_changes_nothing():
    x = _inputs(12)
    before = jax.config.jax_enable_x64
    values = {}
    try:
        for flag in (False, True):
            jax.config.update("jax_enable_x64", flag)
            values[flag] = [
                *wl.gram(wl.kernels(NETWORKS["erf residual"]), x),
                np.asarray(wl.gram(wl.ntk(NETWORKS["erf residual"]), jnp.asarray(x, jnp.float32))),
            ]
            assert jax.config.jax_enable_x64 == flag
    finally:
        jax.config.update("jax_enable_x64", before)
    for off, on, dtype, rtol in zip(values[False], values[True], "ddf", (1e-14, 1e-14, 1e-6), strict=True):
        assert off.dtype == on.dtype == np.dtype(dtype)
        np.testing.assert_allclose(off, on, rtol=rtol, atol=rtol * np.abs(off).max())
