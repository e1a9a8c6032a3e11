"""Networks with positions: plain JAX code against finite networks, equal ways of writing one network, refusals."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import widelimit as wl
from widelimit import nn

X = np.random.default_rng(8).normal(size=(2, 5, 4, 3))


def _conv(W, x, dimensions=("NHWC", "HWIO", "NHWC"), **options):
    options = {"window_strides": (1, 1), "padding": "SAME", **options}
    fan_in = math.prod(W.shape) // W.shape[dimensions[1].index("O")]
    return lax.conv_general_dilated(x[None], W, dimension_numbers=dimensions, **options)[0] * (1.5 / np.sqrt(fan_in))


def _dense(W, h):
    return h @ W / np.sqrt(W.shape[0])


def _prior(n):
    return {
        "W": wl.normal((3, 3, 3, n)), "V": wl.normal((3, 2, n, n)), "G": wl.normal((2, 2, n // 2, n)),
        "b": wl.normal((n,), 0.3), "o": wl.normal((n, 1)), "flat": wl.normal((20 * n, 1)), "c": wl.normal((20 * n,)),
    }  # fmt: skip


def _first(p, x):
    return jax.nn.relu(_conv(p["W"], x) + p["b"])


NETWORKS = {
    "strides and dilation": lambda p, x: _dense(
        p["o"], jnp.tanh(_conv(p["V"], _first(p, x), window_strides=(2, 1), rhs_dilation=(1, 2))).mean((0, 1))
    ),
    "one filter twice": lambda p, x: _dense(
        p["o"], _conv(p["V"], jnp.tanh(_conv(p["V"], _first(p, x)) + _first(p, x))).mean((0, 1))
    ),
    "two groups": lambda p, x: _dense(
        p["o"], jnp.tanh(_conv(p["G"], _first(p, x), feature_group_count=2)).mean((0, 1))
    ),
    "flattened, with a bias and a nonlinearity": lambda p, x: _dense(
        p["flat"], jnp.tanh(_conv(p["V"], _first(p, x)).reshape(-1) + 0.5 * p["c"])
    ),
    "pooled by windows, shifted, padded": lambda p, x: _dense(
        p["o"],
        jnp.tanh(
            _conv(p["V"], lax.reduce_window(jnp.pad(_first(p, x)[::-1], ((1, 0), (0, 2), (0, 0))), 0.0, lax.add,
                                            (2, 3, 1), (1, 2, 1), "VALID"))
        ).sum((0, 1)),
    ),
}  # fmt: skip
_SLOW = ("one filter twice", "strides and dilation", "two groups", "pooled by windows, shifted, padded")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in _SLOW else ()) for n in NETWORKS])
def test_agrees_with_finite_networks(name):
    check = wl.limit(NETWORKS[name], _prior).check(X, key=jax.random.key(4), widths=(16, 256), seeds=24)
    assert max(check.rows[-1].nngp_z, check.rows[-1].ntk_z) < 4
    assert check.rows[-1].ntk_error < 0.6 * check.rows[0].ntk_error


def _gram(f):
    return wl.gram(wl.limit(f, _prior).kernels, X)


def test_layouts_of_the_array_do_not_matter():
    """Channels first, and a filter with its axes the other way round, against channels last."""

    def first(p, x):
        W, V = jnp.transpose(p["W"], (3, 2, 0, 1)), jnp.transpose(p["V"], (3, 2, 0, 1))
        layout = ("NCHW", "OIHW", "NCHW")
        h = jax.nn.relu(_conv(W, jnp.transpose(x, (2, 0, 1)), layout) + p["b"][:, None, None])
        return _dense(p["o"], jax.nn.relu(_conv(V, h, layout)).mean((1, 2)))

    def last(p, x):
        return _dense(p["o"], jax.nn.relu(_conv(p["V"], _first(p, x))).mean((0, 1)))

    for a, b in zip(_gram(first), _gram(last), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_a_filter_of_one_position_is_a_dense_layer():
    one = nn.Sequential(
        nn.Conv(4, (3, 3)), nn.Relu(), nn.Conv(4, (1, 1), W_std=1.2, b_std=0.1), nn.Gelu(), nn.Flatten()
    )
    other = nn.Sequential(nn.Conv(4, (3, 3)), nn.Relu(), nn.Dense(4, 1.2, 0.1), nn.Gelu(), nn.Flatten())
    nets = [nn.Sequential(net, nn.Dense(1)) for net in (one, other)]
    for a, b in zip(*(wl.gram(wl.kernels(net), X) for net in nets), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_flattening_is_contracting_over_positions_too():
    def einsum(p, x):
        W = p["flat"].reshape(5, 4, -1, 1)
        return jnp.einsum("hwc,hwco->o", _first(p, x), W) / np.sqrt(p["flat"].shape[0])

    def flat(p, x):
        return _dense(p["flat"], _first(p, x).reshape(-1))

    for a, b in zip(_gram(einsum), _gram(flat), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13)


def test_single_precision():
    """Equal, nearly equal and other images, positions of the first and the last in the window of equal values."""
    net = nn.Sequential(
        *(m for _ in range(5) for m in (nn.Conv(4, (3, 3), W_std=2**0.5, b_std=0.1), nn.Relu())),
        nn.Flatten(),
        nn.Dense(1),
    )
    x = np.concatenate([X, X[:1] * (1 + 1e-4), X[:1] + 1e-4 * X[1:], np.zeros_like(X[:1])]).astype(np.float32)
    single, double = wl.gram(wl.kernels(net), jnp.asarray(x)), wl.gram(wl.kernels(net), x.astype(np.float64))
    for a, b in zip(single, double, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_positions_of_an_output_are_flattened():
    """Outputs at every position, with and without the reshape that puts them in one row."""

    def rows(p, x):
        return _dense(p["o"], _first(p, x))

    for a, b in zip(_gram(rows), _gram(lambda p, x: rows(p, x).reshape(-1)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13)


def test_resized_features_are_those_of_finite_networks():
    """The second moment of 2 * 10^5 resized channels; Neural Tangents' kernel differs by 1.7 % further on."""
    x = np.random.default_rng(1).normal(size=(2, 8, 8, 3))
    body = (nn.Conv(10_000, (3, 3), W_std=1.5), nn.Relu(), nn.ImageResize((3, 5)), nn.GlobalAvgPool())
    net = nn.Sequential(*body)

    @jax.jit
    def moments(key):
        h = jax.vmap(lambda z: net.apply(net.init(key, x[0].shape), z))(jnp.asarray(x, jnp.float32))
        return h @ h.T / h.shape[1]

    draws = np.stack([moments(jax.random.key(i)) for i in range(20)])
    exact = wl.gram(wl.nngp(nn.Sequential(*body, nn.Dense(1))), x)
    assert np.all(np.abs(draws.mean(0) - exact) < 4 * draws.std(0, ddof=1) / 20**0.5)
    assert np.all(draws.std(0) / 20**0.5 < 0.003 * exact)


