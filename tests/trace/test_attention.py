"""Attention with logits over the width, heads in several ways of writing, axes of positions merged and split."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl
from widelimit import nn

X = np.random.default_rng(0).normal(size=(2, 4, 3))
HEADS = 2


def _dense(W, h):
    return h @ W / np.sqrt(W.shape[0])


def _prior(n):
    return {
        "u": wl.normal((3, n)), "q": wl.normal((n, n)), "v": wl.normal((n, n)), "o": wl.normal((n, n)),
        "Q": wl.normal((HEADS, n, n)), "V": wl.normal((HEADS, n, n)), "O": wl.normal((HEADS, n, n)),
        "r": wl.normal((n, 1)),
    }  # fmt: skip


def _first(p, x):
    return jax.nn.relu(_dense(p["u"], x))


def _one_head(p, x):
    h = _first(p, x)
    q = _dense(p["q"], h)
    A = jax.nn.softmax(q @ q.T / q.shape[1])
    return _dense(p["r"], jnp.tanh(_dense(p["o"], A @ _dense(p["v"], h))).mean(0))


def _causal_with_residual(p, x):
    h = _first(p, x)
    q = _dense(p["q"], h)
    A = jax.nn.softmax(jnp.where(jnp.tril(jnp.ones((4, 4), bool)), q @ q.T / q.shape[1], -jnp.inf))
    h = h + _dense(p["o"], A @ _dense(p["v"], h))
    return _dense(p["r"], h[-1])


def _separate_weights(p, x):
    h, n = _first(p, x), p["q"].shape[0]
    q = jnp.einsum("tc,hcd->htd", h, p["Q"]) / np.sqrt(n)
    v = jnp.einsum("tc,hcd->htd", h, p["V"]) / np.sqrt(n)
    A = jax.nn.softmax(jnp.einsum("htd,hsd->hts", q, q) / n)
    z = jnp.einsum("hts,hsd,hdc->tc", A, v, p["O"], optimize=[(0, 1), (0, 1)]) / np.sqrt(HEADS * n)
    return _dense(p["r"], jnp.tanh(z).mean(0))


def _heads_of_one_matrix(p, x):
    """Fused projections, reshaped to heads and back: what most codes do."""
    h = _first(p, x)
    q, v = (_dense(p[name], h).reshape(4, HEADS, -1) for name in ("q", "v"))
    A = jax.nn.softmax(jnp.einsum("thd,shd->hts", q, q) / q.shape[-1])
    y = jnp.einsum("hts,shd->thd", A, v).reshape(4, -1)
    return _dense(p["r"], jnp.tanh(_dense(p["o"], y)).mean(0))


NETWORKS = {
    "one head": _one_head,
    "causal, with a residual": _causal_with_residual,
    "separate weights": _separate_weights,
    "heads of one matrix": _heads_of_one_matrix,
}


CONTEXTS = np.random.default_rng(2).normal(size=(2, 5, 3))


def _cross(p, inputs):
    """Queries of one part of the input, keys and values of another."""
    h, g = (_first(p, part) for part in inputs)
    q, k = _dense(p["q"], h), _dense(p["q"], g)
    A = jax.nn.softmax(q @ k.T / q.shape[1])
    return _dense(p["r"], jnp.tanh(_dense(p["o"], A @ _dense(p["v"], g))).mean(0))


_ENCODER = nn.Sequential(nn.Dense(8, b_std=0.1), nn.Relu())
_TAIL = (nn.Tanh(), nn.GlobalAvgPool(), nn.Dense(1))
_CROSS = nn.Sequential(nn.CrossAttention(8, W_query_std=1.3, b_std=0.2, encoder=_ENCODER), *_TAIL)


@pytest.mark.parametrize("name", NETWORKS)
def test_agrees_with_finite_networks(name):
    check = wl.limit(NETWORKS[name], _prior).check(X, key=jax.random.key(1), widths=(64, 512), seeds=24)
    assert max(check.rows[-1].nngp_z, check.rows[-1].ntk_z) < 4
    assert check.rows[-1].ntk_error < 0.6 * check.rows[0].ntk_error


@pytest.mark.slow
@pytest.mark.parametrize("name", ["code", "module"])
def test_cross_attention_agrees_with_finite_networks(name):
    limit = wl.limit(_cross, _prior) if name == "code" else wl.limit(_CROSS)
    rows = limit.check((X, CONTEXTS), key=jax.random.key(1), widths=(64, 512), seeds=24).rows
    assert max(rows[-1].nngp_z, rows[-1].ntk_z) < 4
    assert rows[-1].ntk_error < 0.6 * rows[0].ntk_error


@pytest.mark.slow
def test_attention_to_oneself_is_self_attention():
    both = wl.limit(_cross, _prior).kernels((X[0], X[0]), (X[1], X[1]))
    np.testing.assert_allclose(both, wl.limit(_one_head, _prior).kernels(*X), rtol=1e-12)


@pytest.mark.slow
def test_cross_attention_to_oneself_is_self_attention():
    own = nn.Sequential(_ENCODER, nn.SelfAttention(8, W_query_std=1.3, b_std=0.2), *_TAIL)
    both = wl.kernels(_CROSS)((X[0], X[0]), (X[1], X[1]))
    np.testing.assert_allclose(both, wl.kernels(own)(*X), rtol=1e-12)


@pytest.mark.usefixtures("float64")
def test_forward_of_cross_attention():
    """Two heads, written out; without an encoder the first layer."""
    layer = nn.CrossAttention(4, 2, 1.3, 0.7, 1.1, 0.9, b_std=0.2, mechanism="relu")
    params = layer.init(jax.random.key(0), ((4, 3), (5, 3)))
    p, x, context = jax.tree.map(np.asarray, params), X[0], CONTEXTS[0]
    wanted = 0.2 * p["b"]
    for K, V, out in zip(p["K"], p["V"], p["O"], strict=True):
        logits = 1.3 * 0.7 * (x @ K) @ (context @ K).T / (3 * 4)
        wanted = wanted + np.maximum(logits, 0) @ (1.1 * context @ V / 3**0.5) @ out * 0.9 / 8**0.5
    np.testing.assert_allclose(layer.apply(params, (x, context)), wanted, rtol=1e-12)
    assert layer.output_shape(params, ((4, 3), (5, 3))) == (4, 4)


@pytest.mark.slow
def test_ways_of_writing_heads_agree():
    grams = [wl.gram(wl.limit(f, _prior).kernels, X) for f in (_separate_weights, _heads_of_one_matrix, _one_head)]
    for other in grams[1:]:  # heads attend alike in the limit, so that one is as good as two
        for a, b in zip(grams[0], other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)


def test_positions_merged_and_split_again():
    """(2, 2) positions as 4 and back, beside the same network on 4."""
    tail = (nn.SelfAttention(8, W_query_std=1.3), nn.Relu())
    plane = nn.Sequential(nn.Dense(8), nn.Relu(), *tail, nn.GlobalAvgPool(), nn.Dense(1))
    for a, b in zip(*(wl.gram(wl.kernels(plane), x) for x in (X, X.reshape(2, 2, 2, 3))), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    conv = nn.Sequential(nn.Dense(8), nn.Relu(), *tail, nn.Conv(8, (2, 2)), nn.Relu(), nn.GlobalAvgPool(), nn.Dense(1))
    f = wl.kernels(conv)
    both = f(X[0].reshape(2, 2, 3), X[1].reshape(2, 2, 3))
    again = f(X[1].reshape(2, 2, 3), X[0].reshape(2, 2, 3))
    assert both.ntk == pytest.approx(again.ntk, rel=1e-12)


def test_logits_over_the_root_of_the_width_are_refused():
    def f(p, x):
        q = _dense(p["q"], _first(p, x))
        return _dense(p["r"], (jax.nn.softmax(q @ q.T / q.shape[1] ** 0.5) @ q).mean(0))

    with pytest.raises(wl.UnknownLimitError, match=r"grows with the width, as width\^\(1/2\)"):
        wl.limit(f, _prior).nngp(X[0], X[1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.SelfAttention(8, 0), "SelfAttention: heads must"),
        (lambda: nn.SelfAttention(8, W_key_std=-1), "SelfAttention: W_key_std must"),
        (lambda: nn.PositionalEmbedding(-1.0), "PositionalEmbedding: std must"),
        (lambda: nn.PositionalEmbedding().init(jax.random.key(0), (3,)), r"the input must be \(positions, C\)"),
        (lambda: nn.SelfAttention(8, mechanism="hard"), "mechanism must be one of softmax, identity, relu, abs"),
        (lambda: nn.CrossAttention(8, mechanism="hard"), "CrossAttention: mechanism must be one of softmax"),
        (lambda: nn.CrossAttention(8).init(jax.random.key(0), (4, 3)), r"must be a tuple \(x, context\)"),
        (lambda: nn.CrossAttention(8).init(jax.random.key(0), ((4, 3), (5, 2))), "with the same C, and their shapes"),
        (lambda: nn.CrossAttention(8).apply({}, jnp.ones((4, 3))), r"must be a tuple \(x, context\)"),
        (lambda: nn.SelfAttention(8).init(jax.random.key(0), (3,)), r"the input must be \(positions..., C\)"),
    ],
)
def test_bad_hyperparameters(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_an_encoder_is_a_module():
    with pytest.raises(TypeError, match="CrossAttention: encoder must be an nn module"):
        nn.CrossAttention(8, encoder=jnp.tanh)  # type: ignore[arg-type]
