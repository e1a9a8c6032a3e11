"""Attention with infinitely many heads: logits over the root of their width, which stay random."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl
from widelimit import nn
from widelimit.trace._program import with_width

T, D = 3, 5
X = np.random.default_rng(0).normal(size=(2, T, D))
COVARIANCE = np.concatenate([*X]) @ np.concatenate([*X]).T / D


def _prior(n):
    each = wl.normal((n, D, n), D**-0.5)
    return {
        "Q": each, "K": each, "V": each, "O": wl.normal((n, n, n), 1 / n), "w": wl.normal((n,), n**-0.5),
        "b": wl.normal((n, 1, n), 0.5),
    }  # fmt: skip


def _heads(p, x, mechanism, power=0.5, key="K", value="V", bias=False):
    q, k, v = (jnp.einsum("pc,hcd->hpd", x, p[name]) for name in ("Q", key, value))
    q = q + p["b"] if bias else q
    a = mechanism(jnp.einsum("hpd,hqd->hpq", q, k) / q.shape[-1] ** power)
    return jnp.einsum("hpd,hdc->pc", jnp.einsum("hpq,hqd->hpd", a, v), p["O"])


def _network(p, x, mechanism=jax.nn.softmax, **options):
    return _heads(p, x, mechanism, **options).mean(0) @ p["w"]


def _identity(s):
    return s


def _limit(mechanism, points=4096, **options):
    return wl.limit(functools.partial(_network, mechanism=mechanism, **options), _prior, lr="ntk", points=points)


def _sampled(mechanism, count=200_000):
    """Second moment of the output and its error, from the scores' law: ``E[S_pq S_p'q'] = K_pp' K_qq'``."""
    L = np.linalg.cholesky(COVARIANCE + 1e-12 * np.eye(2 * T))
    scores = L @ np.random.default_rng(5).normal(size=(count, 2 * T, 2 * T)) @ L.T
    first, second = (np.asarray(mechanism(jnp.asarray(s))).mean(1) for s in (scores[:, :T, :T], scores[:, T:, T:]))
    values = np.einsum("nq,qr,nr->n", first, COVARIANCE[:T, T:], second)
    return values.mean(), values.std() / count**0.5


@pytest.mark.parametrize("mechanism", [jax.nn.softmax, jax.nn.relu], ids=["softmax", "relu"])
def test_agrees_with_sampled_scores(mechanism):
    mean, error = _sampled(mechanism)
    assert abs(float(_limit(mechanism).nngp(*X)) - mean) < 5 * error


def test_linear_attention_is_a_product():
    K = COVARIANCE
    expected = np.einsum("pr,qs,qs->", K[:T, T:], K[:T, T:], K[:T, T:]) / T**2
    k = _limit(_identity)
    np.testing.assert_allclose(k.nngp(*X), expected, rtol=1e-12)
    # five parameters, linear in each
    np.testing.assert_allclose(k.ntk(*X), 5 * expected, rtol=1e-12)


def test_closed_form_but_for_softmax():
    assert "closed form" in str(_limit(jax.nn.relu).explain(X[0])).rpartition("approximations")[2]
    assert "quasi-Monte Carlo" in str(_limit(jax.nn.softmax).explain(X[0]))


def test_other_orders_of_axes():
    def network(p, x):
        q, k, v = (jnp.einsum("pc,chd->phd", x, p[name]) for name in "QKV")
        a = jax.nn.relu(jnp.einsum("phd,qhd->hpq", q, k) / q.shape[-1] ** 0.5)
        y = jnp.einsum("hpq,qhd->phd", a, v)
        return jnp.einsum("phd,dhc->pc", y, p["O"]).mean(0) @ p["w"]

    def prior(n):
        return {**_prior(n), **{name: wl.normal((D, n, n), D**-0.5) for name in "QKV"}}

    k = wl.limit(network, prior, lr="ntk").kernels(*X)
    np.testing.assert_allclose(np.array(k), np.array(_limit(jax.nn.relu).kernels(*X)), rtol=1e-12)


def test_few_channels_a_head():
    # heads are the width then, and scores are sums of two products: for linear attention the moments are the same
    def prior(n):
        return {
            **_prior(n),
            **{name: wl.normal((n, D, 2), D**-0.5) for name in "QKV"},
            "O": wl.normal((n, 2, n), (2 * n) ** -0.5),
        }

    k = wl.limit(functools.partial(_network, mechanism=_identity), prior, lr="ntk")
    np.testing.assert_allclose(np.array(k.kernels(*X)), np.array(_limit(_identity).kernels(*X)), rtol=1e-12)


