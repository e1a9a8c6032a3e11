"""Sweeps: exponents of width and output scale beside theory's, and their bad input."""

from __future__ import annotations

import numpy as np
import pytest

import widelimit as wl
from widelimit import nn
from widelimit.diagnostics import document

RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 4))
Y = np.sin(X[:, 0])


def build(width, key):
    return nn.Sequential(nn.Dense(width, W_std=1.5), nn.Erf(), nn.Dense(1, W_std=1.5))


def deep(width, key):
    layers = nn.Dense(width, W_std=1.5), nn.Erf(), nn.Dense(width, W_std=1.5), nn.Erf(), nn.Dense(1, W_std=1.5)
    return nn.Sequential(*layers)


def test_over_alpha_drift_distance_and_movement_fall_with_minus_one():
    swept = wl.laziness_sweep(build, X, Y, alphas=(4.0, 16.0, 64.0), width=16, seeds=2, steps=100)
    for name in ("drift", "gap", "movement", "features"):
        assert swept.fits[name]["slope"] == pytest.approx(-1, abs=0.08), name
    assert swept.fits["hessian"]["slope"] == pytest.approx(0, abs=1e-9), "it is that of f at the start"
    assert swept.samples["drift"].shape == (3, 2) and not np.array_equal(*swept.samples["drift"].T)
    text = str(swept)
    assert "kernel drift" in text and "theory" in text and any("lazy from alpha" in a for a in swept.advice)


@pytest.mark.slow
def test_over_width_the_claims_exponents():
    """One-sided bands of the claims, and theory within three standard errors; centred, so that the random size of f_0
    does not add to the scatter.
    """
    swept = wl.laziness_sweep(deep, X, Y, widths=(128, 256, 512), seeds=6, steps=300, alpha=1.0)
    slope = {name: fit["slope"] for name, fit in swept.fits.items()}
    assert slope["drift"] < -0.7 and slope["gap"] < -0.6, str(swept)
    assert -0.7 < slope["features"] < -0.35 and -0.6 < slope["hessian"] < -0.35, str(swept)
    for name, theory in (("drift", -1), ("gap", -1), ("movement", 0), ("movement_relative", -1), ("lambda_max", 0)):
        assert abs(slope[name] - theory) < 3 * swept.fits[name]["se"], str(swept)


def test_only_stable_values_are_fitted():
    swept = wl.laziness_sweep(
        lambda p, x: x @ p["w"], X, Y, alphas=(1.0, 2.0, 4.0), steps=5, params={"w": np.ones(4)}, hessian=False
    )  # a linear model: drift 0 has no logarithm
    assert "drift" not in swept.fits and swept.advice == () and swept.samples["drift"].max() == 0
    wild = wl.laziness_sweep(
        build(16, None), X, Y, alphas=(1.0, 2.0, 4.0), steps=30, seeds=1, hessian=False, learning_rate=100.0
    )
    assert wild.fits == {} and "not stable" in wild.notes[0]


def test_a_document_with_sweeps():
    swept = wl.laziness_sweep(build(16, None), X, Y, alphas=(2.0, 8.0, 32.0), seeds=1, steps=20, hessian=False)
    made = document(wl.laziness(build(16, None), X, Y, steps=20, hessian=False), sweeps=[swept])
    assert made["figures"]["sweep-alpha"]["panels"] and made["tables"][-1]["title"] == "Over alpha"
    assert made["advice"][-1] == swept.advice[-1]


BAD = [
    ({}, ValueError, "either widths or alphas"),
    ({"widths": (8, 16, 32), "alphas": (1, 2, 3)}, ValueError, "either widths or alphas"),
    ({"widths": (8, 16)}, ValueError, "at least three"),
    ({"widths": (8, 16, 0)}, ValueError, "positive integers"),
    ({"alphas": (1.0, 2.0, float("nan")), "width": 8}, ValueError, "positive numbers"),
    ({"alphas": (1.0, 2.0, 3.0)}, ValueError, "need a width"),
    ({"widths": (8, 16, 32), "seeds": 0}, ValueError, "seeds"),
    ({"alphas": (1.0, 2.0, 3.0), "width": 8, "alpha": 1.0}, ValueError, "swept over"),
]


@pytest.mark.parametrize(("given", "kind", "words"), BAD, ids=[f"{i}-{w}" for i, (_, _, w) in enumerate(BAD)])
def test_bad_input(given, kind, words):
    with pytest.raises(kind, match=words):
        wl.laziness_sweep(build, X, Y, **given)


def test_widths_need_a_builder():
    with pytest.raises(TypeError, match="function"):
        wl.laziness_sweep(build(8, None), X, Y, widths=(8, 16, 32))
