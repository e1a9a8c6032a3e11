"""Functions of several preactivations (quasi-Monte Carlo) against the same functions written in closed form."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import D, dense

import widelimit as wl
from widelimit import nn

X = np.random.default_rng(3).normal(size=(3, D))


def _prior(n):
    return {"u": wl.normal((D, n)), "v": wl.normal((D, n), 0.7), "W": wl.normal((n, n)), "o": wl.normal((n, 1))}


def _limit(h, points=4096):
    return wl.limit(lambda p, x: dense(p["o"], h(p, dense(p["u"], x), dense(p["v"], x))), _prior, points=points)


def _tanh_sin(p, u, v):
    return jnp.sin(jnp.tanh(u)) * jnp.cos(v) + jnp.cos(jnp.tanh(u)) * jnp.sin(v)


PAIRS = {
    "maximum": (lambda p, u, v: jnp.maximum(u, v), lambda p, u, v: v + jax.nn.relu(u - v)),
    "where": (lambda p, u, v: jnp.where(u > v, u, v), lambda p, u, v: v + jax.nn.relu(u - v)),
    "sine of a sum": (lambda p, u, v: jnp.sin(jnp.tanh(u) + v), _tanh_sin),
    "shifted": (lambda p, u, v: jnp.sin(jnp.tanh(u) + v + 0.3), lambda p, u, v: _tanh_sin(p, u, v + 0.3)),
    "deeper": (
        lambda p, u, v: jnp.maximum(dense(p["W"], jnp.maximum(u, v)), u),
        lambda p, u, v: u + jax.nn.relu(dense(p["W"], v + jax.nn.relu(u - v)) - u),
    ),
}


_SLOW = ("sine of a sum", "where", "shifted", "deeper")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in _SLOW else ()) for n in PAIRS])
def test_agrees_with_closed_form(name):
    points, share = (2**15, 1e-3) if name in _SLOW else (4096, 4e-3)
    several, closed = (wl.gram(_limit(h, points).kernels, X) for h in PAIRS[name])
    for a, b in zip(several, closed, strict=True):
        assert np.abs(a - b).max() < share * np.abs(b).max()


def test_more_points_are_more_accurate_and_the_error_is_told():
    h, closed = PAIRS["sine of a sum"]
    exact = wl.gram(_limit(closed).nngp, X)
    told, made = [], []
    for points in (512, 2**15):
        limit = _limit(h, points)
        made.append(np.abs(wl.gram(limit.nngp, X) - exact).max() / exact.max())
        told.append(float(re.search(r"standard error.* (\S+)$", limit.explain(X[0]), re.MULTILINE)[1]))
    assert made[1] < made[0] / 10
    assert all(m < 6 * t for m, t in zip(made, told, strict=True)), (made, told)


@pytest.mark.slow
def test_repeated_gates_are_averaged_as_one_function():
    """Two steps of a gated recurrence with one gate matrix, whose factors do not come apart, beside finite networks."""

    def steps(p, u, v):
        h = jnp.tanh(u)
        for _ in range(2):
            z = jax.nn.sigmoid(dense(p["W"], h))
            h = z * h + (1 - z) * jnp.sin(u)
        return h

    limit = _limit(steps)
    assert "function of" in limit.explain(X[0])
    check = limit.check(X[:2], key=jax.random.key(1), widths=(128, 512), seeds=32)
    assert max(check.rows[-1].ntk_z, check.rows[-1].nngp_z) < 4


def test_channels_are_cut_and_joined():
    """Half of the channels of a joint function, and half of a function of it: the mean of the two limits."""

    def h(p, u, v):
        return jnp.maximum(u, v)

    def cut(p, u, v):
        m = h(p, u, v)
        return jnp.concatenate([m, jnp.tanh(m)])[m.size // 2 : 3 * (m.size // 2)]

    whole, other = (wl.gram(_limit(g).kernels, X) for g in (h, lambda p, u, v: jnp.tanh(h(p, u, v))))
    for a, b, c in zip(wl.gram(_limit(cut).kernels, X), whole, other, strict=True):
        np.testing.assert_allclose(a, (b + c) / 2, rtol=1e-6)


def test_bad_points():
    with pytest.raises(ValueError, match="points"):
        wl.limit(lambda p, x: x, _prior, points=0)


def test_dropout_inside_a_nonlinearity_is_refused():
    def f(p, x):
        h = dense(p["u"], x)
        mask = jax.random.bernoulli(jax.random.key(0), 0.5, h.shape)
        return dense(p["o"], jnp.tanh(jnp.where(mask, jnp.tanh(h), 0.0) + dense(p["v"], x)))

    with pytest.raises(wl.UnknownLimitError, match="dropout mask"):
        wl.gram(wl.limit(f, _prior).nngp, X)


def test_points_of_a_module():
    net = nn.Sequential(nn.Dense(4), nn.Tanh(), nn.Residual(nn.Dense(4)), nn.Tanh(), nn.Dense(1))
    few, many, more = (wl.nngp(net, points=p)(X[0], X[1]) for p in (64, 2**13, 2**15))
    assert 0 < abs(many - more) < abs(few - more)
    with pytest.raises(ValueError, match=r"ntk: points must be a positive integer, not 0\."):
        wl.ntk(net, points=0)


@pytest.mark.parametrize("positions", [(), (2,)], ids=["vectors", "positions"])
def test_fields_and_their_sum(positions):
    # h, q and h + 2 q are three fields of two variables; beside 400,000 sampled pairs and their gradients
    def phi(h, q):
        return jnp.maximum(jnp.maximum(h, q), jnp.tanh(h + 2 * q))

    def f(p, x):
        return phi(x @ p["W"], x @ p["V"]) @ p["v"]

    def prior(n):
        return {"W": wl.normal((4, n), 0.5), "V": wl.normal((4, n), 0.5), "v": wl.normal((n,), n**-0.5)}

    x = np.random.default_rng(0).normal(size=(2, *positions, 4))
    limit = wl.limit(f, prior, lr="ntk", output="full" if positions else "mean", points=2**15)
    K, T = (np.asarray(k).ravel()[0] for k in limit.kernels(x[0], x[1]))
    rows = x.reshape(2, -1, 4)[:, 0]
    law = 0.25 * rows @ rows.T
    h, q = np.linalg.cholesky(law) @ np.random.default_rng(1).normal(size=(2, 2, 400_000))
    value, slopes = phi(h, q), jax.vmap(jax.vmap(jax.grad(phi, (0, 1))))(h, q)
    k = np.asarray(value[0] * value[1])
    t = k + law[0, 1] * np.asarray(sum(s[0] * s[1] for s in slopes))
    for found, sampled in ((K, k), (T, t)):
        assert abs(found - sampled.mean()) < 5 * sampled.std() / len(sampled) ** 0.5