def _module(mechanism, **options):
    attention = nn.SelfAttention(48, 48, 1.1, 0.9, 1.2, 0.8, 0.1, mechanism, scaling="root_width", **options)
    return nn.Sequential(attention, nn.Relu(), nn.GlobalAvgPool(), nn.Dense(1, 1.5, 0.1))


def test_module_grows_in_heads_and_width():
    net = nn.Sequential(nn.SelfAttention(48, 24, scaling="root_width"), nn.Dense(1))
    attention = with_width(net, 32).layers[0]
    assert (attention.width, attention.heads) == (32, 16)


def test_logits_over_the_width_vanish():
    # with queries and keys of their own: attention is uniform in the limit
    np.testing.assert_allclose(_limit(jax.nn.softmax, power=1.0).nngp(*X), COVARIANCE[:T, T:].mean(), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"mechanism": "softmax", "causal": True}, {"mechanism": "abs"}], ids=str)
def test_finite_modules(options):
    check = wl.limit(_module(**options)).check(X, key=jax.random.key(1), widths=(64,), seeds=32)
    assert check.rows[0].nngp_z < 4 and check.rows[0].ntk_z < 4, str(check)


@pytest.mark.slow
def test_finite_networks_with_a_bias_in_each_head():
    check = _limit(jax.nn.softmax, bias=True).check(X, key=jax.random.key(1), widths=(64,), seeds=32)
    assert check.rows[0].nngp_z < 4 and check.rows[0].ntk_z < 4, str(check)


def test_bias_of_each_head_adds_to_queries():
    K = COVARIANCE
    expected = np.einsum("pr,qs,qs->", K[:T, T:] + 0.25, K[:T, T:], K[:T, T:]) / T**2
    np.testing.assert_allclose(_limit(_identity, bias=True).nngp(*X), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": "Q"}, "share a parameter"),
        ({"value": "K"}, "values of a head share a parameter"),
        ({"power": 0.0}, "grows with the width"),
    ],
)
def test_what_has_no_rule_is_refused(options, message):
    with pytest.raises(wl.UnknownLimitError, match=message):
        _limit(jax.nn.softmax, **options).nngp(*X)


def test_a_parameter_of_each_head_after_its_attention_is_refused():
    # given its attention, what a head has mixed is no Gaussian of one law
    def network(p, x):
        q, k, v = (jnp.einsum("pc,hcd->hpd", x, p[name]) for name in "QKV")
        a = jax.nn.relu(jnp.einsum("hpd,hqd->hpq", q, k) / q.shape[-1] ** 0.5)
        y = jnp.einsum("hpd,hde->hpe", jnp.einsum("hpq,hqd->hpd", a, v), p["R"])
        return jnp.einsum("hpd,hdc->pc", jax.nn.relu(y), p["O"]).mean(0) @ p["w"]

    with pytest.raises(wl.UnknownLimitError, match="differs from head to head"):
        wl.limit(network, lambda n: {**_prior(n), "R": wl.normal((n, n, n), n**-0.5)}, lr="ntk").nngp(*X)


def test_one_parameter_with_two_axes_of_heads_is_refused():
    def network(p, x):
        q, k = jnp.einsum("pc,hcd->hpd", x, p["Q"]), jnp.einsum("pc,dch->hpd", x, p["Q"])
        return jnp.einsum("hpd,hdc->pc", q, p["O"]).mean(0) @ p["w"] + jnp.einsum("hpd,hdc->pc", k, p["V"]).sum()

    def prior(n):
        return {**_prior(n), "V": wl.normal((n, n, n), 1 / n)}

    with pytest.raises(wl.UnknownLimitError):
        wl.limit(network, prior, lr="ntk").nngp(*X)


def _joined_prior(n):
    matrix = wl.normal((D, n * n), D**-0.5)
    return {
        "Q": matrix, "K": matrix, "V": matrix, "QKV": wl.normal((D, 3 * n * n), D**-0.5), "c": wl.normal((n * n,), 0.5),
        "O": wl.normal((n * n, n), 1 / n), "w": wl.normal((n,), n**-0.5),
    }  # fmt: skip


