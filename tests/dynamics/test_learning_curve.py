"""Predicted errors against kernel regression on random data, and against ridge regression where it is known."""

from __future__ import annotations

import numpy as np
import pytest

import widelimit as wl
from widelimit import nn


@pytest.mark.parametrize("n", [10, 40, 100])
@pytest.mark.parametrize("ridge", [0.0, 0.2])
def test_gaussian_features(n, ridge):
    """What the theory is derived for, as n grows: to O(1/n)."""
    rng, modes, noise, errors = np.random.default_rng(0), 300, 0.3, []
    lam, v = np.arange(1.0, modes + 1) ** -1.2, np.r_[np.ones(6), np.zeros(modes - 6)]
    for _ in range(200):
        phi = rng.normal(size=(n, modes))
        y = phi @ v + noise**0.5 * rng.normal(size=n)
        w = lam * (phi.T @ np.linalg.solve(phi * lam @ phi.T + ridge * np.eye(n), y))
        errors.append((((w - v) ** 2).sum() + noise, ((phi @ w - y) ** 2).mean()))
    mean, error = np.mean(errors, 0), np.std(errors, 0) / 200**0.5
    curve = wl.learning_curve(n, lam, v**2, ridge=ridge, noise=noise)
    assert abs(curve.test_mse - mean[0]) < mean[0] / n + 4 * error[0]
    assert abs(curve.train_mse - mean[1]) < mean[1] / n + 4 * error[1] + 1e-12


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_an_ntk_on_a_sphere(noise):
    """Real features are not Gaussian: in eight dimensions a tenth is what the theory is good for."""
    rng, pool, ridge = np.random.default_rng(0), 600, 0.5
    X = rng.normal(size=(pool, 8))
    X *= 8**0.5 / np.linalg.norm(X, axis=1, keepdims=True)
    net = nn.Sequential(nn.Dense(1, W_std=2**0.5, b_std=0.5), nn.Relu(), nn.Dense(1, W_std=2**0.5, b_std=0.5))
    K, y = wl.gram(wl.ntk(net), X), X[:, 0] + X[:, 1] * X[:, 2]
    F = wl.flow(K, y)
    sizes = [10, 30, 60]
    curve = wl.learning_curve(sizes, F.spectrum.lam / pool, (F.spectrum.V.T @ y) ** 2 / pool, ridge=ridge, noise=noise)
    for i, n in enumerate(sizes):
        errors = []
        for _ in range(100):
            chosen = rng.choice(pool, n, replace=False)
            noisy = y[chosen] + noise**0.5 * rng.normal(size=n)
            f = K[:, chosen] @ np.linalg.solve(K[np.ix_(chosen, chosen)] + ridge * np.eye(n), noisy)
            errors.append((((f - y) ** 2).mean() + noise, ((f[chosen] - noisy) ** 2).mean()))
        mean, error = np.mean(errors, 0), np.std(errors, 0) / 10
        assert abs(curve.test_mse[i] - mean[0]) < 0.1 * mean[0] + 4 * error[0]
        assert abs(curve.train_mse[i] - mean[1]) < 0.1 * mean[1] + 4 * error[1]


def test_gaussian_features_without_ridge():
    """Minimum-norm regression on d isotropic Gaussian features: excess risk (1 - n/d) and E_0 = d / (d - n)."""
    d, n = 60, 20
    curve = wl.learning_curve(n, [1.0], [1.0], multiplicity=[d], noise=0.3)
    np.testing.assert_allclose(curve.kappa, d / n - 1, rtol=1e-12)
    np.testing.assert_allclose(curve.overfitting, d / (d - n), rtol=1e-12)
    np.testing.assert_allclose(curve.test_mse, (1 - n / d) + 0.3 * d / (d - n), rtol=1e-12)
    apart = wl.learning_curve(n, np.ones(d), np.full(d, 1 / d), noise=0.3)
    np.testing.assert_allclose(apart.test_mse, curve.test_mse, rtol=1e-12)
    np.testing.assert_allclose(apart.mode_mse.sum() + 0.3 * apart.overfitting, apart.test_mse, rtol=1e-12)


@pytest.mark.parametrize("ridge", [0.0, 0.01, 3.0])
def test_conservation_and_kappa(ridge):
    lam = np.arange(1, 400.0) ** -2
    sizes = np.array([[1, 3], [30, 200]])
    curve = wl.learning_curve(sizes, lam, lam, ridge=ridge)
    np.testing.assert_allclose(curve.learnability.sum(-1) + ridge / curve.kappa, sizes, rtol=1e-10)
    assert curve.test_mse.shape == (2, 2) and curve.learnability.shape == (2, 2, 399)
    assert (np.diff(curve.test_mse.ravel()) < 0).all()
    assert (curve.train_mse == 0).all() if ridge == 0 else (curve.train_mse < curve.test_mse).all()


@pytest.mark.parametrize(
    ("n", "lam", "arguments", "message"),
    [
        (3, [1.0, 0.5, 0.0], {}, "below the 2 modes"),
        (0, [1.0, 0.5, 0.1], {}, "n must be > 0"),
        (1, [1.0, -0.5, 0.1], {}, "lam must hold"),
        (1, [1.0, 0.5], {}, "power must hold"),
        (1, [1.0, 0.5, np.nan], {}, "lam holds NaN"),
        (1, [1.0, 0.5, 0.1], {"ridge": -1.0}, "ridge must be"),
        (1, [1.0, 0.5, 0.1], {"noise": np.inf}, "noise must be"),
        (1, [1.0, 0.5, 0.1], {"multiplicity": [1.0]}, "multiplicity must hold"),
    ],
)
def test_bad_input(n, lam, arguments, message):
    with pytest.raises(ValueError, match=message):
        wl.learning_curve(n, lam, np.ones(3), **arguments)
