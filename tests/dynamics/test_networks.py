"""Against training: of linearised networks, which must agree to rounding, and of wide ones, which must come near."""

from __future__ import annotations

import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl
from widelimit import nn

N, M, O = 5, 2, 3
LABELS = jnp.array([0, 2, 1, 1, 0])
NUMBERS = np.array([[0.3, -1.0, 0.2], [1.0, 0.5, 0.0], [-0.4, 0.1, 0.9], [0.0, 0.0, 1.0], [0.7, -0.2, 0.1]])


def half_squares(f):
    return 0.5 * jnp.sum((f - NUMBERS) ** 2)


def cross_entropy(f):
    return -jnp.sum(jax.nn.log_softmax(f)[jnp.arange(N), LABELS])


def logistic(f):
    return jnp.sum(jnp.logaddexp(0.0, -jnp.sign(NUMBERS + 0.01) * f))


LOSSES = {
    "sum": (half_squares, NUMBERS),
    "cross_entropy": (cross_entropy, np.asarray(LABELS)),
    "logistic": (logistic, np.sign(NUMBERS + 0.01)),
}


def network(width):
    return nn.Sequential(nn.Dense(width, W_std=1.5, b_std=0.3), nn.Erf(), nn.Dense(O, W_std=1.5, b_std=0.1))


def inputs():
    rng = np.random.default_rng(3)
    return rng.normal(size=(N, 4)), rng.normal(size=(M, 4))


def trained(f, params, X, total, *, steps, rate, momentum=0.0, ridge=0.0, towards=None):
    """Parameters after plain heavy-ball descent of ``total(f(X)) + ridge/2 |theta - towards|^2``."""
    towards = params if towards is None else towards

    def objective(p):
        square = sum(jnp.sum((a - b) ** 2) for a, b in zip(jax.tree.leaves(p), jax.tree.leaves(towards), strict=True))
        return total(jax.vmap(partial(f, p))(X)) + ridge / 2 * square

    def step(_, state):
        p, v = state
        v = jax.tree.map(lambda v, g: momentum * v - g, v, jax.grad(objective)(p))
        return jax.tree.map(lambda p, v: p + rate * v, p, v), v

    zero = jax.tree.map(jnp.zeros_like, params)
    return jax.jit(lambda p: jax.lax.fori_loop(0, steps, step, (p, zero))[0])(params)


@pytest.fixture
def linear(float64):
    return linearised()


@functools.cache
def linearised():
    """A linearised network in float64, its blocks of kernels and initial outputs."""
    X, X_test = inputs()
    net = network(7)
    params = jax.tree.map(lambda a: a.astype(jnp.float64), net.init(jax.random.key(1), X[0].shape))
    kernel = wl.empirical_ntk(net.apply, params, output="full")
    start = jax.vmap(partial(net.apply, params))

    def along(x):
        return jax.jvp(lambda p: net.apply(p, x), (params,), (params,))[1]

    return {
        "f": wl.linearize(net.apply, params),
        "params": params,
        "X": X,
        "X_test": X_test,
        "K": np.asarray(wl.gram(kernel, X)),
        "K_test": np.asarray(wl.gram(kernel, X_test, X)),
        "f0": start(X),
        "f0_test": start(X_test),
        "radial": jax.vmap(along)(X),
        "radial_test": jax.vmap(along)(X_test),
    }


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    ("momentum", "ridge", "decay_to"),
    [(0.0, 0.0, "start"), (0.0, 0.4, "zero"), (0.7, 0.4, "start"), (0.7, 0.4, "zero")],
)
def test_linearised_networks_with_blocks_of_outputs(linear, loss, momentum, ridge, decay_to):
    total, Y = LOSSES[loss]
    zero = jax.tree.map(jnp.zeros_like, linear["params"]) if decay_to == "zero" else None
    settings = {"steps": 30, "rate": 0.03, "momentum": momentum, "ridge": ridge}
    theta = trained(linear["f"], linear["params"], linear["X"], total, towards=zero, **settings)
    decay = {"ridge": ridge, "decay_to": decay_to, "radial": linear["radial"] if decay_to == "zero" else None}
    F = wl.steps(linear["K"], Y, loss=loss, learning_rate=0.03, momentum=momentum, f0=linear["f0"], **decay)
    on_train = jax.vmap(partial(linear["f"], theta))(linear["X"])
    on_test = jax.vmap(partial(linear["f"], theta))(linear["X_test"])
    assert np.abs(on_train - linear["f0"]).max() > 0.1
    np.testing.assert_allclose(F(30), on_train, atol=1e-10)
    test = (linear["K_test"], linear["f0_test"], *([linear["radial_test"]] if decay_to == "zero" else []))
    np.testing.assert_allclose(F(30, *test), on_test, atol=1e-10)


