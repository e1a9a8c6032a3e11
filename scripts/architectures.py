"""The networks of docs/architectures.md: every family, through every front door; `scripts/monte_carlo.py` runs them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import widelimit as wl
from widelimit import nn

DRAWN = np.random.default_rng(0)
VECTORS, IMAGES, SEQUENCES, BATCHES = (DRAWN.normal(size=(3, *s)) for s in ((6,), (6, 6, 2), (5, 4), (8, 10)))
LARGE_BATCHES = np.random.default_rng(24).normal(size=(3, 24, 40))
TOKENS = DRAWN.integers(0, 20, (3, 5))
GRAPHS = DRAWN.normal(size=(3, 4, 3)), np.tile(np.eye(4) + np.eye(4, k=1) + np.eye(4, k=-1), (3, 1, 1))
WIDER = DRAWN.normal(size=(3, 64))  # weights of another law than Gaussian act as Gaussian ones, up to 1 / 64
WIDER_SEQUENCES = DRAWN.normal(size=(3, 4, 64))
PAIRS = SEQUENCES[:, :3], SEQUENCES[:, 3:]
SIGNALS, VOLUMES = DRAWN.normal(size=(3, 9, 3)), DRAWN.normal(size=(3, 4, 4, 4, 2))
PADDED = SEQUENCES, np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0.0]])
NORM = wl.normal


class Row(NamedTuple):
    """An architecture: its name, framework, limit and examples; the factor of the widths of its finite networks."""

    name: str
    framework: str
    limit: Callable[[], Any]
    x: Any
    factor: float = 1.0


def rows() -> list[Row]:
    """Every architecture whose framework is at hand."""
    found = _modules() + _functions()
    for make, module in ((_equinox, "equinox"), (_nnx, "flax"), (_linen, "flax"), (_torch, "torch")):
        if importlib.util.find_spec(module):
            found += make()
    return found


# ---------------------------------------------------------------------------------------------------- our own layers


def _modules() -> list[Row]:
    dense, conv = [nn.Dense(64, W_std=1.4, b_std=0.1), nn.Relu()], [nn.Conv(64, (3, 3), W_std=1.4), nn.Relu()]
    flat, pooled = [nn.Flatten(), nn.Dense(1)], [nn.GlobalAvgPool(), nn.Dense(1)]
    signal = nn.Conv(64, (3,), dilation=(2,), padding="CIRCULAR", W_std=1.4)
    narrow = nn.AvgPool((2, 2), (2, 2)), nn.ImageResize((4, 4))
    networks = {
        "mlp, 3 layers": ([*dense * 3, nn.Dense(1)], VECTORS),
        "mlp, 10 layers of erf": ([*[nn.Dense(64, 1.3), nn.Erf()] * 10, nn.Dense(1)], VECTORS),
        "sums, products, concatenation": (
            [
                nn.Dense(64), nn.Sum(nn.Relu(), nn.Identity()), nn.Product(nn.Dense(64, 1.0, 0.5), nn.Sin()),
                nn.Concat(nn.Dense(64), nn.Abs()), nn.Dense(1),
            ],
            VECTORS,
        ),
        "LayerNorm, residual": ([*dense, nn.Residual(nn.LayerNorm(), *dense), nn.Dense(1)], VECTORS),
        "cnn, flattened": ([*conv * 2, *flat], IMAGES),
        "cnn, pooled": ([*conv * 2, *pooled], IMAGES),
        "cnn, 1-D, dilated, circular": ([signal, nn.Relu(), signal, nn.Relu(), *flat], SIGNALS),
        "cnn, 3-D, strides": (
            [nn.Conv(64, (3, 3, 3), (2, 2, 2), padding="VALID"), nn.Relu(), nn.Conv(64, (1, 1, 1)), nn.Relu(), *flat],
            VOLUMES,
        ),
        "average pooling, resizing": ([*conv, *narrow, *conv, *flat], IMAGES),
        "group norm": ([nn.Conv(64, (3, 3)), nn.GroupNorm(2), nn.Relu(), *flat], IMAGES),
        "transposed cnn": ([nn.ConvTranspose(64, (3,), (2,)), nn.Relu(), *flat], SEQUENCES),
        "locally connected": ([nn.ConvLocal(64, (3,)), nn.Relu(), *flat], SEQUENCES),
        "GLU, RMSNorm": ([nn.Dense(64), nn.GLU(64), nn.RMSNorm(), nn.Dense(1)], VECTORS),
        "SwiGLU, residual": ([nn.Dense(64), nn.Residual(nn.SwiGLU(64), nn.Dense(64)), nn.Dense(1)], VECTORS),
        "batch norm, batches of 8": ([nn.Dense(64), nn.BatchNorm(), nn.Relu(), nn.Dense(1)], BATCHES),
        "batch norm twice, batches of 24": (
            [nn.Dense(64), nn.BatchNorm(), nn.Relu(), nn.Dense(64), nn.BatchNorm(), nn.Relu(), nn.Dense(1)],
            LARGE_BATCHES,
        ),
        "dropout": ([*dense, nn.Dropout(0.8), nn.Dense(64), nn.Relu(), nn.Dropout(0.8), nn.Dense(1)], VECTORS),
        "cross attention": ([nn.CrossAttention(64), nn.Relu(), *pooled], PAIRS),
        "positional embedding, causal attention": (
            [nn.Dense(64), nn.PositionalEmbedding(), nn.SelfAttention(64, causal=True), nn.Relu(), *pooled], SEQUENCES,
        ),
        "embedding": ([nn.Embedding(20, 64), *dense, *pooled], TOKENS),
        "gru, last state": ([nn.GRU(64, last=True), nn.Dense(1)], SEQUENCES[:, :2]),
        "rnn, mean of states": ([nn.RNN(64), *pooled], SEQUENCES),
        "sequences of several lengths": ([nn.Masked(nn.Conv(64, (3,)), nn.Relu(), *pooled)], PADDED),
    }  # fmt: skip
    found = [
        Row(name, "widelimit.nn", lambda layers=layers: wl.limit(nn.Sequential(*layers)), x)
        for name, (layers, x) in networks.items()
    ]
    ready = {
        "wide residual": (nn.wide_resnet(1), IMAGES), "transformer": (nn.transformer(1), SEQUENCES),
        "transformer, 2 heads, causal": (nn.transformer(1, heads=2, causal=True), SEQUENCES),
        "graph convolution": (nn.gcn(2), GRAPHS),
    }  # fmt: skip
    found += [Row(name, "widelimit.nn", lambda net=net: wl.limit(net), x) for name, (net, x) in ready.items()]
    many = nn.Sequential(nn.SelfAttention(64, 64, scaling="root_width"), nn.Relu(), *pooled)
    name = "attention over the root of the width, as many heads"
    return [*found, Row(name, "widelimit.nn", lambda: wl.limit(many), SEQUENCES, 0.25)]


# ------------------------------------------------------------------------------------------------- functions of JAX


def weights(n: int, **shapes: tuple[int, ...]) -> dict:
    """Parameters ``N(0, 1/fan_in)``, fan_in the last axis but one of each."""
    return {name: NORM(shape, shape[-2 if len(shape) > 1 else 0] ** -0.5) for name, shape in shapes.items()}


def swiglu(p, x):
    h = x @ p["A"]
    return (h + (jax.nn.silu(h @ p["B"]) * (h @ p["C"])) @ p["D"]) @ p["v"]


def derivative(p, x):
    def f(x):
        return jnp.tanh(jnp.tanh(x @ p["A"]) @ p["B"]) @ p["v"]

    value, slope = jax.jvp(f, (x,), (jnp.eye(6)[0],))
    return value + slope


def tied(p, x):
    h = jnp.tanh(x @ p["A"])
    return jnp.tanh(jnp.tanh(h @ p["B"]) @ p["B"].T) @ p["v"]


def embedding(p, tokens):
    h = jax.nn.gelu(p["E"][tokens] + p["P"])
    return jax.nn.gelu(h @ p["B"]).mean(0) @ p["v"]


def depthwise(p, x):
    dims = ("NHWC", "HWIO", "NHWC")
    h = jax.nn.relu(lax.conv_general_dilated(x[None], p["C"], (1, 1), "SAME", dimension_numbers=dims))
    h = lax.conv_general_dilated(h, p["D"], (1, 1), "SAME", dimension_numbers=dims, feature_group_count=h.shape[-1])
    return jax.nn.relu(h @ p["B"]).mean((0, 1, 2)) @ p["v"]


def layers_scanned(p, x):
    h, _ = lax.scan(lambda h, W: (jnp.tanh(h @ W), None), jnp.tanh(x @ p["A"]), p["B"])
    return h @ p["v"]


def pooled_then_tanh(p, x):
    h = jnp.tanh(x @ p["A"]).mean(0)
    return jax.nn.relu(jnp.tanh(2 * h) @ p["B"]) @ p["v"]


def largest(p, x):
    return jax.nn.relu(jnp.max(x @ p["A"], axis=0) @ p["B"]) @ p["v"]


def running_sums(p, x):
    """Sums of the positions so far, then the even ones, those below a fixed level left out."""
    h = jnp.cumsum(jax.nn.relu(x @ p["A"]), axis=0)[::2]
    seen = jnp.where(jnp.arange(h.shape[0])[:, None] < 2, h, 0.0)
    return jax.nn.relu(seen @ p["B"]).sum(0) @ p["v"]


def heads(p, x):
    """Two heads of attention with logits over the width, written with einsum."""
    h = x @ p["A"]
    q, k, v = (jnp.einsum("tc,hcd->htd", h, p[name]) for name in "QKV")
    weight = jax.nn.softmax(jnp.einsum("htd,hsd->hts", q, k) / q.shape[-1])
    return jax.nn.relu(jnp.einsum("hts,hsd,hdc->tc", weight, v, p["O"])).mean(0) @ p["v"]


def gates_in_groups(p, x):
    """Pairs of channels, one the gate of the other, and a matrix for each group of four."""
    h = (x @ p["A"]).reshape(*x.shape[:-1], -1, 2)
    h = (jax.nn.sigmoid(h[..., 0]) * h[..., 1]) @ p["B"]
    h = jnp.einsum("gk,gkl->gl", h.reshape(-1, 4), p["G"]).reshape(-1)
    return jax.nn.relu(h) @ p["v"]


def group_norm_of_eight(p, x):
    """Normalised in groups of eight channels, whatever the width."""
    h = (x @ p["A"]).reshape(-1, 8)
    h = (h - h.mean(-1, keepdims=True)) * lax.rsqrt(h.var(-1, keepdims=True) + 0.1)
    return jax.nn.relu(jax.nn.relu(h.reshape(-1)) @ p["B"]) @ p["v"]


def lstm(p, x):
    h = cell = jnp.zeros(p["v"].shape)
    for t in range(2):
        i, f, o, g = (x[t] @ p["U"][j] + h @ p["W"][j] for j in range(4))
        cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(cell)
    return h @ p["v"]


def graph_attention(p, x):
    """Nodes mixed by their neighbours' fixed weights, squared norm of the nodes read with the mean."""
    nodes, adjacency = x
    h = jax.nn.relu(adjacency @ nodes @ p["A"])
    h = jax.nn.relu((adjacency / adjacency.sum(1, keepdims=True)) @ h @ p["B"])
    return h.mean(0) @ p["v"]


