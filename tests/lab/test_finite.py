"""Finite networks of the lab against plain JAX."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from widelimit._precision import enable_x64
from widelimit.diagnostics import operator_norm
from widelimit.lab._finite import Rule, Shape, at_start, draw, kernel, output, train

SHAPE = Shape(5, 24, 2, "erf", 1.5, 0.3)


def _points(n=6, d=5, seed=0):
    X = np.random.default_rng(seed).standard_normal((n, d))
    return X * np.sqrt(d) / np.linalg.norm(X, axis=1, keepdims=True)


def _jacobian(shape, params, X):
    J = jax.jacobian(lambda p: output(shape, p, X))(params)
    return jnp.concatenate([a.reshape(len(X), -1) for a in jax.tree.leaves(J)], axis=1)


@pytest.mark.parametrize("activation", ["erf", "relu", "gelu", "tanh", "sin"])
@pytest.mark.parametrize(("depth", "b_std"), [(1, 0.0), (3, 0.2)])
def test_kernel_is_the_contraction_of_jacobians(activation, depth, b_std):
    shape = Shape(5, 16, depth, activation, 1.3, b_std)
    X = _points()
    with enable_x64():
        params = draw(shape, 1, np.float64)
        J = np.asarray(_jacobian(shape, params, jnp.asarray(X)))
        K = np.asarray(kernel(shape, params, jnp.asarray(X), 4))
    np.testing.assert_allclose(K, (J @ J.T)[:, :4], rtol=1e-12, atol=1e-13)


def test_network_equals_the_module_whose_limit_is_used():
    from widelimit.lab._limit import network

    X = _points()
    with enable_x64():
        params = draw(SHAPE, 2, np.float64)
        as_module = []
        for k, (W, b) in enumerate(params):
            as_module += [{"W": jnp.asarray(W), "b": jnp.asarray(b)}] + ([()] if k < SHAPE.depth else [])
        net = network(SHAPE)
        theirs = jax.vmap(net.apply, (None, 0))(tuple(as_module), jnp.asarray(X))[:, 0]
        np.testing.assert_allclose(output(SHAPE, params, jnp.asarray(X)), theirs, rtol=1e-12)


def test_standard_kernel_is_that_of_scaled_parameters():
    X = _points()
    with enable_x64():
        params = draw(SHAPE, 3, np.float64)
        J = jax.jacobian(lambda p: output(SHAPE, p, jnp.asarray(X)))(params)
        K = 0.0
        for (dW, db), fan_in in zip(J, SHAPE.sizes[:-1], strict=True):
            a = dW.reshape(len(X), -1) * np.sqrt(fan_in) / SHAPE.W_std
            b = db.reshape(len(X), -1) / SHAPE.b_std
            K = K + a @ a.T + b @ b.T
    np.testing.assert_allclose(at_start(SHAPE, 3, X).standard, K, rtol=2e-5)


def _descent(X, y, steps, eta, logistic=0.0, decay=0.0, anchor=0.0, alpha=1.0, centre=0.0):
    """The same training, written out in float64 with autodiff only."""
    with enable_x64():
        start = jax.tree.map(jnp.asarray, draw(SHAPE, 4, np.float64))
        X, y = jnp.asarray(X), jnp.asarray(y)
        f0 = output(SHAPE, start, X)

        def loss(p):
            f = alpha * (output(SHAPE, p, X) - centre * f0)
            return jnp.sum(jnp.log1p(jnp.exp(-y * f))) if logistic else 0.5 * jnp.sum((f - y) ** 2)

        params, gradient = start, jax.jit(jax.grad(loss))
        for _ in range(steps):
            params = jax.tree.map(
                lambda p, g, p0: p - eta * (g + decay * (p - anchor * p0)), params, gradient(params), start
            )
        return np.asarray(alpha * (output(SHAPE, params, X) - centre * f0))


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"logistic": 1.0},
        {"decay": 0.02},
        {"decay": 0.02, "anchor": 1.0},
        {"alpha": 3.0, "centre": 1.0},
    ],
)
def test_training_follows_its_rule(change):
    X = _points()
    y = np.array([1.0, -1, 1, -1, 1, -1])
    rule = Rule(rate=0.7, **change)
    r = train(SHAPE, 6, 4, X, y, [0, 5, 15], rule)
    top = np.linalg.eigvalsh(at_start(SHAPE, 4, X).ntk)[-1]
    eta = 0.7 / (rule.alpha**2 * top)
    assert float(r.learning_rate) == pytest.approx(eta, rel=1e-4)
    other = dict(change)
    if "decay" in other:
        other["decay"] = other["decay"] * 0.7 / eta
    expected = _descent(X, y, 20, eta, **other)
    np.testing.assert_allclose(r.record.f[-1], expected, atol=2e-4)


def test_linearised_outputs_and_measures():
    X = _points(9)
    y = np.array([1.0, -1, 1, -1, 1, -1])
    r = train(SHAPE, 6, 4, X, y, [0, 30], Rule(), operators=True)
    f = np.asarray(r.f0)
    for _ in range(30):
        f = f - r.learning_rate * r.K0 @ (f[:6] - y)
    np.testing.assert_allclose(r.record.f_linear[-1], f, atol=1e-4)
    assert r.record.drift[0] == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(r.record.K[0], r.K0[:6], rtol=1e-5)
    moved = np.linalg.norm(r.record.K[-1] - r.K0[:6]) / np.linalg.norm(r.K0[:6])
    assert r.record.drift[-1] == pytest.approx(moved, rel=1e-4)
    assert r.record.lambda_max[0] * r.learning_rate == pytest.approx(1, rel=1e-4)
    assert np.all(r.change_operator <= r.record.change[-1] * (1 + 1e-4))
    assert np.all(r.size_operator <= r.size * (1 + 1e-4))


@pytest.mark.parametrize("size", [(30, 20), (20, 30), (40, 1), (5, 5)])
def test_operator_norm(size):
    A = np.random.default_rng(0).standard_normal(size, np.float32)
    assert operator_norm(A) == pytest.approx(np.linalg.norm(A, 2), rel=1e-3)
    assert operator_norm(0 * A) == 0
    assert np.isnan(operator_norm(np.nan * A))
