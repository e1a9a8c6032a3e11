"""Closed forms against the reference predictions (squared loss, mean convention)."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import widelimit as wl


@pytest.fixture(scope="module")
def data(shared):
    folder = shared / "reference"
    cases = {c["name"]: c["args"] for c in json.loads((folder / "predict.json").read_text())["cases"]}
    return np.load(folder / "predict.npz"), cases


def _ridge(args):
    return {"ridge": args["diag_reg"], "ridge_relative": not args["diag_reg_absolute_scale"]}


@pytest.mark.parametrize("name", ["mse0", "mse1", "mse2", "mse3"])
def test_gradient_descent(data, name):
    z, cases = data
    args = cases[name]
    F = wl.flow(
        z["ntk_dd"],
        z["y_train"],
        loss="mean",
        learning_rate=args["learning_rate"],
        f0=z["fx_train_0"],
        **_ridge(args),
    )
    # the reference reads training outputs out with the regularised kernel
    K_train = z["ntk_dd"] + F.ridge * np.eye(len(z["y_train"]))
    for times, suffix in ((z["t_mse"], "t"), (math.inf, "inf")):
        test = F(times, z["ntk_td"], z["fx_test_0"])
        np.testing.assert_allclose(test, z[f"{name}/test_{suffix}"], rtol=1e-8, atol=1e-10)
        train = F(times, K_train, z["fx_train_0"])
        np.testing.assert_allclose(train, z[f"{name}/train_{suffix}"], rtol=1e-8, atol=1e-10)
        if F.ridge == 0:
            np.testing.assert_allclose(F(times), train, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", ["ens0", "ens1", "ens2"])
@pytest.mark.parametrize("on", ["test", "train", "train_reg"])
@pytest.mark.parametrize("t", [None, 0.5, 10.0, 1000.0])
def test_ensemble(data, name, on, t):
    z, cases = data
    args = cases[name]
    if on == "test":
        blocks = {"ntk_test": z["ntk_td"], "nngp_test": z["nngp_td"], "nngp_test_test": z["nngp_tt"]}
    else:
        ntk = z["ntk_dd"]
        if on == "train":  # the reference reads training outputs out with the regularised kernel
            scale = 1.0 if args["diag_reg_absolute_scale"] else np.mean(np.diag(ntk))
            ntk = ntk + args["diag_reg"] * scale * np.eye(len(ntk))
        blocks = {"ntk_test": ntk, "nngp_test": z["nngp_dd"], "nngp_test_test": z["nngp_dd"]}
    out = wl.ntk_ensemble(
        math.inf if t is None else t,
        z["ntk_dd"],
        z["nngp_dd"],
        z["y_train"],
        loss="mean",
        **_ridge(args),
        **blocks,
    )
    suffix = f"t{'inf' if t is None else t}"
    scale = np.abs(z["nngp_tt"]).max()
    np.testing.assert_allclose(out.mean, z[f"{name}/ntk_{on}_mean_{suffix}"], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(out.covariance, z[f"{name}/ntk_{on}_cov_{suffix}"], rtol=1e-8, atol=1e-8 * scale)


@pytest.mark.parametrize("name", ["gp0", "gp1", "gp2"])
def test_posterior(data, name):
    z, cases = data
    args = cases[name]
    nngp = {"nngp_test": z["nngp_td"], "nngp_test_test": z["nngp_tt"]}
    out = wl.posterior(z["nngp_dd"], z["y_train"], **nngp, **_ridge(args))
    np.testing.assert_allclose(out.mean, z[f"{name}/nngp_mean"], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(out.covariance, z[f"{name}/nngp_cov"], rtol=1e-8, atol=1e-8)
    ntkgp = wl.posterior(z["ntk_dd"], z["y_train"], nngp_test=z["ntk_td"], nngp_test_test=z["ntk_tt"], **_ridge(args))
    np.testing.assert_allclose(ntkgp.mean, z[f"{name}/ntkgp_mean"], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(ntkgp.covariance, z[f"{name}/ntkgp_cov"], rtol=1e-8, atol=1e-8)
    ensemble = wl.ntk_ensemble(
        math.inf, z["ntk_dd"], z["nngp_dd"], z["y_train"], ntk_test=z["ntk_td"], **nngp, **_ridge(args)
    )
    np.testing.assert_allclose(ensemble.mean, z[f"{name}/ntk_mean"], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(ensemble.covariance, z[f"{name}/ntk_cov"], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_max_learning_rate(data, momentum):
    z, _ = data
    n = len(z["ntk_dd"])
    alone = wl.max_learning_rate(z["ntk_dd"], loss="mean", momentum=momentum)
    np.testing.assert_allclose(alone, z[f"max_lr/m{momentum}_ysNone"], rtol=1e-8)
    two = wl.max_learning_rate(z["ntk_dd"], loss="mean", outputs=20 // n, momentum=momentum)
    np.testing.assert_allclose(two, z[f"max_lr/m{momentum}_ys20"], rtol=1e-8)


@pytest.mark.parametrize(
    ("name", "loss", "Y", "f0", "rate"),
    [
        ("ode_mse", "mean", "y_train", "fx", 1.0),
        ("ode_mse_momentum", "mean", "y_train", "fx", 0.5),
        # the reference divides cross-entropy by all 10 x 3 entries
        ("ode_xent", "cross_entropy", "y_onehot", "gx", 1.0 / 30),
        ("ode_xent_momentum", "cross_entropy", "y_onehot", "gx", 0.5 / 30),
    ],
)
def test_integrated(data, name, loss, Y, f0, rate):
    z, cases = data
    momentum = cases[name]["momentum"] or 0.0
    F = wl.flow(z["ntk_dd"], z[Y], loss=loss, learning_rate=rate, momentum=momentum, f0=z[f"{f0}_train_0"])
    # the reference's solver is good to some 1e-6
    np.testing.assert_allclose(F(z["t_ode"]), z[f"{name}/train_t"], atol=1e-6)
    np.testing.assert_allclose(F(z["t_ode"], z["ntk_td"], z[f"{f0}_test_0"]), z[f"{name}/test_t"], atol=1e-6)