def _joined(p, x, mechanism, way="matrices", after=_identity):
    """Heads as most codes write them: of one matrix each, or of one for all, joined for the output."""
    n = p["w"].shape[0]
    if way == "one matrix":
        q, k, v = jnp.moveaxis((x @ p["QKV"]).reshape(T, 3, n, n), 1, 0)
    elif way == "parameters reshaped":
        q, k, v = (jnp.einsum("pc,chd->phd", x, p[name].reshape(D, n, n)) for name in "QKV")
    else:
        q, k, v = ((x @ p[name]).reshape(T, n, n) for name in "QKV")
    a = mechanism(jnp.einsum("phd,qhd->hpq", q, k) / n**0.5)
    y = jnp.einsum("hpq,qhd->hpd", a, v).transpose(1, 0, 2)
    y = after(y.reshape(T, n * n) + p["c"] if after is not _identity else y.reshape(T, n * n))
    return (y @ p["O"]).mean(0) @ p["w"]


def _joined_limit(mechanism, prior=_joined_prior, **options):
    return wl.limit(functools.partial(_joined, mechanism=mechanism, **options), prior, lr="ntk")


@pytest.mark.parametrize("way", ["matrices", "one matrix", "parameters reshaped"])
def test_heads_joined_by_reshape(way):
    k = _joined_limit(jax.nn.relu, way=way).kernels(*X)
    np.testing.assert_allclose(np.array(k), np.array(_limit(jax.nn.relu).kernels(*X)), rtol=1e-12)


def test_a_function_of_joined_heads():
    def apart(p, x):
        q, k, v = (jnp.einsum("pc,hcd->hpd", x, p[name]) for name in "QKV")
        a = jnp.einsum("hpd,hqd->hpq", q, k) / q.shape[-1] ** 0.5
        y = jax.nn.relu(jnp.einsum("hpq,hqd->hpd", a, v) + p["b"])
        return jnp.einsum("hpd,hdc->pc", y, p["O"]).mean(0) @ p["w"]

    k = _joined_limit(_identity, after=jax.nn.relu).kernels(*X)
    np.testing.assert_allclose(np.array(k), np.array(wl.limit(apart, _prior, lr="ntk").kernels(*X)), rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("after", [_identity, jax.nn.relu], ids=["linear", "relu"])
def test_finite_networks_with_joined_heads(after):
    limit = _joined_limit(jax.nn.relu, way="one matrix", after=after)
    check = limit.check(X, key=jax.random.key(1), widths=(32,), seeds=48)
    assert check.rows[0].nngp_z < 4 and check.rows[0].ntk_z < 4, str(check)


def test_joined_heads_need_the_root_of_both():
    def prior(n):
        return {**_joined_prior(n), "O": wl.normal((n * n, n), n**-0.5)}

    with pytest.raises(wl.UnknownLimitError, match=r"grows with the width"):
        _joined_limit(jax.nn.relu, prior).nngp(*X)


def test_some_of_the_heads_are_refused():
    def network(p, x):
        y = (x @ p["V"]).reshape(T, *2 * p["w"].shape)
        return (y[:, : p["w"].shape[0] // 2].reshape(T, -1) @ p["O"]).mean(0) @ p["w"]

    with pytest.raises(wl.UnknownLimitError, match="some of infinitely many heads"):
        wl.limit(network, lambda n: {**_joined_prior(n), "O": wl.normal((n * n // 2, n), 1 / n)}).nngp(*X)


def test_positions_and_heads_put_together_are_refused():
    def network(p, x):
        return (x @ p["V"]).reshape(T, *2 * p["w"].shape).reshape(-1) @ p["O"] @ p["w"]

    with pytest.raises(wl.UnknownLimitError, match="positions are merged with heads and their channels"):
        wl.limit(network, lambda n: {**_joined_prior(n), "O": wl.normal((T * n * n, n), 1 / n)}, lr="ntk").nngp(*X)


@pytest.mark.parametrize("joined", [True, False])
def test_heads_as_an_output_are_refused(joined):
    def network(p, x):
        y = (x @ p["V"]).reshape(T, *2 * p["w"].shape)
        return y.reshape(T, p["w"].size ** 2) if joined else y

    with pytest.raises(wl.UnknownLimitError, match="the output has an axis of infinitely many heads"):
        wl.limit(network, _joined_prior).nngp(*X)
