"""Minibatches against every possible choice of them, and against training with many seeds."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl
from widelimit.dynamics import _noise


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    A = rng.normal(size=(6, 9))
    K = A @ A.T / 9
    return K[:4, :4], rng.normal(size=(4, 2)), rng.normal(size=(4, 2)), K[4:, :4], rng.normal(size=(2, 2))


def every_run(K, Y, f0, K_test, f0_test, batch, steps, *, rate, momentum=0.0, ridge=0.0):
    """Outputs (runs, points, outputs) for every sequence of batches: all are equally likely."""
    joint, start, n = np.vstack([K, K_test]), np.vstack([f0, f0_test]), len(K)
    runs = []
    for choice in itertools.product(itertools.combinations(range(n), batch), repeat=steps):
        f, v = start, np.zeros_like(start)
        for picked in choice:
            P = np.isin(np.arange(n), picked)[:, None] * n / batch
            v = momentum * v - joint @ (P * (f[:n] - Y)) - ridge * (f - start)
            f = f + rate * v
        runs.append(f)
    return np.array(runs)


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize(("momentum", "ridge"), [(0.0, 0.0), (0.0, 0.5), (0.6, 0.3)])
def test_mean_and_covariance_over_all_batches(problem, batch, momentum, ridge):
    K, Y, f0, K_test, f0_test = problem
    runs = every_run(K, Y, f0, K_test, f0_test, batch, 4, rate=0.3, momentum=momentum, ridge=ridge)
    F = wl.steps(K, Y, learning_rate=0.3, momentum=momentum, ridge=ridge, f0=f0, batch=batch)
    np.testing.assert_allclose(F(4), runs[:, :4].mean(0), atol=1e-12)
    np.testing.assert_allclose(F(4, K_test, f0_test), runs[:, 4:].mean(0), atol=1e-12)
    for o in range(2):
        np.testing.assert_allclose(F.covariance(4)[..., o], np.cov(runs[:, :4, o].T, bias=True), atol=1e-12)
        on_test = F.covariance([0, 4], K_test)
        np.testing.assert_allclose(on_test[1, ..., o], np.cov(runs[:, 4:, o].T, bias=True), atol=1e-12)
        assert not on_test[0].any()


def test_all_examples_make_no_noise(problem):
    K, Y, *_ = problem
    assert np.abs(wl.steps(K, Y, learning_rate=0.1, batch=4).covariance(10)).max() < 1e-30


def test_blocks_of_outputs(problem):
    K, Y, f0, K_test, _ = problem
    mix = np.array([[1.0, 0.4], [0.4, 0.8]])
    blocks = wl.steps(K[..., None, None] * mix, Y, learning_rate=0.2, f0=f0, batch=2)
    joint = np.kron(K, mix)
    runs = []
    for choice in itertools.product(itertools.combinations(range(4), 2), repeat=3):
        f = f0.reshape(-1)
        for picked in choice:
            P = np.repeat(np.isin(np.arange(4), picked) * 2.0, 2)
            f = f - 0.2 * joint @ (P * (f - Y.reshape(-1)))
        runs.append(f)
    expected = np.cov(np.array(runs).T, bias=True).reshape(4, 2, 4, 2).swapaxes(1, 2)
    np.testing.assert_allclose(blocks(3), np.mean(runs, 0).reshape(4, 2), atol=1e-12)
    np.testing.assert_allclose(blocks.covariance(3), expected, atol=1e-12)
    apart = wl.steps(K[..., None, None] * np.eye(2), Y, learning_rate=0.2, batch=2)
    shared = wl.steps(K, Y, learning_rate=0.2, batch=2)
    np.testing.assert_allclose(
        np.diagonal(apart.covariance(5, K_test[..., None, None] * np.eye(2)), axis1=2, axis2=3),
        shared.covariance(5, K_test),
        atol=1e-12,
    )


def test_training_of_a_linearised_network_with_many_seeds():
    import widelimit.nn as nn

    rng = np.random.default_rng(1)
    X, Y = jnp.asarray(rng.normal(size=(8, 3)), jnp.float32), jnp.asarray(rng.normal(size=8), jnp.float32)
    net = nn.Sequential(nn.Dense(6, W_std=1.5, b_std=0.3), nn.Erf(), nn.Dense(1))
    params = net.init(jax.random.key(0), X[0].shape)
    f = wl.linearize(net.apply, params)
    K = wl.gram(wl.empirical_ntk(net.apply, params), X)
    rate, batch, steps = 0.3 / float(np.linalg.eigvalsh(K)[-1]), 2, 25

    def train(key):
        def step(p, key):
            picked = jax.random.choice(key, 8, (batch,), replace=False)

            def loss(p):
                return 8 / batch * 0.5 * jnp.sum((jax.vmap(lambda x: f(p, x)[0])(X[picked]) - Y[picked]) ** 2)

            return jax.tree.map(lambda p, g: p - rate * g, p, jax.grad(loss)(p)), None

        p = jax.lax.scan(step, params, jax.random.split(key, steps))[0]
        return jax.vmap(lambda x: f(p, x)[0])(X)

    runs = np.asarray(jax.jit(jax.vmap(train))(jax.random.split(jax.random.key(1), 4000)), np.float64)
    f0 = jax.vmap(lambda x: net.apply(params, x)[0])(X)
    F = wl.steps(K, Y, learning_rate=rate, f0=f0, batch=batch)
    variance = np.diag(F.covariance(steps))
    z = (runs.mean(0) - F(steps)) / np.sqrt(variance / 4000)
    assert np.abs(z).max() < 4.5
    np.testing.assert_allclose(runs.var(0), variance, rtol=0.2)  # kurtosis of some 6: 4 standard errors


def every_order(K, Y, f0, K_test, f0_test, batch, steps, *, rate, momentum=0.0, ridge=0.0, zero=False):
    """As `every_run`, for every order of the examples in each epoch; parameters of which outputs are `[K; K_test]`.

    zero: decay to zero of a model linear in its parameters, whose radial derivative is its output.
    """
    joint, start, n = np.vstack([K, K_test]), np.vstack([f0, f0_test]), len(K)
    epochs = [[p[i : i + batch] for i in range(0, n, batch)] for p in itertools.permutations(range(n))]
    runs = []
    for choice in itertools.product(epochs, repeat=-(-steps // len(epochs[0]))):
        f, v = start, np.zeros_like(start)
        for picked in list(itertools.chain(*choice))[:steps]:
            P = np.isin(np.arange(n), picked)[:, None] * n / len(picked)
            v = momentum * v - joint @ (P * (f[:n] - Y)) - ridge * (f - (0 if zero else start))
            f = f + rate * v
        runs.append(f)
    return np.array(runs)


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("settings", [{}, {"ridge": 0.5}, {"momentum": 0.6, "ridge": 0.3, "zero": True}])
def test_runs_of_shuffled_epochs(problem, batch, settings):
    """Each run is one of all that there are, and each of these comes as often as any other."""
    K, Y, f0, K_test, f0_test = problem
    steps = {1: 4, 2: 3, 3: 3}[batch]  # one epoch, one and a half, and one and a half of a large and a small batch
    runs = every_order(K, Y, f0, K_test, f0_test, batch, steps, rate=0.3, **settings)
    zero = "zero" in settings
    decay = {"decay_to": "zero", "radial": f0} if zero else {}
    rest = {name: value for name, value in settings.items() if name != "zero"}
    F = wl.steps(K, Y, learning_rate=0.3, f0=f0, batch=batch, **rest, **decay)
    draws = 2000
    train = F.sample([0, steps], draws=draws, seed=1)
    test = F.sample(steps, K_test, f0_test, f0_test if zero else None, draws=draws, seed=1)
    np.testing.assert_allclose(train[:, 0], np.broadcast_to(f0, (draws, 4, 2)), atol=1e-14)
    found = np.concatenate([train[:, 1], test], axis=1).reshape(draws, -1)
    kinds, sizes = np.unique(np.round(runs.reshape(len(runs), -1), 10), axis=0, return_counts=True)
    gaps = np.abs(found[:, None] - kinds).max(2)
    assert gaps.min(1).max() < 1e-9
    often, expected = np.bincount(gaps.argmin(1), minlength=len(kinds)), draws * sizes / len(runs)
    chi2 = np.sum((often - expected) ** 2 / expected)
    assert chi2 < len(kinds) - 1 + 5 * (2 * len(kinds)) ** 0.5


def test_runs_of_batches_drawn_anew_have_the_moments_that_are_known(problem):
    K, Y, f0, K_test, f0_test = problem
    F = wl.steps(K, Y, learning_rate=0.3, momentum=0.5, f0=f0, batch=2)
    runs = F.sample(9, K_test, f0_test, draws=4000, order="anew")
    C = F.covariance(9, K_test)
    z = (runs.mean(0) - F(9, K_test, f0_test)) / np.sqrt(np.diagonal(C).T / 4000)
    assert np.abs(z).max() < 4
    for o in range(2):
        x = runs[..., o] - F(9, K_test, f0_test)[:, o]
        products = x[:, :, None] * x[:, None, :]
        assert (np.abs(products.mean(0) - C[..., o]) / (products.std(0) / 4000**0.5)).max() < 4
    # shuffled epochs make less noise
    assert (F.sample(8, K_test, f0_test, draws=500).var(0) < np.diagonal(F.covariance(8, K_test)).T / 2).all()


def test_runs_with_blocks_and_without_an_axis_of_outputs(problem):
    K, Y, f0, K_test, f0_test = problem
    shared = wl.steps(K, Y, learning_rate=0.2, f0=f0, batch=3).sample([2, 5], K_test, f0_test, draws=7)
    blocks = wl.steps(K[..., None, None] * np.eye(2), Y, learning_rate=0.2, f0=f0, batch=3)
    apart = blocks.sample([2, 5], K_test[..., None, None] * np.eye(2), f0_test, draws=7)
    assert shared.shape == (7, 2, 2, 2)
    np.testing.assert_allclose(apart, shared, atol=1e-13)
    one = wl.steps(K, Y[:, 0], learning_rate=0.2, f0=f0[:, 0], batch=3).sample([2, 5], K_test, f0_test[:, 0], draws=7)
    np.testing.assert_allclose(one, shared[..., 0], atol=1e-13)


def test_many_runs_are_made_in_pieces(problem, monkeypatch):
    K, Y, *_ = problem
    F = wl.steps(K, Y, learning_rate=0.2, batch=3)
    whole = F.sample(5, draws=7)
    monkeypatch.setattr(_noise, "_NUMBERS_AT_ONCE", 40)
    np.testing.assert_allclose(F.sample(5, draws=7), whole, atol=1e-14)


@pytest.mark.parametrize("batch", [0, 5, 1.5])
def test_bad_batches(problem, batch):
    K, Y, *_ = problem
    with pytest.raises(ValueError, match="batch must be an integer from 1 to the 4"):
        wl.steps(K, Y, learning_rate=0.1, batch=batch)


def test_what_has_no_noise_says_so(problem):
    K, Y, *_ = problem
    with pytest.raises(ValueError, match="batch="):
        wl.steps(K, Y, learning_rate=0.1).covariance(3)
    with pytest.raises(ValueError, match="batch="):
        wl.steps(K, Y, learning_rate=0.1).sample(3)
    F = wl.steps(K, Y, learning_rate=0.1, batch=2)
    with pytest.raises(ValueError, match="order must be"):
        F.sample(3, order="shuffled")
    with pytest.raises(ValueError, match="draws must be"):
        F.sample(3, draws=0)
    with pytest.raises(ValueError, match="squared loss"):
        wl.steps(K, np.sign(Y), loss="logistic", batch=2)
