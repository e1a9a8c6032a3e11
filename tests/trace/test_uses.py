"""One parameter in several roles: both directions, with a mean, as vector and matrix; what has no limit is refused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl

X = np.random.default_rng(5).normal(size=(3, 4))


def _dense(W, h):
    return h @ W / np.sqrt(W.shape[0])


def _prior(n):
    return {"u": wl.normal((4, n)), "W": wl.normal((n, n)), "V": wl.normal((n, n)), "o": wl.normal((n, 1))}


def _network(body):
    return wl.limit(lambda p, x: _dense(p["o"], body(p, jax.nn.relu(_dense(p["u"], x)))), _prior)


def test_a_matrix_and_its_transpose_have_the_law_of_wishart():
    """``W^T W h / n``: by free probability ``E[z z'] = 2 E[h h']``, and each of the two uses adds ``E[h h']`` to T."""
    tied = wl.gram(_network(lambda p, h: _dense(p["W"].T, _dense(p["W"], h))).kernels, X)
    below = wl.gram(_network(lambda p, h: h).kernels, X)  # adds its own readout: T = T_h + K_h
    np.testing.assert_allclose(tied.nngp, 2 * below.nngp, rtol=1e-13)
    np.testing.assert_allclose(tied.ntk, 2 * (below.ntk - below.nngp) + 4 * below.nngp, rtol=1e-13)


TIED = {
    "nonlinear": lambda p, h: jnp.tanh(_dense(p["W"].T, jnp.tanh(_dense(p["W"], h)))),
    "three times": lambda p, h: jnp.tanh(
        _dense(p["W"], jnp.tanh(_dense(p["W"].T, jax.nn.relu(_dense(p["W"], h))) + h))
    ),
    "gated": lambda p, h: jnp.tanh(_dense(p["W"].T, _dense(p["W"], h) * jax.nn.sigmoid(_dense(p["V"], h)))),
    "another between": lambda p, h: jnp.tanh(_dense(p["W"].T, jnp.tanh(_dense(p["V"], jnp.tanh(_dense(p["W"], h)))))),
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n == "gated" else ()) for n in TIED])
def test_both_directions_agree_with_finite_networks(name):
    check = _network(TIED[name]).check(X[:2], key=jax.random.key(1), widths=(128, 768), seeds=24)
    assert max(check.rows[-1].nngp_z, check.rows[-1].ntk_z) < 4
    assert check.rows[-1].ntk_error < 0.6 * check.rows[0].ntk_error


@pytest.mark.slow
def test_both_directions_at_several_positions():
    """The transposed matrix sees the values of neighbours, and Onsager's term those of neighbours' inputs."""

    def body(p, x):
        h = jax.nn.relu(_dense(p["u"], x))
        y = jnp.roll(jnp.tanh(_dense(p["W"], h)), 1, axis=0) + jnp.tanh(_dense(p["W"], h))
        return (jnp.arange(3.0) @ _dense(p["o"], _dense(p["W"].T, y))[:, 0])[None]

    x = np.random.default_rng(6).normal(size=(2, 3, 4))
    check = wl.limit(body, _prior).check(x, key=jax.random.key(2), widths=(768,), seeds=24)
    assert max(check.rows[-1].nngp_z, check.rows[-1].ntk_z) < 4


def test_the_mean_of_a_matrix_counts():
    def prior(n):
        return {**_prior(n), "W": wl.normal((n, n), mean=n**-0.5)}

    limit = wl.limit(lambda p, x: _dense(p["o"], jnp.tanh(_dense(p["W"], jax.nn.relu(_dense(p["u"], x))))), prior)
    check = limit.check(X[:2], key=jax.random.key(3), widths=(768,), seeds=24)
    assert max(check.rows[-1].nngp_z, check.rows[-1].ntk_z) < 4
    centred = _network(lambda p, h: jnp.tanh(_dense(p["W"], h)))
    assert np.abs(limit.nngp(X[0], X[1]) / centred.nngp(X[0], X[1]) - 1) > 0.1


