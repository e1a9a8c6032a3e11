"""Law over initialisations: against the algebra of the parameters themselves, and against many models trained."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import expm

import widelimit as wl

N, M, O, P = 4, 2, 2, 14
RATE = 0.1


@pytest.fixture
def model():
    """A model linear in its parameters, ``f = J theta``, which start at N(0, L L^T): not i.i.d., so outputs mix."""
    rng = np.random.default_rng(0)
    J = rng.normal(size=(N + M, O, P)) / P**0.5
    return J, np.tril(rng.normal(size=(P, P))) / 3 + np.eye(P), rng.normal(size=(N, O))


def kernels(J, L):
    """Arguments of `ntk_ensemble`: kernels with blocks of outputs."""
    ntk, nngp = (np.einsum("iap,jbp->ijab", F, F) for F in (J, J @ L))
    return (ntk[:N, :N], nngp[:N, :N]), {
        "ntk_test": ntk[N:, :N],
        "nngp_test": nngp[N:, :N],
        "nngp_test_test": nngp[N:, N:],
    }


def trained(J, Y, theta, t, *, momentum, ridge, steps):
    """Parameters (P, draws) after training from the columns of theta, one step after the other or by the ODE."""
    J, y, start = J[:N].reshape(N * O, P), Y.reshape(-1, 1), theta
    if steps:
        v = np.zeros_like(theta)
        for _ in range(t):
            v = momentum * v - J.T @ (J @ theta - y) - ridge * (theta - start)
            theta = theta + RATE * v
        return theta
    # (theta, v, 1, start): theta' = eta v, v' = -(1 - m) v - gradient, or theta' = -eta gradient
    I, zero = np.eye(P), np.zeros((P, P))
    force = [-(J.T @ J + ridge * I), J.T @ y, ridge * I]
    if momentum:
        rows = [[zero, RATE * I, 0 * J.T @ y, zero], [force[0], -(1 - momentum) * I, *force[1:]]]
    else:
        rows = [[RATE * force[0], zero, *(RATE * f for f in force[1:])], [zero, zero, 0 * J.T @ y, zero]]
    M = np.vstack([np.block(rows), np.zeros((P + 1, 3 * P + 1))])
    return (expm(M * t) @ np.vstack([theta, 0 * theta, np.ones((1, theta.shape[1])), start]))[:P]


@pytest.mark.parametrize("steps", [False, True])
@pytest.mark.parametrize(("momentum", "ridge"), [(0.0, 0.0), (0.8, 0.0), (0.6, 0.3)])
def test_moments_of_a_linear_model(model, momentum, ridge, steps):
    """Training is affine in theta_0: its matrix comes from training the unit vectors, its moments from that."""
    J, L, Y = model
    settings = {"momentum": momentum, "ridge": ridge, "steps": steps}
    moved = trained(J, Y, np.hstack([np.zeros((P, 1)), np.eye(P)]), 7, **settings)
    shift, matrix = moved[:, 0], moved[:, 1:] - moved[:, :1]
    spread = J[N:] @ matrix @ L
    two, others = kernels(J, L)
    law = wl.ntk_ensemble(7, *two, Y, learning_rate=RATE, **others, **settings)
    assert np.abs(law.mean).max() > 0.1
    np.testing.assert_allclose(law.mean, J[N:] @ shift, atol=1e-12)
    covariance = np.einsum("iap,jbp->ijab", spread, spread)
    np.testing.assert_allclose(law.covariance, covariance, atol=1e-12)
    np.testing.assert_allclose(law.variance, np.einsum("iap,iap->ia", spread, spread), atol=1e-12)
    others["nngp_test_test"] = np.einsum("iiab->iab", others["nngp_test_test"])
    alone = wl.ntk_ensemble(7, *two, Y, learning_rate=RATE, **others, **settings)
    np.testing.assert_allclose(alone.covariance, np.einsum("iiab->iab", covariance), atol=1e-12)
    np.testing.assert_allclose(alone.variance, law.variance, atol=1e-12)


@pytest.mark.parametrize("blocks", ["ntk", "nngp", "both"])
def test_kernels_shared_by_outputs_are_blocks_with_nothing_between(model, blocks):
    J, L, Y = model
    two, others = kernels(J[:, :1], L[:, :])
    two, others = [k[..., 0, 0] for k in two], {name: k[..., 0, 0] for name, k in others.items()}
    variances = {**others, "nngp_test_test": np.diag(others["nngp_test_test"])}

    def apart(name, k):
        return k[..., None, None] * np.eye(O) if blocks == "both" or name.startswith(blocks) else k

    for given in (others, variances):
        shared = wl.ntk_ensemble(3.0, *two, Y, momentum=0.5, **given)
        split = wl.ntk_ensemble(
            3.0,
            *(apart(name, k) for name, k in zip(("ntk", "nngp"), two, strict=True)),
            Y,
            momentum=0.5,
            **{name: apart(name, k) for name, k in given.items()},
        )
        np.testing.assert_allclose(split.mean, shared.mean, atol=1e-13)
        np.testing.assert_allclose(split.covariance, shared.covariance[..., None, None] * np.eye(O), atol=1e-13)
        np.testing.assert_allclose(split.variance, np.repeat(shared.variance[:, None], O, 1), atol=1e-13)


def test_many_models_trained_with_momentum(model):
    """20000 draws of theta_0, each trained by 12 steps of heavy ball; mean and covariance within standard errors."""
    J, L, Y = model
    draws = 20000
    theta = L @ np.random.default_rng(1).normal(size=(P, draws))
    theta = trained(J, Y, theta, 12, momentum=0.7, ridge=0.0, steps=True)
    out = (J[N:] @ theta).reshape(M * O, draws)
    two, others = kernels(J, L)
    law = wl.ntk_ensemble(12, *two, Y, learning_rate=RATE, momentum=0.7, steps=True, **others)
    C = law.covariance.swapaxes(1, 2).reshape(M * O, M * O)
    z = (out.mean(1) - law.mean.ravel()) / np.sqrt(np.diag(C) / draws)
    assert np.abs(z).max() < 4
    error = np.sqrt((np.outer(np.diag(C), np.diag(C)) + C**2) / draws)  # of a covariance of Gaussians
    assert (np.abs(np.cov(out) - C) / error).max() < 4
    # and tell a wrong momentum apart
    other = wl.ntk_ensemble(12, *two, Y, learning_rate=RATE, momentum=0.6, steps=True, **others)
    assert np.abs((out.mean(1) - other.mean.ravel()) / np.sqrt(np.diag(C) / draws)).max() > 8


def test_limits(model):
    J, L, Y = model
    two, others = kernels(J, L)
    start = wl.ntk_ensemble(0, *two, Y, momentum=0.5, **others)
    np.testing.assert_allclose(start.covariance, others["nngp_test_test"], atol=1e-14)
    assert not start.mean.any()
    late = [wl.ntk_ensemble(np.inf, *two, Y, momentum=m, **others) for m in (0.0, 0.9)]
    np.testing.assert_allclose(late[0].covariance, late[1].covariance, atol=1e-12)
    one = wl.ntk_ensemble(np.inf, *two, Y, **{"ntk_test": two[0], "nngp_test": two[1], "nngp_test_test": two[1]})
    np.testing.assert_allclose(one.mean, Y, atol=1e-10)  # every network fits its training points
    np.testing.assert_allclose(one.covariance, np.zeros((N, N, O, O)), atol=1e-10)


def test_bad_input(model):
    J, L, Y = model
    two, others = kernels(J, L)
    for name, message in (
        ("ntk_test", r"ntk_test must have shape \(2, 4, 2, 2\), with blocks of 2 outputs, not \(2, 4\)"),
        ("nngp_test", r"nngp_test must have shape \(2, 4, 2, 2\)"),
        ("nngp_test_test", r"nngp_test_test must have shape \(2, 2, 2, 2\)"),
    ):
        with pytest.raises(ValueError, match=message):
            wl.ntk_ensemble(1.0, *two, Y, **{**others, name: others[name][..., 0, 0]})
    with pytest.raises(ValueError, match="blocks of 2 outputs"):
        wl.ntk_ensemble(1.0, *two, Y[:, :1], **others)
    with pytest.raises(ValueError, match="nngp must have shape"):
        wl.ntk_ensemble(1.0, two[0], two[1][:2], Y, **others)
    with pytest.raises(ValueError, match="momentum"):
        wl.ntk_ensemble(1.0, *two, Y, momentum=1.0, **others)
    with pytest.raises(ValueError, match="integer"):
        wl.ntk_ensemble(1.5, *two, Y, learning_rate=RATE, steps=True, **others)
    with pytest.raises(ValueError, match="nngp_test holds NaN"):
        wl.ntk_ensemble(1.0, *two, Y, **{**others, "nngp_test": others["nngp_test"] * np.nan})
