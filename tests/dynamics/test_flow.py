"""Closed forms against an ODE solver, plain gradient descent and the limits they must have; bad input."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import widelimit as wl
from widelimit.dynamics import _integrate
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


def test_momentum_flow_solves_the_ode(problem):
    K, Y, f0, K_test, f0_test = problem
    joint = np.vstack([K, K_test])

    def velocity(t, state):
        f, v = state.reshape(2, 9, 2)
        return np.stack([0.3 * v, -(1 - 0.7) * v - joint @ (f[:6] - Y) - 0.2 * (f - np.vstack([f0, f0_test]))]).ravel()

    times = [0.0, 0.7, 5.0, 60.0]
    start = np.concatenate([f0, f0_test, np.zeros((9, 2))]).ravel()
    out = solve_ivp(velocity, (0, 60), start, t_eval=times, rtol=1e-11, atol=1e-12, method="DOP853").y.T
    F = wl.flow(K, Y, learning_rate=0.3, momentum=0.7, ridge=0.2, f0=f0)
    both = np.concatenate([F(times), F(times, K_test, f0_test)], axis=1)
    np.testing.assert_allclose(both, out.reshape(4, 2, 9, 2)[:, 0], atol=1e-8)


def test_decay_to_zero_solves_the_ode_and_forgets_the_start(problem):
    K, Y, f0, K_test, f0_test = problem
    radial, radial_test = 2 * f0 + 1, 2 * f0_test + 1  # any: how outputs grow with the parameters
    joint, h = np.vstack([K, K_test]), np.vstack([radial, radial_test])

    def velocity(t, state):  # theta' = -(J^T (f - Y) + r theta), of which J sees f, and J theta_0 = h
        f, left = state[:-1].reshape(9, 2), state[-1]
        pulled = f - np.vstack([f0, f0_test]) - (left - 1) * h  # Theta alpha
        return np.r_[-(joint @ (f[:6] - Y) + 0.2 * (pulled + left * h)).ravel(), -0.2 * left]

    times = [0.0, 0.7, 5.0, 30.0]
    start = np.r_[np.vstack([f0, f0_test]).ravel(), 1.0]
    out = solve_ivp(velocity, (0, 30), start, t_eval=times, rtol=1e-11, atol=1e-12, method="DOP853").y.T[:, :-1]
    F = wl.flow(K, Y, ridge=0.2, f0=f0, decay_to="zero", radial=radial)
    both = np.concatenate([F(times), F(times, K_test, f0_test, radial_test)], axis=1)
    np.testing.assert_allclose(both, out.reshape(4, 9, 2), atol=1e-8)
    # a model linear in its parameters ends at ridge regression, wherever it starts
    G = wl.flow(K, Y, ridge=0.2, f0=f0, decay_to="zero", radial=f0)
    np.testing.assert_allclose(
        G(np.inf, K_test, f0_test, f0_test), K_test @ np.linalg.solve(K + 0.2 * np.eye(6), Y), atol=1e-12
    )


def test_blocks_of_outputs_are_one_kernel_where_outputs_are_apart(problem):
    K, Y, f0, K_test, f0_test = problem
    for make, t in ((wl.flow, [0.5, np.inf]), (wl.steps, [3, 40])):
        shared = make(K, Y, learning_rate=0.2, f0=f0)
        blocks = make(K[..., None, None] * np.eye(2), Y, learning_rate=0.2, f0=f0)
        np.testing.assert_allclose(blocks(t), shared(t), atol=1e-12)
        blocks_test = K_test[..., None, None] * np.eye(2)
        np.testing.assert_allclose(blocks(t, blocks_test, f0_test), shared(t, K_test, f0_test), atol=1e-12)
        with pytest.raises(ValueError, match=r"K_test must have shape \(m, 6, 2, 2\)"):
            blocks(1, K_test)
    with pytest.raises(ValueError, match="blocks of 3 outputs"):
        wl.flow(K[..., None, None] * np.eye(3), Y)
    with pytest.raises(ValueError, match="n, n, outputs, outputs"):
        wl.flow(K[..., None, None] * np.ones((2, 3)), Y)


def test_test_arguments_go_together(problem):
    K, Y, f0, K_test, f0_test = problem
    F = wl.flow(K, Y, f0=f0)
    with pytest.raises(ValueError, match="without K_test"):
        F(1.0, f0_test=f0_test)
    with pytest.raises(ValueError, match="radial_test"):
        F(1.0, K_test, f0_test, f0_test)
    with pytest.raises(ValueError, match="f0_test must have shape"):
        F(1.0, K_test, f0_test[:, 0])
    with pytest.raises(ValueError, match="Y_test"):
        F.loss(1.0, K_test)
    with pytest.raises(ValueError, match="radial_test"):
        wl.flow(K, Y, f0=f0, ridge=0.1, decay_to="zero", radial=f0)(1.0, K_test, f0_test)


def test_max_learning_rate_is_where_training_diverges(problem):
    K, Y, *_ = problem
    for momentum, ridge in ((0.0, 0.5), (0.8, 0.0), (0.8, 0.5)):
        top = wl.max_learning_rate(K, momentum=momentum, ridge=ridge)
        below = wl.steps(K, Y, learning_rate=0.99 * top, momentum=momentum, ridge=ridge)(3000)
        with pytest.warns(RuntimeWarning, match="diverges"):
            above = wl.steps(K, Y, learning_rate=1.01 * top, momentum=momentum, ridge=ridge)(3000)
        assert np.abs(below).max() < 10 and np.abs(above).max() > 1e6


@pytest.mark.filterwarnings("ignore::widelimit.solve.SingularGramWarning")  # one point with both labels
@pytest.mark.parametrize(
    ("loss", "K", "Y", "f0"),
    [
        ("cross_entropy", np.array([[2.0]]), np.array([[0.5, 0.5]]), np.array([[1e-3, -1e-3]])),
        ("logistic", np.ones((2, 2)), np.array([1.0, -1.0]), np.array([1e-3, 1e-3])),
    ],
)
def test_max_learning_rate_of_other_losses(loss, K, Y, f0):
    """Where the best outputs are undecided, the curvature of the loss is the largest there is."""
    top = wl.max_learning_rate(K, loss=loss)
    near, far = (wl.steps(K, Y, loss=loss, learning_rate=c * top, f0=f0)(500) for c in (0.98, 1.02))
    start, near, far = (np.abs(np.sum(f * np.sign(f0))) for f in (f0, near, far))
    assert near < 0.1 * start and far > 10 * start
    with pytest.raises(ValueError, match="loss must be one of"):
        wl.max_learning_rate(K, loss="hinge")


def test_ensembles_are_of_the_squared_loss(problem):
    K, Y, *_ = problem
    blocks = {"ntk_test": K[:2], "nngp_test": K[:2], "nngp_test_test": K[:2, :2]}
    with pytest.raises(ValueError, match="squared loss"):
        wl.ntk_ensemble(1.0, K, K, np.sign(Y), loss="logistic", **blocks)


def test_many_unknowns_go_without_a_jacobian(problem, monkeypatch):
    K, Y, f0, K_test, f0_test = problem
    dense = wl.flow(K, np.sign(Y), loss="logistic", f0=f0, momentum=0.5)(7.0, K_test, f0_test)
    monkeypatch.setattr(_integrate, "_DENSE", 3)
    other = wl.flow(K, np.sign(Y), loss="logistic", f0=f0, momentum=0.5)(7.0, K_test, f0_test)
    np.testing.assert_allclose(other, dense, atol=1e-8)
