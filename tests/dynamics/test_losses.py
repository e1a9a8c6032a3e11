"""Losses other than the squared one: against ODEs and gradient descent written out, and the minimum they must reach."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.optimize import minimize
from scipy.special import expit, logsumexp, softmax

import widelimit as wl
from widelimit.solve import SingularGramWarning

N, M, O = 6, 3, 3
LABELS = np.array([0, 2, 1, 1, 0, 2])
SIGNS = np.array([[1.0, -1.0, 1.0], [-1.0, 1.0, 1.0]] * 3)


def softmax_gradient(f):
    return softmax(f, axis=-1) - np.eye(O)[LABELS]


def logistic_gradient(f):
    return -SIGNS * expit(-SIGNS * f)


def huber(f, y):
    return jnp.sum(jnp.sqrt(1 + (f - y) ** 2))


def huber_gradient(f):
    return (f - SIGNS) / np.sqrt(1 + (f - SIGNS) ** 2)


CASES = {
    "cross_entropy": ("cross_entropy", LABELS, softmax_gradient),
    "one-hot": ("cross_entropy", np.eye(O)[LABELS], softmax_gradient),
    "logistic": ("logistic", SIGNS, logistic_gradient),
    "function": (huber, SIGNS, huber_gradient),
}


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    A = rng.normal(size=(N + M, 9))
    K = A @ A.T / 9
    return K[:N, :N], K[N:, :N], rng.normal(size=(N, O)), rng.normal(size=(M, O))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_flow_solves_the_ode(problem, case, ridge):
    K, K_test, f0, f0_test = problem
    loss, Y, gradient = CASES[case]
    joint, start = np.vstack([K, K_test]), np.vstack([f0, f0_test])

    def velocity(t, f):
        f = f.reshape(-1, O)
        return -0.7 * (joint @ gradient(f[:N]) + ridge * (f - start)).ravel()

    times = [0.0, 0.7, 5.0, 40.0]
    out = solve_ivp(velocity, (0, 40), start.ravel(), t_eval=times, rtol=1e-11, atol=1e-12, method="DOP853").y.T
    F = wl.flow(K, Y, loss=loss, learning_rate=0.7, f0=f0, ridge=ridge)
    both = np.concatenate([F(times), F(times, K_test, f0_test)], axis=1)
    np.testing.assert_allclose(both, out.reshape(4, -1, O), atol=1e-8)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_steps_are_gradient_descent(problem, case, momentum):
    K, K_test, f0, f0_test = problem
    loss, Y, gradient = CASES[case]
    joint, f, velocity = np.vstack([K, K_test]), np.vstack([f0, f0_test]), np.zeros((N + M, O))
    for _ in range(23):
        velocity = momentum * velocity - joint @ gradient(f[:N])
        f = f + 0.4 * velocity
    F = wl.steps(K, Y, loss=loss, learning_rate=0.4, momentum=momentum, f0=f0)
    np.testing.assert_allclose(F(23), f[:N], atol=1e-12)
    np.testing.assert_allclose(F([3, 23], K_test, f0_test)[1], f[N:], atol=1e-12)


def test_small_steps_follow_the_flow_with_and_without_momentum(problem):
    K, _, f0, _ = problem
    for momentum in (0.0, 0.99):
        # heavy ball of momentum m in small steps: friction 1 - m, force eta, both of one step
        gap = []
        for h in (1.0, 0.5):
            m, eta = 1 - h * (1 - momentum), 0.001 * h * (h if momentum else 1.0)
            settings = {"loss": "cross_entropy", "f0": f0}
            walked = wl.steps(K, LABELS, learning_rate=eta, momentum=m if momentum else 0.0, **settings)(int(400 / h))
            flown = wl.flow(K, LABELS, learning_rate=0.001, momentum=momentum, **settings)(400.0)
            gap.append(np.abs(walked - flown).max())
        assert gap[0] < 0.02
        assert 0.4 < gap[1] / gap[0] < 0.6  # first order in the step


@pytest.mark.parametrize("case", ["cross_entropy", "logistic"])
def test_infinite_time_with_a_ridge_is_the_minimum(problem, case):
    K, K_test, f0, f0_test = problem
    loss, Y, gradient = CASES[case]
    value = {
        "cross_entropy": lambda f: np.sum(logsumexp(f, axis=1) - f[np.arange(N), LABELS]),
        "logistic": lambda f: np.sum(np.logaddexp(0, -SIGNS * f)),
    }[case]

    def energy(alpha):
        alpha = alpha.reshape(N, O)
        return value(f0 + K @ alpha) + 0.05 * np.sum(alpha * (K @ alpha))

    F = wl.flow(K, Y, loss=loss, f0=f0, ridge=0.1)
    f = F(np.inf)
    alpha = -gradient(f) / 0.1  # stationary: gradient + ridge alpha = 0
    np.testing.assert_allclose(f, f0 + K @ alpha, atol=1e-10)
    np.testing.assert_allclose(F(np.inf, K_test, f0_test), f0_test + K_test @ alpha, atol=1e-10)
    assert energy(alpha) <= minimize(energy, np.zeros(N * O)).fun + 1e-9
    np.testing.assert_allclose(F(300.0), f, atol=1e-6)
    np.testing.assert_allclose(wl.steps(K, Y, loss=loss, f0=f0, ridge=0.1)([300, np.inf])[1], f, atol=1e-12)


def test_singular_grams_learn_what_they_can():
    K = np.ones((2, 2))  # one direction
    with pytest.warns(SingularGramWarning):
        F = wl.flow(K, np.array([1.0, -1.0]), loss="logistic", f0=np.array([0.5, 0.0]))
    f = F(50.0)
    np.testing.assert_allclose(f[0] - f[1], 0.5, atol=1e-12)  # never moves
    np.testing.assert_allclose(f, [0.25, -0.25], atol=1e-6)


def test_learning_curves(problem):
    K, K_test, f0, f0_test = problem
    F = wl.flow(K, LABELS, loss="cross_entropy", f0=f0)
    f = F(2.0)
    expected = -np.log(softmax(f, axis=1)[np.arange(N), LABELS]).sum()
    np.testing.assert_allclose(F.loss([0.0, 2.0])[1], expected, rtol=1e-12)
    on_test = -np.log(softmax(F(2.0, K_test, f0_test), axis=1)[np.arange(M), [0, 1, 2]]).sum()
    np.testing.assert_allclose(F.loss(2.0, K_test, f0_test, Y_test=[0, 1, 2]), on_test, rtol=1e-12)
    squared = wl.flow(K, f0, loss="mean")
    np.testing.assert_allclose(squared.loss(1.0), ((squared(1.0) - f0) ** 2).mean() / 2, rtol=1e-12)


def test_unfinished_training_says_so(problem):
    K, *_ = problem
    with pytest.raises(ValueError, match="t must be finite"):
        wl.flow(K, LABELS, loss="cross_entropy")(np.inf)
    with pytest.raises(ValueError, match="may do so"):
        wl.steps(K, LABELS, loss="cross_entropy", ridge=0.1, learning_rate=100.0)(np.inf)


def test_losses_with_kinks_end_with_an_error_or_by_steps(problem):
    K, *_ = problem
    with pytest.raises(RuntimeError, match="continuous gradient"):
        wl.flow(K, SIGNS[:, 0], loss=lambda f, y: abs(f - y))(20.0)
    f = wl.steps(K, SIGNS[:, 0], loss=lambda f, y: abs(f - y), learning_rate=1e-3)(20_000)
    np.testing.assert_allclose(f, SIGNS[:, 0], atol=0.02)


@pytest.mark.parametrize(
    ("loss", "Y", "arguments", "message"),
    [
        ("hinge", SIGNS, {}, "loss must be"),
        ("cross_entropy", np.array([0.0, 1, 2, 1, 1, 0]), {}, "class numbers"),
        ("cross_entropy", LABELS - 1, {}, "class numbers"),
        ("cross_entropy", -SIGNS, {}, "probabilities"),
        ("cross_entropy", LABELS, {"f0": np.zeros((N, 2))}, "holds class 2"),
        ("cross_entropy", LABELS[:3], {}, "Y must have shape"),
        ("logistic", (SIGNS + 1) / 2, {}, r"2 \* Y - 1"),
        (lambda f, y: f - y, SIGNS, {}, "one number"),
        (lambda f, y: f[y], LABELS, {}, "failed for one example"),
        (huber, SIGNS[:4], {}, "Y must have 6 rows"),
        ("cross_entropy", LABELS, {"momentum": 1.0}, "momentum"),
        ("sum", SIGNS, {"decay_to": "zero"}, "ridge > 0"),
        ("sum", SIGNS, {"decay_to": "zero", "ridge": 1.0}, "jax.jvp"),
        ("sum", SIGNS, {"ridge": 1.0, "radial": SIGNS}, "radial is given"),
        ("sum", SIGNS, {"decay_to": "origin"}, "decay_to must be"),
    ],
)
def test_bad_input(problem, loss, Y, arguments, message):
    K, *_ = problem
    with pytest.raises(ValueError, match=message):
        wl.flow(K, Y, loss=loss, **arguments)


def test_losses_of_class_numbers_need_the_number_of_outputs(problem):
    K, _, f0, _ = problem

    def focal(f, y):
        p = jax.nn.softmax(f)[y]
        return -((1 - p) ** 2) * jnp.log(p)

    F = wl.flow(K, LABELS, loss=focal, f0=f0)
    assert F(1.0).shape == (N, O)
    assert F.loss(5.0) < F.loss(0.0)