def drawn(net, seeds):
    return jax.vmap(lambda key: net.init(key, inputs()[0][0].shape))(jax.random.split(jax.random.key(0), seeds))


def mistake(width, loss, K, K_test, **settings):
    """Of the infinite kernel's prediction of a finite network's test outputs, averaged over draws."""
    total, Y = LOSSES[loss]
    X, X_test = (a.astype(np.float32) for a in inputs())
    net = network(width)

    @jax.jit
    @jax.vmap
    def outputs(params):
        theta = trained(net.apply, params, X, total, steps=50, rate=0.03, **settings)
        start = partial(jax.vmap(net.apply, (None, 0)), params)
        return start(X), start(X_test), jax.vmap(partial(net.apply, theta))(X_test)

    errors = []
    for f0, f0_test, out in zip(*outputs(drawn(net, 4)), strict=True):
        F = wl.steps(K, Y, loss=loss, learning_rate=0.03, f0=f0, **settings)
        errors.append(np.square(out - F(50, K_test, f0_test)).mean())
    return np.sqrt(np.mean(errors))


@pytest.fixture(scope="module")
def kernels():
    Theta = wl.gram(wl.ntk(network(1)), np.concatenate(inputs()))
    return Theta[:N, :N], Theta[N:, :N]


@pytest.mark.parametrize(
    ("loss", "settings"),
    [
        ("sum", {}),
        ("cross_entropy", {"momentum": 0.8, "ridge": 0.1}),
        pytest.param("logistic", {}, marks=pytest.mark.slow),
        pytest.param("sum", {"momentum": 0.5, "ridge": 0.3}, marks=pytest.mark.slow),
    ],
)
def test_wide_networks_train_like_their_limit(loss, settings, kernels):
    narrow, wide = (mistake(width, loss, *kernels, **settings) for width in (16, 1024))
    assert wide < narrow / 4  # the root of the width: 1/8


