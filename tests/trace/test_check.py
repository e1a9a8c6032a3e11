"""`Limit.check` and `wl.monte_carlo`: the limit beside real networks."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

import widelimit as wl
from widelimit import nn

X = np.random.default_rng(0).normal(size=(3, 4))


def mlp(params, x):
    h = jnp.tanh(params["W"] @ x + params["b"])
    return params["v"] @ h / params["v"].size ** 0.5


def prior(n):
    return {"W": wl.normal((n, 4), 0.5), "b": wl.normal(n, 0.3), "v": wl.normal(n, 1.2, lr=0.25)}


def test_check_of_a_function():
    found = wl.limit(mlp, prior).check(X, key=jax.random.key(1), widths=(32, 128, 512), seeds=64)
    assert max(found.rows[-1].nngp_z, found.rows[-1].ntk_z) < 4
    assert found.slope == pytest.approx(-0.5, abs=0.15)
    assert str(found).count("\n") == 4


def test_check_finds_a_wrong_limit():
    limit = wl.limit(mlp, prior)
    limit._mean_kernels = wl.limit(mlp, lambda n: prior(n) | {"v": wl.normal(n, 1.2, lr=0.0)}).kernels
    found = limit.check(X, key=jax.random.key(1), widths=(512,), seeds=32)
    assert found.rows[0].ntk_z > 10
    assert found.rows[0].nngp_z < 4


def test_check_of_an_equinox_builder():
    # without biases: the default ones have variance 1/(3 n), gone in the limit but not at these widths
    limit = wl.limit(
        lambda n, key: eqx.nn.MLP(10, "scalar", n, 1, jax.nn.tanh, use_bias=False, use_final_bias=False, key=key)
    )
    x = np.random.default_rng(1).normal(size=(2, 10))
    found = limit.check(x, key=jax.random.key(2), widths=(64, 256), seeds=32)
    assert max(found.rows[-1].nngp_z, found.rows[-1].ntk_z) < 5
    assert found.rows[1].ntk_error < found.rows[0].ntk_error


def test_monte_carlo_of_a_module():
    net = nn.Sequential(nn.Dense(8, b_std=0.2), nn.Erf(), nn.Dense(1))

    def build(n):
        return nn.Sequential(nn.Dense(n, b_std=0.2), nn.Erf(), nn.Dense(1))

    found = wl.monte_carlo(
        net.apply, lambda n, key: build(n).init(key, (4,)), [256], X, key=jax.random.key(0), seeds=1000
    )[0]
    for mean, error, exact in (
        (found.nngp, found.nngp_error, wl.gram(wl.nngp(net), X)),
        (found.ntk, found.ntk_error, wl.gram(wl.ntk(net), X)),
    ):
        assert mean.shape == (3, 3)
        assert np.max(np.abs(mean - exact) / error) < 4.5


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"widths": [0]}, "positive integers"), ({"widths": []}, "positive integers"),
        ({"widths": [2.5]}, "positive integers"), ({"seeds": 1}, "at least 2"), ({"x": 1.0}, "leading axis"),
    ],
)  # fmt: skip
def test_bad_arguments(arguments, message):
    given = {"widths": [8], "x": X, "seeds": 2} | arguments
    with pytest.raises(ValueError, match=message):
        wl.monte_carlo(mlp, lambda n, key: {}, given["widths"], given["x"], key=jax.random.key(0), seeds=given["seeds"])
    with pytest.raises(TypeError, match="init must be a function"):
        wl.monte_carlo(mlp, 3, [8], X, key=jax.random.key(0))  # type: ignore[arg-type]


def test_a_mask_whose_key_is_fixed_is_shared_by_all_inputs():
    def f(p, x, key=None):
        h = jax.nn.relu(x @ p["in"] / x.size**0.5)
        mask = jax.random.bernoulli(jax.random.key(3) if key is None else key(x), 0.5, h.shape)
        return h * mask / 0.5 @ p["v"] / h.size**0.5

    limit = wl.limit(f, lambda n: {"in": wl.normal((4, n)), "v": wl.normal((n,))})
    bare = nn.Sequential(nn.Dense(64), nn.Relu(), nn.Dense(1))
    dropout = nn.Sequential(nn.Dense(64), nn.Relu(), nn.Dropout(0.5), nn.Dense(1))
    np.testing.assert_allclose(wl.gram(limit.nngp, X), 2 * wl.gram(wl.nngp(bare), X), rtol=1e-12)
    fresh = wl.gram(wl.nngp(bare), X) * (1 + np.eye(3))
    np.testing.assert_allclose(wl.gram(wl.nngp(dropout), X), fresh, rtol=1e-12)
    keyed = wl.limit(
        lambda p, x: f(p, x, lambda x: jax.random.fold_in(jax.random.key(0), x[0].astype(np.uint32))),
        lambda n: {"in": wl.normal((4, n)), "v": wl.normal((n,))},
    )
    with pytest.raises(wl.UnknownLimitError, match="depends on the input"):
        jax.vmap(keyed.nngp)(X, X)


def test_two_kinds_of_mask_from_one_key_are_refused():
    key = jax.random.key(0)

    def f(p, x):
        h = jax.nn.relu(x @ p["in"] / x.size**0.5)
        h = h * (jax.random.bernoulli(key, 0.5, h.shape) + jax.random.bernoulli(key, 0.7, h.shape))
        return h @ p["v"] / h.size**0.5

    limit = wl.limit(f, lambda n: {"in": wl.normal((4, n)), "v": wl.normal((n,))})
    with pytest.raises(wl.UnknownLimitError, match="same random key"):
        limit.nngp(X[0], X[1])


def test_moments_of_a_shifted_kink_are_closed():
    """``E[relu(u + 1/2)] = s n(1/(2 s)) + P/2`` and ``E[step] = P``, P the probability of ``u > -1/2``."""
    x = np.array([1.0, 0.3, -0.2, 0.7])
    s = np.linalg.norm(x)
    P = norm.cdf(0.5 / s)

    def read(f):
        return wl.limit(f, lambda n: {"W": wl.normal((4, n)), "b": wl.normal((4,))}).nngp(x, x) ** 0.5 / s

    found = read(lambda p, x: jax.nn.relu(x @ p["W"] + 0.5).mean() * (x @ p["b"]))
    np.testing.assert_allclose(found, s * norm.pdf(0.5 / s) + 0.5 * P, rtol=1e-13)
    found = read(lambda p, x: (jax.nn.relu(x @ p["W"] + 0.5) * (x @ p["W"])).mean() * (x @ p["b"]))
    np.testing.assert_allclose(found, s**2 * P, rtol=1e-13)


@pytest.mark.parametrize(
    "phi",
    [lambda u, x: jax.nn.selu(u + 0.5), lambda u, x: jnp.maximum(u, x[0]), lambda u, x: jnp.clip(u, -1, x[0] ** 2)],
)
def test_kinks_at_unknown_places_are_refused(phi):
    """A Hermite series would be off by some 1e-3, and say nothing."""
    limit = wl.limit(
        lambda p, x: phi(x @ p["W"], x) @ p["v"] / p["v"].size ** 0.5,
        lambda n: {"W": wl.normal((4, n)), "v": wl.normal((n,))},
    )
    for x, y in ((X[0], X[1]), (X[0], X[0])):
        with pytest.raises(wl.UnknownLimitError, match=r"kink.*wl.monte_carlo"):
            jax.vmap(limit.ntk)(jnp.asarray([x]), jnp.asarray([y]))


def test_check_of_dropout_draws_masks():
    # as many masks as examples and draws; without them the NTK of this network is some 15 % from its limit
    net = nn.Sequential(nn.Dense(64), nn.Relu(), nn.Dropout(0.6), nn.Dense(64), nn.Relu(), nn.Dropout(0.6), nn.Dense(1))
    row = wl.limit(net).check(X, key=jax.random.key(0), widths=(256,), seeds=48).rows[0]
    assert row.nngp_z < 4 and row.ntk_z < 4