REFUSED = {
    "depthwise": (
        lambda p, x: _conv(jnp.ones((2, 2, 1, p["b"].size)), _first(p, x), feature_group_count=p["b"].size).mean(
            (0, 1)
        ),
        "filter is not a parameter",
    ),
    "max pooling": (
        lambda p, x: lax.reduce_window(_first(p, x), -jnp.inf, lax.max, (2, 2, 1), (1, 1, 1), "VALID").mean((0, 1)),
        "no deterministic closed-form limit",
    ),
    "an axis beside the merged one": (
        lambda p, x: _first(p, x).reshape(5, -1)[0].reshape(4, -1)[0],
        "merged with the width",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    body, words = REFUSED[name]
    with pytest.raises(wl.UnknownLimitError, match=words):
        wl.limit(lambda p, x: _dense(p["o"], body(p, x)), _prior).nngp(X[0], X[1])


@pytest.mark.parametrize("padding", ["SAME", pytest.param("VALID", marks=pytest.mark.slow)])
def test_a_batch_axis_dropped_late_is_the_same(padding):
    """``relu(conv(x[None]))[0]``: filters that see beyond an edge on one side of a pair only (gave 10 % too much)."""

    def f(late, p, x):
        z = lax.conv_general_dilated(x[None], p["C"], (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
        h = jax.nn.relu(z)[0] if late else jax.nn.relu(z[0])
        return h.mean((0, 1)) @ p["v"]

    def prior(n):
        return {"C": wl.normal((3, 3, 2, n), 0.4), "v": wl.normal((n,), 1 / n**0.5)}

    x, y = np.random.default_rng(0).normal(size=(2, 4, 4, 2))
    late, early = (np.array(wl.limit(functools.partial(f, b), prior, lr="ntk").kernels(x, y)) for b in (True, False))
    np.testing.assert_allclose(late, early, rtol=1e-12)


def _depthwise(p, x, by_hand, phi=jax.nn.relu):
    h = jax.nn.relu(x @ p["Z"])
    if by_hand:
        h = sum(h[i : i + 2, j : j + 3] * p["D"][i][j][0] for i in range(3) for j in range(2))
    else:
        h = lax.conv_general_dilated(
            h[None], p["D"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=h.shape[-1],
        )[0]  # fmt: skip
    return phi(h @ p["W"]).mean((0, 1)) @ p["v"]


def _depthwise_prior(n):
    return {
        "Z": wl.normal((2, n), 0.6), "D": wl.normal((3, 2, 1, n), 0.5), "W": wl.normal((n, n), 1 / n**0.5),
        "v": wl.normal((n,), 1 / n**0.5),
    }  # fmt: skip


def test_depthwise_is_products_of_channels():
    x, y = np.random.default_rng(0).normal(size=(2, 4, 4, 2))
    one, two = (
        np.array(wl.limit(functools.partial(_depthwise, by_hand=b), _depthwise_prior, lr="ntk").kernels(x, y))
        for b in (False, True)
    )
    np.testing.assert_allclose(one, two, rtol=1e-12)


@pytest.mark.slow
def test_depthwise_finite_networks():
    limit = wl.limit(functools.partial(_depthwise, by_hand=False), _depthwise_prior, lr="ntk")
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 2))
    check = limit.check(x, key=jax.random.key(7), widths=(256,), seeds=32)
    assert check.rows[0].ntk_z < 4 and check.rows[0].nngp_z < 4, str(check)


def test_depthwise_of_two_channels_a_filter_is_refused():
    def f(p, x):
        h = jax.nn.relu(x @ p["Z"])
        h = lax.conv_general_dilated(
            h[None], p["D"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=h.shape[-1] // 2,
        )[0]  # fmt: skip
        return h.mean((0, 1)) @ p["v"]

    x = np.ones((4, 4, 2))
    with pytest.raises(wl.UnknownLimitError, match="groups whose number grows"):
        wl.limit(f, lambda n: {**_depthwise_prior(n), "D": wl.normal((3, 2, 2, n), 0.5)}).ntk(x, x)


@pytest.mark.parametrize("shape", [(4, 2), (4, 1), (3, 1, 2)])
def test_the_width_that_is_written_does_not_matter(shape):
    """A width of 1 is no axis of size 1."""
    taps = (2,) * (len(shape) - 1)
    x, y = np.random.default_rng(0).normal(size=(2, *shape))
    one, two = (
        wl.kernels(nn.Sequential(nn.Conv(width, taps), nn.Relu(), nn.Flatten(), nn.Dense(1)))(x, y) for width in (1, 2)
    )
    np.testing.assert_allclose(one, two, rtol=1e-13)