REFUSED = {
    "a sum of matrices": (lambda p, h: _dense(p["W"] + p["V"], h), "two wide axes is used entry by entry"),
    "a function of a matrix": (lambda p, h: _dense(jnp.tanh(p["W"]), h), "two wide axes is used entry by entry"),
    "a tied vector": (lambda p, h: jnp.outer(jnp.tanh(p["o"][:, 0] * h) @ p["o"], h)[0], "vector over channels"),
    "a column of a matrix": (lambda p, h: (h @ p["V"][:, :1]) ** 2 * h, "cut out of a wide axis"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    body, words = REFUSED[name]
    with pytest.raises(wl.UnknownLimitError, match=words):
        _network(body).nngp(X[0], X[1])


def test_narrow_layers_and_products_of_outputs_are_refused():
    def prior(n):
        return {"a": wl.normal((4, 3)), "b": wl.normal((3, n)), "o": wl.normal((n, 1))}

    narrow = wl.limit(lambda p, x: _dense(p["o"], jnp.tanh(_dense(p["b"], _dense(p["a"], x)))), prior)
    with pytest.raises(wl.UnknownLimitError, match=r"narrow layer.*as wide as the others"):
        narrow.ntk(X[0], X[1])
    with pytest.raises(wl.UnknownLimitError, match="nonlinear function of a random value without a wide axis"):
        wl.limit(lambda p, x: _dense(p["o"], _dense(p["b"], x[:3])) * _dense(p["a"], x)[:1], prior).nngp(X[0], X[1])


def test_a_mean_that_does_not_fade_with_the_width_is_refused():
    def prior(n):
        return {**_prior(n), "o": wl.normal((n, 1), mean=1.0)}

    limit = wl.limit(lambda p, x: _dense(p["o"], jax.nn.relu(_dense(p["u"], x))), prior)
    with pytest.raises(wl.UnknownLimitError, match=r"grows with the width, as width\^\(1/2\)"):
        limit.nngp(X[0], X[1])


@pytest.mark.parametrize("by", ["index", "scan"])
def test_entries_of_a_stacked_weight_are_weights(by):
    """``W[i]``, and layers scanned over: the same as a parameter for each."""

    def stacked(p, x):
        h = jnp.tanh(x @ p["A"])
        if by == "scan":
            h, _ = jax.lax.scan(lambda h, W: (jnp.tanh(h @ W), None), h, p["B"])
        else:
            h = jnp.tanh(jnp.tanh(h @ p["B"][0]) @ p["B"][1])
        return h @ p["v"]

    def apart(p, x):
        return jnp.tanh(jnp.tanh(jnp.tanh(x @ p["A"]) @ p["B"]) @ p["C"]) @ p["v"]

    def prior(n, **more):
        return {"A": wl.normal((3, n)), "v": wl.normal((n,), 1 / n**0.5), **more}

    x, y = np.random.default_rng(0).normal(size=(2, 3))
    one = wl.limit(stacked, lambda n: prior(n, B=wl.normal((2, n, n), 1 / n**0.5)), lr="ntk")
    two = wl.limit(
        apart, lambda n: prior(n, B=wl.normal((n, n), 1 / n**0.5), C=wl.normal((n, n), 1 / n**0.5)), lr="ntk"
    )
    np.testing.assert_allclose(np.array(one.kernels(x, y)), np.array(two.kernels(x, y)), rtol=1e-12)


ROLES = {
    "rows and their sum": lambda W, x: jnp.einsum("ik,ikc->c", x, W) + jnp.einsum("ik,ikc->ic", x, W).sum(0),
    "either axis": lambda W, x: jnp.einsum("ik,ikc->kc", x, W).sum(0) + jnp.einsum("ik,ikc->ic", x, W).sum(0),
    "entries and rows": lambda W, x: W.sum((0, 1)) + jnp.einsum("ik,ikc->c", x, W),
    "rows and entries": lambda W, x: jnp.einsum("ik,ikc->c", x, W) + W.sum((0, 1)),
}


@pytest.mark.parametrize("name", ROLES)
def test_entries_that_meet_in_different_ways_are_refused(name):
    # the same entries of a parameter, told apart by axes that are contracted in one place and left in another
    limit = wl.limit(
        lambda p, x: ROLES[name](p["W"], x) @ p["r"],
        lambda n: {"W": wl.normal((4, 4, n)), "r": wl.normal((n,), n**-0.5)},
    )
    with pytest.raises(wl.UnknownLimitError, match=r"which of its entries meet|one parameter is used as a vector"):
        limit.nngp(np.eye(4), np.ones((4, 4)))