def _functions() -> list[Row]:
    def square(n):
        return weights(n, A=(6, n), B=(n, n), v=(n,))

    def sequence(n):
        return weights(n, A=(4, n), B=(n, n), v=(n,))

    def tokens(n):
        return {"E": NORM((20, n)), "P": NORM((5, n), 0.3), **weights(n, B=(n, n), v=(n,))}

    def filters(n):
        return {"C": NORM((3, 3, 2, n), 0.3), "D": NORM((3, 3, 1, n), 0.33), **weights(n, B=(n, n), v=(n,))}

    def attention(n):
        return weights(n, A=(4, n), Q=(2, n, n), K=(2, n, n), V=(2, n, n), O=(2, n, n), v=(n,))

    def pairs(n):
        return {"G": NORM((n // 4, 4, 4), 0.5), **weights(n, A=(6, 2 * n), B=(n, n), v=(n,))}

    functions = {
        "embedding, positions": (embedding, tokens, TOKENS),
        "SwiGLU residual": (swiglu, lambda n: {**square(n), **weights(n, C=(n, n), D=(n, n))}, VECTORS),
        "f + df/dx (PINN)": (derivative, square, VECTORS),
        "W beside W.T": (tied, square, VECTORS),
        "depthwise separable cnn": (depthwise, filters, IMAGES),
        "pooling, then tanh": (pooled_then_tanh, sequence, SEQUENCES),
        "largest over positions": (largest, sequence, SEQUENCES),
        "layers by scan": (layers_scanned, lambda n: {**square(n), **weights(n, B=(3, n, n))}, VECTORS),
        "cumulative and masked sums, slices": (running_sums, sequence, SEQUENCES),
        "two heads by einsum": (heads, attention, SEQUENCES),
        "gates in pairs, matrices of groups": (gates_in_groups, pairs, VECTORS),
        "normalised in groups of 8": (group_norm_of_eight, square, VECTORS),
        "lstm, 2 steps": (lstm, lambda n: weights(n, U=(4, 4, n), W=(4, n, n), v=(n,)), SEQUENCES),
        "graph, mean of neighbours": (graph_attention, lambda n: weights(n, A=(3, n), B=(n, n), v=(n,)), GRAPHS),
    }
    return [
        Row(name, "JAX", lambda f=f, prior=prior: wl.limit(f, prior, lr="ntk"), x)
        for name, (f, prior, x) in functions.items()
    ]


# ------------------------------------------------- models of other libraries, initialised by them; biases of hidden
# layers are left out: they vanish as 1/n, and at these widths would be as large as what is left of the inputs


def _equinox() -> list[Row]:
    import equinox as eqx

    def mlp(n, key):
        biases = {"use_bias": False, "use_final_bias": False}
        return eqx.nn.MLP(64, 1, n, 2, activation=jax.nn.silu, key=key, **biases)

    def cnn(n, key):
        one, two, three = jax.random.split(key, 3)
        return eqx.nn.Sequential(
            [
                eqx.nn.Conv2d(2, n, 3, padding=1, key=one), eqx.nn.Lambda(jax.nn.relu), eqx.nn.AvgPool2d(2, 2),
                eqx.nn.Conv2d(n, n, 2, use_bias=False, key=two), eqx.nn.Lambda(jax.nn.relu), eqx.nn.Lambda(jnp.ravel),
                eqx.nn.Linear(4 * n, 1, use_bias=False, key=three),
            ]
        )  # fmt: skip

    def norm(n, key):
        one, two = jax.random.split(key)
        first, last = eqx.nn.Linear(64, n, use_bias=False, key=one), eqx.nn.Linear(n, 1, use_bias=False, key=two)
        return eqx.nn.Sequential([first, eqx.nn.LayerNorm(n), eqx.nn.Lambda(jax.nn.gelu), last])

    images = np.moveaxis(IMAGES, -1, 1)
    return [
        Row("mlp, silu", "Equinox", lambda: wl.limit(mlp), WIDER),
        Row("cnn", "Equinox", lambda: wl.limit(cnn), images),
        Row("LayerNorm mlp", "Equinox", lambda: wl.limit(norm), WIDER),
    ]


def _nnx() -> list[Row]:
    from flax import nnx

    class Norm(nnx.Module):
        def __init__(self, n, rngs, d, **laws):
            self.first, self.norm = nnx.Linear(d, n, rngs=rngs, **laws), nnx.LayerNorm(n, rngs=rngs)
            self.last = nnx.Linear(n, 1, rngs=rngs, **laws)

        def __call__(self, x):
            return self.last(jax.nn.gelu(self.norm(self.first(x))))

    class Cnn(nnx.Module):
        def __init__(self, n, rngs):
            self.first = nnx.Conv(2, n, (3, 3), rngs=rngs)
            self.norm = nnx.BatchNorm(n, use_running_average=True, rngs=rngs)
            self.last = nnx.Linear(n, 1, rngs=rngs)

        def __call__(self, x):
            return self.last(nnx.relu(self.norm(self.first(x))).mean((0, 1)))

    def few(n, key):  # six inputs: a truncated Gaussian would show
        return Norm(n, nnx.Rngs(key), 6, kernel_init=nnx.initializers.variance_scaling(1.0, "fan_in", "normal"))

    return [
        Row("LayerNorm mlp", "Flax NNX", lambda: wl.limit(lambda n, key: Norm(n, nnx.Rngs(key), 64)), WIDER),
        Row("LayerNorm mlp, Gaussian, 6 inputs", "Flax NNX", lambda: wl.limit(few), VECTORS),
        Row("cnn, BatchNorm in inference", "Flax NNX", lambda: wl.limit(lambda n, key: Cnn(n, nnx.Rngs(key))), IMAGES),
    ]


def _linen() -> list[Row]:
    from flax import linen

    class Cnn(linen.Module):
        n: int

        @linen.compact
        def __call__(self, x):
            h = linen.relu(linen.Conv(self.n, (3, 3), strides=(2, 2))(x))
            return linen.Dense(1)(linen.avg_pool(h, (3, 3)).reshape(-1))

    class Residual(linen.Module):
        n: int

        @linen.compact
        def __call__(self, x):
            h = linen.Dense(self.n)(x)
            h = h + linen.Dense(self.n)(linen.gelu(linen.RMSNorm()(h)))
            return linen.Dense(1)(linen.relu(h))

    return [
        Row("cnn, strides", "Flax Linen", lambda: wl.limit(lambda n, key: Cnn(n)), IMAGES),
        Row("RMSNorm, residual", "Flax Linen", lambda: wl.limit(lambda n, key: Residual(n)), WIDER),
    ]


def _torch() -> list[Row]:
    import torch
    from torch import nn as tnn

    def mlp(n):
        hidden, last = tnn.Linear(n, n, bias=False), tnn.Linear(n, 1, bias=False)
        return tnn.Sequential(tnn.Linear(64, n), tnn.Tanh(), hidden, tnn.Tanh(), last)

    def cnn(n):
        return tnn.Sequential(
            tnn.Conv2d(2, n, 3, padding=1), tnn.ReLU(), tnn.Conv2d(n, n, 3, groups=2, bias=False), tnn.ReLU(),
            tnn.Flatten(), tnn.Linear(16 * n, 1, bias=False),
        )  # fmt: skip

    class Block(tnn.Module):
        def __init__(self, n):
            super().__init__()
            self.embed, self.norm = tnn.Linear(64, n, bias=False), tnn.LayerNorm(n)
            self.qkv, self.last = tnn.Linear(n, 3 * n, bias=False), tnn.Linear(n, 1, bias=False)
            tnn.init.normal_(self.qkv.weight, std=n**-0.5)

        def forward(self, x):
            h = self.embed(x)
            q, k, v = self.qkv(self.norm(h)).chunk(3, -1)
            seen = tnn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1 / q.shape[-1])
            return self.last(torch.relu(h + seen).mean(1))

    images = np.moveaxis(IMAGES, -1, 1)
    return [
        Row("mlp, tanh", "PyTorch", lambda: wl.limit(mlp), WIDER),
        Row("cnn, groups", "PyTorch", lambda: wl.limit(cnn), images),
        Row("causal attention, LayerNorm, residual", "PyTorch", lambda: wl.limit(Block), WIDER_SEQUENCES),
    ]
