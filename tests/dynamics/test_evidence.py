"""Marginal likelihood and leave-one-out against dense formulas and leaving one out; their gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm
from sklearn.linear_model import Ridge

import widelimit as wl
from widelimit import nn


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    A = rng.normal(size=(7, 10))
    return A @ A.T / 10, rng.normal(size=(7, 2))


def test_marginal_likelihood_is_a_gaussian_density(problem):
    K, Y = problem
    A = K + 0.3 * np.eye(7)
    expected = sum(multivariate_normal(np.zeros(7), A).logpdf(y) for y in Y.T)
    found = wl.log_marginal_likelihood(K, Y, ridge=0.3)
    assert isinstance(found, float)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    one = wl.log_marginal_likelihood(K, Y[:, 0], ridge=0.3 / np.mean(np.diag(K)), ridge_relative=True)
    np.testing.assert_allclose(one, multivariate_normal(np.zeros(7), A).logpdf(Y[:, 0]), rtol=1e-12)


def test_leaving_each_point_out(problem):
    K, Y = problem
    out = wl.leave_one_out(K, Y, ridge=0.3)
    density = 0.0
    for i in range(7):
        rest = np.delete(np.arange(7), i)
        law = wl.posterior(
            K[np.ix_(rest, rest)], Y[rest], nngp_test=K[[i]][:, rest], nngp_test_test=K[[i]][:, [i]], ridge=0.3
        )
        np.testing.assert_allclose(out.mean[i], law.mean[0], atol=1e-12)
        np.testing.assert_allclose(out.variance[i], law.variance[0] + 0.3, rtol=1e-12)
        density += norm(law.mean[0], out.variance[i] ** 0.5).logpdf(Y[i]).sum()
        # networks trained for ever on the others
        F = wl.flow(K[np.ix_(rest, rest)], Y[rest], ridge=0.3)
        np.testing.assert_allclose(F(np.inf, K[[i]][:, rest])[0], out.mean[i], atol=1e-12)
    np.testing.assert_allclose(out.log_likelihood, density, rtol=1e-12)
    np.testing.assert_allclose(wl.leave_one_out(K, Y[:, 0], ridge=0.3).mean, out.mean[:, 0], atol=1e-14)


def test_gradients(problem, float64):
    K, Y = problem
    Y = Y[:, 0]
    A = K + 0.3 * np.eye(7)
    a = np.linalg.solve(A, Y)
    by_K, by_ridge = jax.grad(lambda K, r: wl.log_marginal_likelihood(K, Y, ridge=r), (0, 1))(jnp.asarray(K), 0.3)
    exact = (np.outer(a, a) - np.linalg.inv(A)) / 2  # Rasmussen & Williams 2006, eq. 5.9
    np.testing.assert_allclose(by_K, exact, atol=1e-12)
    np.testing.assert_allclose(by_ridge, np.trace(exact), rtol=1e-12)

    def left_out(r):
        return wl.leave_one_out(jnp.asarray(K), Y, ridge=r).log_likelihood

    slope = (left_out(0.3 + 1e-5) - left_out(0.3 - 1e-5)) / 2e-5
    np.testing.assert_allclose(jax.grad(left_out)(0.3), slope, rtol=1e-7)


def _erf(W_std, b_std):
    return nn.Sequential(nn.Dense(1, W_std=W_std, b_std=b_std), nn.Erf(), nn.Dense(1, W_std=W_std, b_std=b_std))


def _left_out(K, Y, ridge):
    return wl.leave_one_out(K, Y, ridge=ridge).log_likelihood


def _evidence(K, Y, ridge):
    return wl.log_marginal_likelihood(K, Y, ridge=ridge)


@pytest.mark.parametrize(("score", "as_array"), [(_evidence, np.asarray), (_left_out, jnp.asarray)])
def test_gradients_by_the_hyperparameters_of_a_network(problem, float64, score, as_array):
    """Of code as it would be written without gradients: inputs that the function closes over, of NumPy or of JAX."""
    X, Y = as_array(problem[1]), as_array(problem[0][:, 0])

    @jax.jit
    def score_at(W_std, b_std, ridge):
        return score(wl.gram(wl.nngp(_erf(W_std, b_std)), X), Y, ridge)

    at = (1.5, 0.3, 0.2)
    found = jax.jit(jax.grad(score_at, (0, 1, 2)))(*at)
    for i in range(3):
        up, down = (tuple(v + s * 1e-5 * (i == j) for j, v in enumerate(at)) for s in (1, -1))
        np.testing.assert_allclose(found[i], (score_at(*up) - score_at(*down)) / 2e-5, rtol=1e-6)


def _linear(s):
    return wl.nngp(nn.Sequential(nn.Dense(1, W_std=s), nn.Dense(1)))  # s^2 x . x' / 2


@pytest.mark.parametrize(
    ("kernel", "transform"),
    [
        (lambda s: lambda x, y: s**2 * jnp.dot(x, y) / 2, lambda f: f),
        (_linear, jax.jit),
        pytest.param(_linear, lambda f: f, marks=pytest.mark.slow),
    ],
)
def test_gradients_in_single_precision(problem, kernel, transform):
    """As those of NumPy inputs are where a kernel is traced."""
    X, Y = problem[1], problem[0][:, 0]

    def score(s, X):
        return wl.log_marginal_likelihood(wl.gram(kernel(s), X), Y, ridge=0.2)

    found = [transform(jax.grad(score))(1.5, X), transform(jax.grad(lambda s: score(s, jnp.asarray(X))))(1.5)]
    A = 1.5**2 * X @ X.T / 2 + 0.2 * np.eye(7)
    a = np.linalg.solve(A, Y)
    exact = np.trace((np.outer(a, a) - np.linalg.inv(A)) @ (1.5 * X @ X.T)) / 2
    assert {str(v.dtype) for v in found} == {"float32"}
    np.testing.assert_allclose(found, exact, rtol=1e-4)


def test_bayesian_ridge_regression_is_a_posterior():
    rng = np.random.default_rng(0)
    phi, phi_test, y = rng.normal(size=(6, 4)), rng.normal(size=(3, 4)), rng.normal(size=6)
    law = wl.posterior(phi @ phi.T, y, nngp_test=phi_test @ phi.T, nngp_test_test=np.sum(phi_test**2, 1), ridge=0.5)
    ridge = Ridge(alpha=0.5, fit_intercept=False).fit(phi, y)
    np.testing.assert_allclose(law.mean, ridge.predict(phi_test), atol=1e-12)
    weights = np.linalg.inv(phi.T @ phi / 0.5 + np.eye(4))  # covariance of the weights
    np.testing.assert_allclose(law.variance, np.einsum("ij,jk,ik->i", phi_test, weights, phi_test), rtol=1e-10)


def test_variances_alone(problem):
    K, Y = problem
    blocks = {"nngp_test": K[5:, :5], "nngp_test_test": K[5:, 5:]}
    alone = {**blocks, "nngp_test_test": np.diag(K)[5:]}
    for law in (
        lambda b: wl.posterior(K[:5, :5], Y[:5], **b, ridge=0.1),
        lambda b: wl.ntk_ensemble(2.0, K[:5, :5] ** 2, K[:5, :5], Y[:5], ntk_test=K[5:, :5] ** 2, **b),
    ):
        full, short = law(blocks), law(alone)
        assert full.covariance.shape == (2, 2) and short.covariance.shape == (2,)
        np.testing.assert_allclose(short.variance, np.diag(full.covariance), atol=1e-14)
        np.testing.assert_allclose(full.variance, short.variance, atol=1e-14)
        np.testing.assert_allclose(short.mean, full.mean)
    with pytest.raises(ValueError, match="nngp_test_test must have shape"):
        wl.posterior(K[:5, :5], Y[:5], **{**blocks, "nngp_test_test": np.ones(3)})


def _in_blocks(matrix, outputs=2):
    """(n outputs, m outputs) as (n, m, outputs, outputs)."""
    n, m = (size // outputs for size in matrix.shape)
    return matrix.reshape(n, outputs, m, outputs).transpose(0, 2, 1, 3)


def test_outputs_that_are_coupled(float64):
    """Blocks of outputs are one process of points times outputs; with a point all its outputs are left out."""
    rng = np.random.default_rng(1)
    root = rng.normal(size=(14, 16))
    K, Y = root @ root.T / 10, rng.normal(size=(7, 2))
    a, b = slice(0, 10), slice(10, 14)
    test = {"nngp_test": _in_blocks(K[b, a]), "nngp_test_test": _in_blocks(K[b, b])}
    law = wl.posterior(_in_blocks(K[a, a]), Y[:5], **test, ridge=0.3)
    flat = wl.posterior(K[a, a], Y[:5].reshape(-1), nngp_test=K[b, a], nngp_test_test=K[b, b], ridge=0.3)
    np.testing.assert_allclose(law.mean, flat.mean.reshape(2, 2), atol=1e-12)
    np.testing.assert_allclose(law.covariance, _in_blocks(flat.covariance), atol=1e-12)
    np.testing.assert_allclose(law.variance, flat.variance.reshape(2, 2), atol=1e-12)
    alone = {**test, "nngp_test_test": np.stack([_in_blocks(K)[i, i] for i in (5, 6)])}
    short = wl.posterior(_in_blocks(K[a, a]), Y[:5], **alone, ridge=0.3)
    np.testing.assert_allclose(short.variance, law.variance, atol=1e-12)
    relative = wl.posterior(_in_blocks(K[a, a]), Y[:5], **test, ridge=0.3 / np.mean(np.diag(K)[a]), ridge_relative=True)
    np.testing.assert_allclose(relative.mean, law.mean, atol=1e-12)

    blocks = _in_blocks(K)
    evidence = multivariate_normal(np.zeros(14), K + 0.3 * np.eye(14)).logpdf(Y.reshape(-1))
    np.testing.assert_allclose(wl.log_marginal_likelihood(blocks, Y, ridge=0.3), evidence, rtol=1e-12)
    out, density = wl.leave_one_out(blocks, Y, ridge=0.3), 0.0
    for i in range(7):
        rest = np.delete(np.arange(7), i)
        own = {"nngp_test": blocks[[i]][:, rest], "nngp_test_test": blocks[[i]][:, [i]]}
        law = wl.posterior(blocks[np.ix_(rest, rest)], Y[rest], **own, ridge=0.3)
        covariance = law.covariance[0, 0] + 0.3 * np.eye(2)
        np.testing.assert_allclose(out.mean[i], law.mean[0], atol=1e-12)
        np.testing.assert_allclose(out.variance[i], covariance, atol=1e-12)
        density += multivariate_normal(law.mean[0], covariance).logpdf(Y[i])
    np.testing.assert_allclose(out.log_likelihood, density, rtol=1e-12)
    slope = jax.grad(lambda s: wl.log_marginal_likelihood(s * jnp.asarray(blocks), Y, ridge=0.3))(1.0)
    ends = [wl.log_marginal_likelihood(s * blocks, Y, ridge=0.3) for s in (1 - 1e-5, 1 + 1e-5)]
    np.testing.assert_allclose(slope, (ends[1] - ends[0]) / 2e-5, rtol=1e-6)


def test_blocks_that_do_not_fit():
    K = np.ones((3, 3, 2, 2))
    test = {"nngp_test": np.ones((1, 3, 2, 2)), "nngp_test_test": np.ones((1, 2, 2))}
    with pytest.raises(ValueError, match=r"Y must have shape \(3, 2\)"):
        wl.posterior(K, np.ones(3), **test)
    with pytest.raises(ValueError, match=r"nngp_test must have shape .* with blocks of 2 outputs"):
        wl.posterior(K, np.ones((3, 2)), **{**test, "nngp_test": np.ones((1, 3))}, ridge=1.0)
    with pytest.raises(ValueError, match="nngp with blocks"):
        wl.posterior(K[:, :2], np.ones((3, 2)), **test)
    with pytest.raises(ValueError, match="with blocks"):
        wl.leave_one_out(K, np.ones((3, 3)))


@pytest.mark.parametrize("function", [wl.log_marginal_likelihood, wl.leave_one_out])
def test_bad_input(problem, function):
    K, Y = problem
    with pytest.raises(ValueError, match="not positive definite"):
        function(np.ones((2, 2)), np.ones(2))
    with pytest.raises(ValueError, match="K must have shape"):
        function(K, Y[:3])
    with pytest.raises(ValueError, match="symmetric"):
        function(np.array([[1.0, 2.0], [0.0, 1.0]]), np.ones(2))
    with pytest.raises(ValueError, match="ridge"):
        function(K, Y, ridge=-1.0)
    with pytest.raises(ValueError, match="Y holds NaN"):
        function(K, Y * np.nan)
    assert np.isnan(jax.jit(lambda K: jax.tree.leaves(function(K, np.ones(2)))[-1])(jnp.ones((2, 2)) - 2 * jnp.eye(2)))
