"""Cross attention to what an encoder has made: branches of a tuple, masks, logits over the width and over its root."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl
from widelimit import nn

RNG = np.random.default_rng(4)
X, CONTEXT = RNG.normal(size=(2, 4, 3)), RNG.normal(size=(2, 5, 2))
MASKS = np.array([[1, 1, 1, 1], [1, 1, 1, 0]], bool), np.array([[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]], bool)
QUERY, KEY, VALUE, OUT = 1.3, 0.8, 1.1, 0.9
SCALE = (VALUE * OUT) ** 2
TAIL = (nn.GlobalAvgPool(), nn.Dense(1))


def _examples(x, context):
    return [((x[i], MASKS[0][i]), (context[i], MASKS[1][i])) for i in (0, 1)]


def _cut():
    """The same examples without what is masked."""
    return [(x[m], c[n]) for x, c, m, n in zip(X, CONTEXT, *MASKS, strict=True)]


def _relu(a, b):
    """``E[relu relu]`` of Gaussian fields of covariance ``a b^T / d`` (Cho and Saul 2009)."""
    u, v, K = (a**2).mean(1)[:, None], (b**2).mean(1), a @ b.T / a.shape[1]
    angle = np.arccos(np.clip(K / np.sqrt(u * v), -1, 1))
    return np.sqrt(u * v) * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi)


def _softmax(scores):
    weights = np.exp(scores)
    return weights / weights.sum(-1, keepdims=True)


def _branch():
    return nn.Sequential(nn.Dense(16), nn.Relu())


def _network(scaling, mechanism, entrance=nn.Sequential):
    attention = nn.CrossAttention(16, 16, QUERY, KEY, VALUE, OUT, mechanism=mechanism, scaling=scaling)
    return entrance(nn.Parallel(_branch(), _branch()), attention, *TAIL)


def test_logits_over_the_width():
    """Two branches without a common parameter: a logit is the product of the means of their channels."""
    kernel = wl.nngp(_network("width", "softmax", nn.Masked))(*_examples(X, CONTEXT))
    attention = []
    for x, c in _cut():
        means = np.outer(*(np.sqrt((a**2).mean(1) / (2 * np.pi)) for a in (x, c)))
        attention.append(_softmax(QUERY * KEY * means).mean(0))
    (_, c), (_, d) = _cut()
    assert float(kernel) == pytest.approx(SCALE * attention[0] @ _relu(c, d) @ attention[1], rel=1e-12)


def test_linear_attention_over_the_root_of_the_width():
    kernel = wl.nngp(_network("root_width", "identity"))(*zip(X, CONTEXT, strict=True))
    queries, keys = _relu(*X), _relu(*CONTEXT)
    expected = (QUERY * KEY) ** 2 * SCALE * queries.mean() * (keys**2).sum()
    assert float(kernel) == pytest.approx(expected, rel=1e-12)


@pytest.mark.slow
def test_softmax_attention_over_the_root_of_the_width_agrees_with_sampled_scores():
    network = _network("root_width", "softmax", nn.Masked)
    kernel = float(wl.nngp(network, points=8192)(*_examples(X, CONTEXT)))
    (x, c), (y, d) = _cut()
    both = np.concatenate([x, y]), np.concatenate([c, d])
    queries, keys = (np.linalg.cholesky(_relu(a, a) + 1e-12 * np.eye(len(a))) for a in both)
    draws = RNG.normal(size=(100_000, len(both[0]), len(both[1])))
    scores = QUERY * KEY * (queries @ draws @ keys.T)
    first = _softmax(scores[:, : len(x), : len(c)]).mean(1)
    second = _softmax(scores[:, len(x) :, len(c) :]).mean(1)
    values = SCALE * np.einsum("nq,qr,nr->n", first, _relu(c, d), second)
    error = values.std() / len(values) ** 0.5
    assert error < 2e-3 * kernel
    assert abs(values.mean() - kernel) < 5 * error


def _encoder_decoder(scaling):
    """A layer of an encoder, one of a decoder that looks at it."""
    heads = 32 if scaling == "root_width" else 2
    encoder = nn.Sequential(nn.Conv(32, 3), nn.Relu(), nn.Residual(nn.SelfAttention(32)), nn.LayerNorm())
    decoder = nn.Sequential(nn.Dense(32), nn.Relu(), nn.Residual(nn.SelfAttention(32, causal=True)))
    attention = nn.CrossAttention(32, heads, mechanism="relu", b_std=0.2, scaling=scaling)
    return nn.Masked(
        nn.Parallel(decoder, encoder),
        nn.Fork(nn.Sum(nn.Part(0), attention), nn.Part(1)),
        nn.Parallel(nn.Residual(nn.Relu(), nn.Dense(32)), nn.Identity()),
        nn.Part(0),
        *TAIL,
    )


@pytest.mark.slow
@pytest.mark.parametrize("scaling", ["width", "root_width"])
def test_padding_changes_nothing(scaling):
    kernels = wl.kernels(_encoder_decoder(scaling))
    masked = kernels(*_examples(*(np.where(m[..., None], a, 100.0) for a, m in zip((X, CONTEXT), MASKS, strict=True))))
    whole = [((x, np.ones(len(x), bool)), (c, np.ones(len(c), bool))) for x, c in _cut()]
    np.testing.assert_allclose(masked, kernels(*whole), rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("scaling", ["width", "root_width"])
def test_finite_encoder_decoders(scaling):
    inputs = tuple(zip((X, CONTEXT), MASKS, strict=True))
    check = wl.limit(_encoder_decoder(scaling)).check(inputs, key=jax.random.key(1), widths=(64,), seeds=24)
    assert max(check.rows[0].nngp_z, check.rows[0].ntk_z) < 4, str(check)
    assert check.rows[0].ntk_error < 0.5, str(check)


@pytest.mark.usefixtures("float64")
def test_forward_of_padded_parts():
    """A part with a mask beside one without; the masked keys get no weight."""
    net = _network("width", "softmax", nn.Masked)
    params = net.init(jax.random.key(0), ((4, 3), ((5, 2), (5,))))
    y = net.apply(params, (jnp.asarray(X[0]), (jnp.asarray(CONTEXT[0]), jnp.asarray(MASKS[1][0]))))
    cut = nn.Sequential(*net.body.layers).apply(params, (jnp.asarray(X[0]), jnp.asarray(CONTEXT[0, :4])))
    np.testing.assert_allclose(y, cut, rtol=1e-12)


@pytest.mark.slow
def test_a_gram_over_tuples_of_padded_parts():
    kernel = wl.nngp(_network("width", "relu", nn.Masked))
    gram = wl.gram(kernel, tuple(zip((X, CONTEXT), MASKS, strict=True)))
    assert float(gram[0, 1]) == pytest.approx(float(kernel(*_examples(X, CONTEXT))), rel=1e-12)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (nn.Sequential(nn.Parallel(_branch()), *TAIL), "Parallel: the input must be a tuple of 1 parts"),
        (nn.Sequential(nn.Part(2), *TAIL), "Part: the input must be a tuple of more than 2 parts"),
        (nn.Sequential(nn.Parallel(_branch(), _branch()), nn.Dense(1)), "Dense: it cannot be applied to a tuple"),
        (nn.Sequential(nn.Parallel(nn.Dense(8), nn.Dense(4)), nn.CrossAttention(8)), "with the same C"),
    ],
)
def test_errors_name_the_layer_and_the_remedy(net, message):
    with pytest.raises(ValueError, match=message):
        net.init(jax.random.key(0), ((4, 3), (5, 2)))


def test_an_index_of_a_part_is_a_number():
    with pytest.raises(ValueError, match="Part: index must be an integer >= 0"):
        nn.Part(-1)
