"""Closed forms against an ODE solver, plain gradient descent and the limits they must have; bad input."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import widelimit as wl
from widelimit.solve import SingularGramWarning


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    A = rng.normal(size=(6, 9))
    K = A @ A.T / 9
    return (
        K,
        rng.normal(size=(6, 2)),
        rng.normal(size=(6, 2)),
        rng.normal(size=(3, 6)),
        rng.normal(size=(3, 2)),
    )


def test_flow_solves_the_ode(problem):
    K, Y, f0, K_test, f0_test = problem
    joint = np.vstack([K, K_test])

    def velocity(t, f):  # df/dt = K (Y - f): the residual decays
        f = f.reshape(-1, 2)
        return (0.3 * joint @ (Y - f[:6])).ravel()

    start = np.vstack([f0, f0_test]).ravel()
    times = [0.0, 0.7, 5.0, 40.0]
    out = solve_ivp(velocity, (0, 40), start, t_eval=times, rtol=1e-11, atol=1e-12, method="DOP853").y.T
    F = wl.flow(K, Y, learning_rate=0.3, f0=f0)
    both = np.concatenate([F(times), F(times, K_test, f0_test)], axis=1)
    np.testing.assert_allclose(both, out.reshape(4, -1, 2), atol=1e-8)


def test_ridge_is_decay_to_the_initial_parameters(problem):
    K, Y, f0, K_test, _ = problem
    F = wl.flow(K, Y, ridge=0.5, f0=f0)
    weights = np.linalg.solve(K + 0.5 * np.eye(6), Y - f0)
    np.testing.assert_allclose(F(np.inf), f0 + K @ weights, atol=1e-12)
    np.testing.assert_allclose(F(np.inf, K_test), K_test @ weights, atol=1e-12)


@pytest.mark.parametrize("step", [0.2, 0.9])
def test_steps_are_gradient_descent(problem, step):
    K, Y, f0, K_test, f0_test = problem
    rate = step * wl.max_learning_rate(K)
    f, g = f0.copy(), f0_test.copy()
    for _ in range(17):
        f, g = f + rate * K @ (Y - f), g + rate * K_test @ (Y - f)
    F = wl.steps(K, Y, learning_rate=rate, f0=f0)
    np.testing.assert_allclose(F(17), f, atol=1e-10)
    np.testing.assert_allclose(F(17, K_test, f0_test), g, atol=1e-10)
    np.testing.assert_allclose(F(np.inf), Y, atol=1e-8)


def test_unstable_steps_warn_and_are_still_right(problem):
    K, Y, f0, *_ = problem
    rate = 1.5 * wl.max_learning_rate(K)
    with pytest.warns(RuntimeWarning, match="diverges"):
        F = wl.steps(K, Y, learning_rate=rate, f0=f0)
    expected = Y + np.linalg.matrix_power(np.eye(6) - rate * K, 5) @ (f0 - Y)
    np.testing.assert_allclose(F(5), expected, rtol=1e-9)
    with pytest.raises(ValueError, match="infinite number of steps"):
        F(np.inf)


def test_mean_loss_divides_by_all_targets(problem):
    K, Y, *_ = problem
    np.testing.assert_allclose(wl.flow(K, Y, loss="mean")(24.0), wl.flow(K, Y)(2.0), atol=1e-13)


def test_singular_gram_gives_the_pseudo_inverse_limit():
    K = np.ones((2, 2))
    with pytest.warns(SingularGramWarning, match="lambda_min"):
        F = wl.flow(K, np.array([1.0, 3.0]))
    np.testing.assert_allclose(F(np.inf), [2.0, 2.0], atol=1e-12)
    np.testing.assert_allclose(F(np.inf, np.array([[0.5, 0.5]])), [1.0], atol=1e-12)
    assert np.all(np.isfinite(F([0.0, 1e300])))


def test_matrices_that_are_not_positive_semidefinite_say_so():
    with pytest.warns(SingularGramWarning, match="not positive semidefinite"):
        F = wl.flow(np.diag([1.0, -0.5]), np.array([1.0, 1.0]))
    np.testing.assert_allclose(F(np.inf), [1.0, 0.0], atol=1e-12)


@pytest.mark.parametrize(
    ("K", "Y", "arguments", "message"),
    [
        (np.eye(3), np.ones(2), {}, "Y must have shape"),
        (np.ones((3, 2)), np.ones(3), {}, "square"),
        (np.array([[1.0, 2.0], [0.0, 1.0]]), np.ones(2), {}, "symmetric"),
        (np.array([[1.0, np.nan], [np.nan, 1.0]]), np.ones(2), {}, "NaN"),
        (np.eye(2), np.array([1.0, np.inf]), {}, "Y holds NaN"),
        (np.eye(2), np.ones(2), {"loss": "mse"}, "loss must be"),
        (np.eye(2), np.ones(2), {"learning_rate": 0.0}, "learning_rate"),
        (np.eye(2), np.ones(2), {"ridge": -1.0}, "ridge"),
        (np.eye(2), np.ones(2), {"f0": np.ones((2, 2))}, "f0 must have the shape"),
    ],
)
def test_bad_input(K, Y, arguments, message):
    with pytest.raises(ValueError, match=message):
        wl.flow(K, Y, **arguments)


def test_types_follow_the_input(problem):
    K, Y, *_ = problem
    assert isinstance(wl.flow(K, Y)(1.0), np.ndarray)
    assert isinstance(wl.flow(jnp.asarray(K), Y)(1.0), jnp.ndarray)
