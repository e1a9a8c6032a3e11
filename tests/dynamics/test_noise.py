"""Minibatches against every possible choice of them, and against training with many seeds."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl


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


@pytest.mark.parametrize("batch", [0, 5, 1.5])
def test_bad_batches(problem, batch):
    K, Y, *_ = problem
    with pytest.raises(ValueError, match="batch must be an integer from 1 to the 4"):
        wl.steps(K, Y, learning_rate=0.1, batch=batch)


def test_what_has_no_noise_says_so(problem):
    K, Y, *_ = problem
    with pytest.raises(ValueError, match="batch="):
        wl.steps(K, Y, learning_rate=0.1).covariance(3)
    with pytest.raises(ValueError, match="squared loss"):
        wl.steps(K, np.sign(Y), loss="logistic", batch=2)
