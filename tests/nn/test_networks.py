"""Layers and ready networks beside forward passes written out by hand, and their limits beside finite networks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl
from widelimit import nn

RNG = np.random.default_rng(4)
SEQUENCES = RNG.normal(size=(2, 3, 2))
IMAGES = RNG.normal(size=(2, 8, 8, 2))
TOKENS = np.array([[0, 2, 1, 2], [3, 3, 0, 1]])
KEY = jax.random.key(0)


def _numbers(params):
    return jax.tree.map(np.asarray, params)


def _sigmoid(z):
    return 1 / (1 + np.exp(-z))


def _rms(x, p):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 0.1)


def _group(x, p):
    parts = x.reshape(3, 2, 4)
    centred = parts - parts.mean((0, 2), keepdims=True)
    return (centred / np.sqrt(centred.var((0, 2), keepdims=True) + 0.1)).reshape(3, 8)


def _rnn(x, p):
    h, states = np.zeros(4), []
    for xt in x:
        h = np.maximum(1.2 * h @ p["W"] / 2 + 0.7 * xt @ p["U"] / np.sqrt(len(xt)) + 0.3 * p["b"], 0)
        states.append(h)
    return np.array(states)


def _gru(x, p):
    h = np.zeros(4)
    for xt in x:
        inputs = {g: xt @ p[g]["U"] / np.sqrt(len(xt)) + 0.3 * p[g]["b"] for g in "zrc"}
        z, r = (_sigmoid(1.2 * h @ p[g]["W"] / 2 + inputs[g]) for g in "zr")
        h = (1 - z) * h + z * np.tanh(1.2 * (r * h) @ p["c"]["W"] / 2 + inputs["c"])
    return h


def _swiglu(x, p):
    z, y = (1.5 * x @ p[n] / np.sqrt(x.shape[-1]) + 0.2 * p[f"b_{n}"] for n in "VW")
    return z * _sigmoid(z) * y


MATRIX = RNG.normal(size=(2, 3))
LAYERS = {
    "RMSNorm": (nn.RMSNorm(0.1), _rms, (3, 8)),
    "GroupNorm": (nn.GroupNorm(2, 0.1), _group, (3, 8)),
    "RNN": (nn.RNN(4, 1.2, 0.7, 0.3), _rnn, (3, 2)),
    "RNN, last": (nn.RNN(4, 1.2, 0.7, 0.3, last=True), lambda x, p: _rnn(x, p)[-1], (3, 2)),
    "GRU": (nn.GRU(4, 1.2, b_std=0.3, last=True), _gru, (3, 2)),
    "GLU": (nn.GLU(4), lambda x, p: _sigmoid(x @ p["V"] / 2**0.5) * (x @ p["W"] / 2**0.5), (3, 2)),
    "SwiGLU": (nn.SwiGLU(4, W_std=1.5, b_std=0.2), _swiglu, (3, 2)),
    "LinearMap": (nn.LinearMap(MATRIX), lambda x, p: MATRIX @ x, (3, 2)),
    "LinearMap of axis 1": (nn.LinearMap(MATRIX, 1), lambda x, p: np.einsum("pq,aqc->apc", MATRIX, x), (4, 3, 2)),
    "LinearMap, a vector": (nn.LinearMap(MATRIX[0]), lambda x, p: MATRIX[0] @ x, (3, 2)),
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", LAYERS)
def test_forward(name):
    layer, wanted, shape = LAYERS[name]
    x, params = RNG.normal(size=shape), layer.init(KEY, shape)
    np.testing.assert_allclose(layer.apply(params, jnp.asarray(x)), wanted(x, _numbers(params)), rtol=1e-12)
    assert layer.output_shape(params, shape) == wanted(x, _numbers(params)).shape
    assert hash(layer) == hash(LAYERS[name][0])


def test_tokens_of_an_embedding():
    layer = nn.Embedding(5, 4, 1.5)
    params = layer.init(KEY, (4,))
    wanted = 1.5 * np.asarray(params)[TOKENS[0]]
    for tokens in (TOKENS[0], TOKENS[0].astype(float)):
        np.testing.assert_allclose(layer.apply(params, jnp.asarray(tokens)), wanted, rtol=1e-6)
    assert layer.apply(params, 2).shape == (5,) and layer.output_shape(params, (4,)) == (4, 5)


def test_kernel_of_an_embedding():
    """Equal tokens are equal, others independent: the NNGP of a dense layer on it counts equal pairs."""
    K = wl.gram(wl.nngp(nn.Sequential(nn.Embedding(8, 4, 1.5), nn.GlobalAvgPool(), nn.Dense(1))), TOKENS)
    equal = (TOKENS[:, None, :, None] == TOKENS[None, :, None, :]).mean((2, 3))
    np.testing.assert_allclose(K, 1.5**2 * equal, rtol=1e-13)


_POOLED = (nn.GlobalAvgPool(), nn.Dense(1))
LIMITS = {
    "RMSNorm": (nn.Sequential(nn.Dense(8, 1.0, 0.2), nn.RMSNorm(0.1), nn.Relu(), *_POOLED), SEQUENCES),
    "GroupNorm": (nn.Sequential(nn.Dense(8, 1.0, 0.2), nn.GroupNorm(2, 0.1), nn.Relu(), *_POOLED), SEQUENCES),
    "Embedding": (nn.Sequential(nn.Embedding(8, 4), nn.Dense(8), nn.Relu(), *_POOLED), TOKENS),
    "SwiGLU": (nn.Sequential(nn.Dense(8), nn.SwiGLU(8, b_std=0.2), *_POOLED), SEQUENCES),
    "LinearMap": (nn.Sequential(nn.Dense(8), nn.LinearMap(MATRIX), nn.Relu(), *_POOLED), SEQUENCES),
    "RNN, last": (nn.Sequential(nn.RNN(8, 1.2, b_std=0.2, last=True), nn.Dense(1)), SEQUENCES),
    "RNN": (nn.Sequential(nn.RNN(8, 1.2, b_std=0.2), *_POOLED), SEQUENCES[:, :2]),
    "GRU": (nn.Sequential(nn.GRU(8, b_std=0.2, last=True), nn.Dense(1)), SEQUENCES[:, :2]),
    "mlp": (nn.mlp(2, b_std=0.1), SEQUENCES[:, 0]),
    "cnn": (nn.cnn(2, filter_shape=2, b_std=0.1), SEQUENCES),
    "transformer": (nn.transformer(1, 2, b_std=0.1), SEQUENCES[:, :2]),
}
_QUICK = ("GroupNorm", "Embedding", "RNN, last", "mlp")


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in _QUICK else pytest.mark.slow) for n in LIMITS])
def test_limit_agrees_with_finite_networks(name):
    net, x = LIMITS[name]
    row = wl.limit(net).check(x, key=jax.random.key(1), widths=(128,), seeds=24).rows[0]
    assert max(row.nngp_z, row.ntk_z) < 4.5
    assert row.ntk_error < 0.5


def _conv(x, params):
    """3 x 3, zeros beyond the edges."""
    x = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(0, 1))
    return np.einsum("hwcij,ijco->hwo", windows, params["W"]) * np.sqrt(2 / (9 * x.shape[-1]))


def _halved(x):
    """Averages of 2 x 2, the last with zeros where the size is odd."""
    x = np.pad(x, ((0, x.shape[0] % 2), (0, x.shape[1] % 2), (0, 0)))
    return (x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]) / 4


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("depth", "counts"), [(5, (2, 1, 1)), (7, (2, 2, 2)), (10, (3, 3, 3))])
def test_forward_of_myrtle(depth, counts):
    net = nn.myrtle(depth, 4)
    params = net.init(KEY, (8, 8, 2))
    x, weights = IMAGES[0], iter([p for p in _numbers(params) if p])
    for count in counts:
        for _ in range(count):
            x = np.maximum(_conv(x, next(weights)), 0)
        x = _halved(x)
    x = _halved(_halved(x)).reshape(-1)
    wanted = x @ next(weights)["W"] * np.sqrt(2 / len(x))
    np.testing.assert_allclose(net.apply(params, IMAGES[0]), wanted, rtol=1e-12)


@pytest.mark.usefixtures("float64")
def test_forward_of_a_wide_residual_network():
    net = nn.wide_resnet(2, 1, stages=2)
    params = net.init(KEY, (8, 8, 2))
    p = _numbers(params)
    x = _conv(IMAGES[0], p[0])
    for block, (body, shortcut) in enumerate(p[1:5]):
        step = 2 if block == 2 else 1
        # stride 2 of "SAME" on an even size starts at the second position of the padded ones
        y = _conv(np.maximum(x, 0), body[1])[step - 1 :: step, step - 1 :: step]
        y = _conv(np.maximum(y, 0), body[3])
        x = y + (_conv(x, shortcut)[step - 1 :: step, step - 1 :: step] if block in (0, 2) else x)
    wanted = x.mean((0, 1)) @ p[-1]["W"] / np.sqrt(x.shape[-1])
    np.testing.assert_allclose(net.apply(params, IMAGES[0]), wanted, rtol=1e-10)
    assert [m.width for m in (net.layers[0], net.layers[3].branches[1])] == [16, 32]  # type: ignore[attr-defined]


@pytest.mark.usefixtures("float64")
def test_forward_of_a_transformer_with_one_position():
    """Attention to oneself is its values; the rest is written out."""
    net = nn.transformer(1, 1, 4)
    x = SEQUENCES[0, :1]
    params = net.init(KEY, x.shape)
    p = _numbers(params)

    def norm(h):
        return (h - h.mean(-1, keepdims=True)) / h.std(-1, keepdims=True)

    h = x @ p[0]["W"] / np.sqrt(2)
    h = h + norm(h) @ p[1][1]["V"][0] / 2 @ p[1][1]["O"][0] / 2
    z = norm(h) @ p[2][1]["W"] / 2
    h = h + np.asarray(jax.nn.gelu(z, approximate=False)) @ p[2][3]["W"] / 2
    np.testing.assert_allclose(net.apply(params, x), h[0] @ p[-1]["W"] / 2, rtol=1e-9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.RMSNorm(-1.0), "RMSNorm: epsilon must"),
        (lambda: nn.GroupNorm(0), "GroupNorm: groups must"),
        (lambda: nn.GroupNorm(3).apply((), jnp.ones((2, 4))), "GroupNorm: groups=3 does not divide"),
        (lambda: nn.LayerNorm(axis=0).apply((), jnp.ones((2, 4))), "LayerNorm: axis 0 does not hold the last"),
        (lambda: nn.RMSNorm(axis=2).apply((), jnp.ones((2, 4))), "RMSNorm: axis 2 of an input of shape"),
        (lambda: nn.Embedding(4, 0), "Embedding: vocabulary must be an integer >= 1"),
        (lambda: nn.RNN(4, U_std=-1), "RNN: U_std must"),
        (lambda: nn.GRU(0), "GRU: width must"),
        (lambda: nn.RNN(4).init(KEY, (3,)), r"RNN: the input must be \(T, C\)"),
        (lambda: nn.GLU(4, W_std=-1), "GLU: W_std must"),
        (lambda: nn.SwiGLU(4).init(KEY, ()), "SwiGLU: the input must have at least one axis"),
        (lambda: nn.LinearMap(np.ones((2, 2, 2))), "LinearMap: matrix must be"),
        (lambda: nn.LinearMap(np.eye(3), axis=1).apply((), jnp.ones((3, 3))), "whose last axis"),
        (lambda: nn.LinearMap(np.eye(3)).apply((), jnp.ones((2, 3))), "does not fit an input"),
        (lambda: nn.mlp(0), "mlp: depth must be an integer >= 1"),
        (lambda: nn.cnn(2, width=0), "cnn: width must"),
        (lambda: nn.myrtle(6), "myrtle: depth must be 5, 7 or 10"),
        (lambda: nn.wide_resnet(2, 0), "wide_resnet: widen_factor must"),
        (lambda: nn.transformer(1, heads=0), "transformer: heads must"),
        (lambda: nn.gcn(2, pool="max"), 'gcn: pool must be "sum" or "mean"'),
    ],
)
def test_bad_values(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.RNN(4, activation=jnp.tanh), r"RNN: activation must be an nn module such as nn.Relu\(\)"),
        (lambda: nn.RNN(4, last=1), "RNN: last must be True or False"),  # type: ignore[arg-type]
        (lambda: nn.GLU(4, jnp.tanh), "GLU: activation must be an nn module"),  # type: ignore[arg-type]
        (lambda: nn.LinearMap([["a"]]), "LinearMap: matrix must be an array of numbers"),
        (lambda: nn.LinearMap(np.eye(2), axis=0.0), "LinearMap: axis must be an integer"),  # type: ignore[arg-type]
        (lambda: nn.mlp(2, activation=nn.Relu), "mlp: activation must be an nn module"),  # type: ignore[arg-type]
        (lambda: nn.cnn(2, pool="avg"), "cnn: pool must be True or False"),  # type: ignore[arg-type]
    ],
)
def test_bad_types(make, message):
    with pytest.raises(TypeError, match=message):
        make()
