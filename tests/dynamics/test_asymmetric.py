"""Kernels that are not symmetric, as of descent along signs of gradients: against the descent itself."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import solve_ivp

import widelimit as wl

N, M = 5, 2


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(N + M, 40)) / 40**0.5
    K = features @ np.sign(features[:N]).T / 40**0.5
    return features, K[:N], K[N:], rng.normal(size=(N, 2)), rng.normal(size=40)


@pytest.mark.parametrize("momentum", [0.0, 0.8])
@pytest.mark.parametrize(("ridge", "decay_to"), [(0.0, "start"), (0.4, "start"), (0.4, "zero")])
@pytest.mark.parametrize("loss", ["sum", "logistic"])
def test_steps_along_signs_of_gradients_of_a_linear_model(problem, momentum, ridge, decay_to, loss):
    features, K, K_test, Y, theta_0 = problem
    y, theta, v = np.sign(Y[:, 0]), theta_0, np.zeros(40)
    for _ in range(19):
        f = features[:N] @ theta
        g = f - y if loss == "sum" else -y / (1 + np.exp(y * f))
        v = momentum * v - np.sign(features[:N]).T @ g / 40**0.5 - ridge * (theta - (decay_to == "start") * theta_0)
        theta = theta + 0.1 * v
    f0 = features @ theta_0
    radial = (f0[:N], f0[N:]) if decay_to == "zero" else (None, None)
    settings = {"momentum": momentum, "ridge": ridge, "decay_to": decay_to, "radial": radial[0]}
    F = wl.steps(K, y, loss=loss, learning_rate=0.1, f0=f0[:N], symmetric=False, **settings)
    np.testing.assert_allclose(F(19), features[:N] @ theta, atol=1e-11)
    np.testing.assert_allclose(F(19, K_test, f0[N:], radial[1]), features[N:] @ theta, atol=1e-11)


@pytest.mark.parametrize("momentum", [0.0, 0.8])
@pytest.mark.parametrize("ridge", [0.0, 0.2])
def test_flow_solves_the_ode(problem, momentum, ridge):
    _, K, K_test, Y, _ = problem
    joint = np.vstack([K, K_test])

    def velocity(t, state):
        f, u = state.reshape(2, N + M, 2)
        force = -0.5 * (joint @ (f[:N] - Y) + ridge * f)
        return np.stack([u, force - (1 - momentum) * u] if momentum else [force, u]).ravel()

    times = [0.0, 0.4, 3.0, 30.0]
    out = solve_ivp(velocity, (0, 30), np.zeros(4 * (N + M)), t_eval=times, rtol=1e-11, atol=1e-12, method="DOP853")
    F = wl.flow(K, Y, learning_rate=0.5, momentum=momentum, ridge=ridge, symmetric=False)
    both = np.concatenate([F(times), F(times, K_test)], axis=1)
    np.testing.assert_allclose(both, out.y.T.reshape(4, 2, N + M, 2)[:, 0], atol=1e-8)


def test_symmetric_kernels_come_out_as_ever(problem):
    features, _, _, Y, _ = problem
    K, K_test = features[:N] @ features[:N].T, features[N:] @ features[:N].T
    for make in (wl.flow, wl.steps):
        for settings in ({}, {"momentum": 0.5}, {"ridge": 0.1, "decay_to": "zero", "radial": Y**2, "momentum": 0.5}):
            test = (K_test, None, Y[:M]) if "radial" in settings else (K_test,)
            plain, other = (make(K, Y, symmetric=s, **settings) for s in (True, False))
            times = [0, 1, 7, 100, np.inf]
            np.testing.assert_allclose(other(times), plain(times), atol=1e-9)
            np.testing.assert_allclose(other(times, *test), plain(times, *test), atol=1e-9)


def test_infinite_time(problem):
    _, K, K_test, Y, _ = problem
    assert np.linalg.eigvals(K).real.min() > 0
    F = wl.flow(K, Y, symmetric=False)
    np.testing.assert_allclose(F(np.inf, K_test), K_test @ np.linalg.solve(K, Y), atol=1e-10)
    rotation = np.array([[0.0, 1.0], [-1.0, 0.0]])
    with pytest.raises(ValueError, match="has no limit"):
        wl.flow(rotation, np.ones(2), symmetric=False)(np.inf)
    assert np.isfinite(wl.flow(rotation, np.ones(2), symmetric=False)(100.0)).all()
    with pytest.raises(ValueError, match="symmetric"):
        wl.flow(K, Y)


def test_max_learning_rate(problem):
    _, K, _, Y, _ = problem
    top = wl.max_learning_rate(K, symmetric=False)
    late = [np.abs(wl.steps(K, Y, learning_rate=c * top, symmetric=False)(4000)).max() for c in (0.98, 1.02)]
    assert late[0] < 100 < 1e6 < late[1]
    rotation = np.array([[0.0, 1.0], [-1.0, 0.0]])
    assert wl.max_learning_rate(rotation, symmetric=False) == 0
    np.testing.assert_allclose(wl.max_learning_rate(K + K.T, symmetric=False), wl.max_learning_rate(K + K.T))
