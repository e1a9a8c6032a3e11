"""Loops over time: one step for all pairs of times against the loop written out, and against finite networks."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import widelimit as wl
from widelimit import nn
from widelimit.trace import _loops

X = np.random.default_rng(0).normal(size=(3, 6, 3))
SHORT = np.random.default_rng(1).normal(size=(5, 3))


def prior(n, **more):
    return {
        "W": wl.normal((n, n), 1.2 / n**0.5), "U": wl.normal((3, n), 0.7), "b": wl.normal((n,), 0.3),
        "v": wl.normal((n,), 1 / n**0.5), **more,
    }  # fmt: skip


def states(p, x, phi=jax.nn.relu, names="WUb", **options):
    """The last state and all states of an Elman network."""
    W, U, b = (p[name] for name in names.split()) if " " in names else (p[name] for name in names)

    def step(h, x_t):
        h = phi(h @ W + x_t @ U + b)
        return h, h

    return lax.scan(step, jnp.zeros(b.shape), x, **options)


def last(p, x):
    return states(p, x)[0] @ p["v"]


def mean(p, x):
    return states(p, x)[1].mean(0) @ p["v"]


def tanh_mean(p, x):
    return states(p, x, jnp.tanh)[1].mean(0) @ p["v"]


def stacked(p, x):
    _, first = states(p, x)
    end, second = states(p, first, names="W2 U2 b2", reverse=True)
    return (second.mean(0) + end + first.sum(0)) @ p["v"]


def preactivation(p, x):
    def step(g, x_t):
        g = jnp.tanh(g) @ p["W"] + x_t @ p["U"] + p["b"]
        return g, jnp.tanh(g)

    g, hs = lax.scan(step, p["start"], x)
    return (hs.mean(0) + jnp.tanh(g)) @ p["v"]


def layer_norm(p, x):
    def step(h, x_t):
        g = h @ p["W"] + x_t @ p["U"]
        g = (g - g.mean()) / jnp.sqrt(g.var() + 1e-5)
        h = jax.nn.relu(g + p["b"])
        return h, h

    return lax.scan(step, jnp.zeros(p["b"].shape), x)[1].mean(0) @ p["v"]


def skip(p, x):
    inputs = x @ p["E"]

    def step(h, e):
        h = jax.nn.relu(h @ p["W"] + e @ p["V"] + p["b"])
        return h, h + e

    end, hs = lax.scan(step, jnp.zeros(p["b"].shape), inputs)
    return (hs.mean(0) + end + inputs[0]) @ p["v"]


def inputs_first(p, x):
    """All inputs go through their weights before the loop, as `nn.RNN` has it; they are added to its states too."""
    inputs = x @ p["U"] + p["b"]

    def step(h, z):
        h = jax.nn.relu(h @ p["W"] + z)
        return h, h

    end, hs = lax.scan(step, jnp.zeros(p["b"].shape), inputs)
    return (hs.mean(0) + end + inputs[0]) @ p["v"]


def inputs_weighted_again(p, x):
    """The same weights act on states and inputs, so moments of both at other times are needed."""
    inputs = x @ p["U"]

    def step(h, z):
        h = jax.nn.relu(h @ p["W"] + 0.5 * z @ p["W"] + z)
        return h, h

    return lax.scan(step, jnp.zeros(p["b"].shape), inputs)[1].mean(0) @ p["v"]


def followed(p, x):
    hs = states(p, x)[1]
    return jax.nn.relu(hs @ p["V"]).mean(0) @ p["v"] + jnp.tanh(hs)[2] @ p["v2"]


def tied_directions(p, x):
    return (states(p, x)[1].mean(0) + states(p, x, reverse=True)[1].mean(0)) @ p["v"]


SECOND = {
    "W2": lambda n: wl.normal((n, n), 1.1 / n**0.5), "U2": lambda n: wl.normal((n, n), 0.9 / n**0.5),
    "b2": lambda n: wl.normal((n,), 0.2), "start": lambda n: wl.normal((n,), 0.5), "E": lambda n: wl.normal((3, n)),
    "V": lambda n: wl.normal((n, n), 1 / n**0.5), "v2": lambda n: wl.normal((n,), 1 / n**0.5),
}  # fmt: skip
NETWORKS = [
    (last, ""), (mean, ""), (tanh_mean, ""), (stacked, "W2 U2 b2"), (preactivation, "start"), (layer_norm, ""),
    (skip, "E V"), (inputs_first, ""), (inputs_weighted_again, ""), (followed, "V v2"), (tied_directions, ""),
]  # fmt: skip


def limit_of(f, more=""):
    return wl.limit(f, lambda n: prior(n, **{name: SECOND[name](n) for name in more.split()}), lr="ntk")


_QUICK = (last, mean, preactivation, inputs_first)


@pytest.mark.parametrize(
    ("f", "more"),
    [pytest.param(f, more, marks=() if f in _QUICK else pytest.mark.slow, id=f.__name__) for f, more in NETWORKS],
)
def test_one_step_for_all_times_is_the_loop_written_out(f, more, monkeypatch):
    limit = limit_of(f, more)
    rolled = [np.array(limit.kernels(X[0], X[1])), np.array(limit.kernels.diag(X[0]))]
    monkeypatch.setattr(_loops, "_FEWEST", 1000)
    written = [np.array(limit.kernels(X[0], X[1])), np.array(limit.kernels.diag(X[0]))]
    np.testing.assert_allclose(rolled, written, rtol=1e-11)


@pytest.mark.parametrize("f", [last, mean])
def test_sequences_of_different_lengths(f, monkeypatch):
    limit = limit_of(f)
    rolled = np.array(limit.kernels(X[0], SHORT))
    monkeypatch.setattr(_loops, "_FEWEST", 1000)
    np.testing.assert_allclose(rolled, np.array(limit.kernels(X[0], SHORT)), rtol=1e-11)


def test_the_program_does_not_grow_with_the_steps():
    """All pairs of fifty times: written out they would be tens of thousands of operations."""
    module = wl.limit(nn.Sequential(nn.RNN(8), nn.GlobalAvgPool(), nn.Dense(1)))
    for limit in (limit_of(mean), module):
        counts = [len(jax.make_jaxpr(limit.ntk)(x, x).jaxpr.eqns) for x in (jnp.ones((5, 3)), jnp.ones((50, 3)))]
        assert counts[0] == counts[1]


def test_nearly_equal_sequences_in_float32():
    """The gap is carried along time: else a relu network loses half of the digits there."""
    limit = limit_of(mean)
    x = X[0].astype(np.float32)
    near = (X[0] + 1e-4 * X[1]).astype(np.float32)
    got = np.array(limit.ntk(jnp.asarray(x), jnp.asarray(near)))
    np.testing.assert_allclose(got, limit.ntk(x.astype(float), near.astype(float)), rtol=3e-6)


@pytest.mark.slow
def test_gradient_by_the_sequence():
    limit = limit_of(tanh_mean)
    with jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64():
        x, y, v = map(jnp.asarray, X)
        slope = jax.grad(lambda t: limit.ntk(x + t * v, y))(0.0)
        e = 1e-5
        numerical = (limit.ntk(x + e * v, y) - limit.ntk(x - e * v, y)) / (2 * e)
        np.testing.assert_allclose(slope, numerical, rtol=1e-7)


@pytest.mark.parametrize(
    ("f", "more"), [pytest.param(mean, "", id="mean"), pytest.param(skip, "E V", id="skip", marks=pytest.mark.slow)]
)
def test_finite_networks(f, more):
    check = limit_of(f, more).check(X, key=jax.random.key(3), widths=(64, 256), seeds=16)
    assert check.rows[1].ntk_error < 0.75 * check.rows[0].ntk_error, str(check)
    assert check.rows[-1].ntk_z < 4.5 and check.rows[-1].nngp_z < 4.5, str(check)


def test_a_carried_sum_is_written_out():
    """``h + phi(W h)`` sees its past directly, so that no table over times is exact."""

    def residual(p, x):
        def step(h, x_t):
            h = h + jax.nn.relu(h @ p["W"] + x_t @ p["U"])
            return h, h

        return lax.scan(step, jnp.zeros(p["b"].shape), x)[0] @ p["v"]

    limit = limit_of(residual)
    assert "scan" not in str(jax.make_jaxpr(limit.ntk)(*map(jnp.asarray, X[:2])))
    check = limit.check(X[:2], key=jax.random.key(4), widths=(256,), seeds=16)
    assert check.rows[0].ntk_z < 4.5, str(check)


def test_the_other_direction_after_a_loop_is_refused():
    def f(p, x):
        h, _ = states(p, x)
        return jnp.tanh(h @ p["W"].T) @ p["v"]

    with pytest.raises(wl.UnknownLimitError, match="loop over time is used in the other direction"):
        limit_of(f).ntk(X[0], X[1])


def _lstm_prior(n):
    gates = {name + "W": wl.normal((n, n), n**-0.5) for name in "ifog"}
    return {**gates, **{name + "U": wl.normal((3, n), 3**-0.5) for name in "ifog"}, "v": wl.normal((n,), n**-0.5)}


def _lstm(p, x):
    """Its cell sees its past directly, so that the loop is written out, and its gates with it."""

    def step(state, x_t):
        h, c = state
        i, f, o, g = (h @ p[name + "W"] + x_t @ p[name + "U"] for name in "ifog")
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return (jax.nn.sigmoid(o) * jnp.tanh(c), c), None

    start = jnp.zeros(p["v"].shape)
    return lax.scan(step, (start, start), x)[0][0] @ p["v"]


@pytest.mark.slow
def test_lstm_agrees_with_finite_networks():
    limit = wl.limit(_lstm, _lstm_prior, lr="ntk")
    rows = limit.check(X[:2, :3], key=jax.random.key(1), widths=(64, 512), seeds=24).rows
    assert max(rows[-1].nngp_z, rows[-1].ntk_z) < 4
    assert rows[-1].ntk_error < 0.6 * rows[0].ntk_error


@pytest.mark.slow
def test_the_error_of_an_lstm_is_told():
    told = wl.limit(_lstm, _lstm_prior, lr="ntk").explain(X[0, :2])
    assert re.search(r"function of \d preactivations, quasi-Monte Carlo of 4096 points: standard error", told)