@pytest.mark.parametrize(
    ("settings", "count"),
    [({"momentum": 0.8}, 60), pytest.param({}, 200, marks=pytest.mark.slow)],
)
def test_an_ensemble_of_wide_networks(settings, count):
    """Mean and covariance over initialisations, against 400 networks of width 512 trained by small steps."""
    X, X_test = (a.astype(np.float32) for a in inputs())
    net = nn.Sequential(nn.Dense(512, W_std=1.5, b_std=0.3), nn.Erf(), nn.Dense(1, W_std=1.5, b_std=0.1))
    Y = NUMBERS[:, 0]
    K, Theta = wl.gram(wl.kernels(net), np.concatenate(inputs()))
    blocks = {"nngp_test": K[N:, :N], "nngp_test_test": K[N:, N:]}
    K, Theta, Theta_test = K[:N, :N], Theta[:N, :N], Theta[N:, :N]
    rate = 0.02 * wl.max_learning_rate(Theta)

    @jax.jit
    @jax.vmap
    def outputs(params):
        def total(f):
            return 0.5 * jnp.sum((f[:, 0] - Y) ** 2)

        theta = trained(net.apply, params, X, total, steps=count, rate=rate, **settings)
        return jax.vmap(partial(net.apply, theta))(X_test)[:, 0]

    out = outputs(drawn(net, 400))
    trained_by = {"steps": True, "learning_rate": rate, **settings}
    law = wl.ntk_ensemble(count, Theta, K, Y, ntk_test=Theta_test, **trained_by, **blocks)
    if not settings:  # small steps follow the flow
        flow = wl.ntk_ensemble(count * rate, Theta, K, Y, ntk_test=Theta_test, **blocks)
        np.testing.assert_allclose(flow.covariance, law.covariance, atol=0.02 * law.variance.max())
    # standard errors of 400 draws; finite width adds some per cent
    std = np.sqrt(law.variance)
    assert np.abs((out.mean(0) - law.mean) / std).max() < 4 / 20 + 0.05
    np.testing.assert_allclose(np.cov(out.T), law.covariance, atol=(4 * 2**0.5 / 20 + 0.05) * law.variance.max())
    assert (wl.posterior(K, Y, **blocks).variance < law.variance).all()  # the least of all linear predictors


def mistake_of_signs(width, epochs, Y, seeds, time=1.0):
    """Of `wl.steps` for networks trained by SignGD on one example after the other, as a share of how far they moved.

    The step ``-eta sign(gradient)`` on the absolute loss of example j moves f(x) by ``-eta sign(f_j - y_j) K(x, x_j)``:
    a step of all examples, but for what the others of its epoch change.
    """
    X = np.concatenate(inputs()).astype(np.float32)
    net = nn.Sequential(nn.Dense(width, W_std=1.5, b_std=0.3), nn.Erf(), nn.Dense(1))
    outputs = jax.jit(jax.vmap(lambda params, x: net.apply(params, x)[0], (None, 0)))
    x, y = jnp.asarray(X[:N]), jnp.asarray(Y)

    @jax.jit
    def by_signs(params, rate):
        def step(i, p):
            g = jax.grad(lambda p: jnp.abs(net.apply(p, x[i % N])[0] - y[i % N]))(p)
            return jax.tree.map(lambda p, g: p - rate * jnp.sign(g), p, g)

        return jax.lax.fori_loop(0, epochs * N, step, params)

    kernel = wl.empirical_ntk(net.apply, net.init(jax.random.key(0), X[0].shape), gradients="asymmetric")
    wrong, moved = 0.0, 0.0
    for seed in range(seeds):
        params = net.init(jax.random.key(seed), X[0].shape)
        K, f0 = np.asarray(wl.gram(kernel.at(params), X, X[:N])), np.asarray(outputs(params, X))
        rate = time / K[:N].max() / epochs
        found = np.asarray(outputs(by_signs(params, rate), X))
        F = wl.steps(K[:N], Y, loss=lambda f, y: jnp.abs(f - y), learning_rate=rate, f0=f0[:N], symmetric=False)
        expected = np.concatenate([F(epochs), F(epochs, K[N:], f0[N:])])
        wrong, moved = wrong + np.sum((found - expected) ** 2), moved + np.sum((found - f0) ** 2)
    return (wrong / moved) ** 0.5


def test_sign_descent_of_wide_networks():
    """With targets out of reach, so that no residual changes its sign, only the width counts."""
    far = np.array([50.0, -50.0, 50.0, 50.0, -50.0])
    narrow, wide = (mistake_of_signs(width, 8, far, 1) for width in (16, 1024))
    assert narrow < 0.5 and wide < narrow / 4


@pytest.mark.slow
def test_sign_descent_in_small_steps():
    """Where residuals change their sign the order of the examples counts, the less the smaller the steps."""
    large, small = (mistake_of_signs(4096, epochs, NUMBERS[:, 0], 8) for epochs in (8, 128))
    assert small < large / 4 and small < 0.05  # as the learning rate: 1/16
