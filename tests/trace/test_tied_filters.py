"""A filter and its transpose in two convolutions: tied, beside averages over finite networks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from finite_networks import SEEDS, extrapolated, kernels_of_draws, numbers

import widelimit as wl

WIDTH, OUTPUTS = 24, 32
X = np.random.default_rng(0).normal(size=(2, 3, 2))
X[1] = 0.6 * X[0] + 0.8 * X[1]


def _conv(W, x, transposed=False, **options):
    W = jnp.swapaxes(W, 1, 2) if transposed else W
    y = jax.lax.conv_general_dilated(
        x[None], W, (1,), [(1, 1)], dimension_numbers=("NWC", "WIO", "NWC"), precision="highest", **options
    )
    return y[0] / (W.shape[0] * W.shape[1]) ** 0.5


def _network(p, x, mix=False, back="W"):
    h = jax.nn.relu(_conv(p["a"], x))
    y = jax.nn.relu(_conv(p["W"], h))
    y = jnp.cumsum(y, 0) if mix else y
    z = 2 * _conv(p[back], y, back == "W")
    return jnp.einsum("pc,pco->o", z, p["r"]) / (3 * z.shape[1]) ** 0.5


def _prior(n, outputs=1):
    return {
        "a": wl.normal((3, 2, n)), "W": wl.normal((3, n, n)), "V": wl.normal((3, n, n)),
        "r": wl.normal((3, n, outputs)),
    }  # fmt: skip


def _drawn(n, mix):
    shapes = {name: a.shape for name, a in _prior(n, OUTPUTS).items() if name != "V"}
    out = []
    for repeat in range(4):
        params, directions = (
            {name: numbers((SEEDS, *shape), f"tied {what}{name} {repeat}") for name, shape in shapes.items()}
            for what in ("", "d")
        )
        numbers.cache_clear()  # large, and not wanted again
        out.append(kernels_of_draws(lambda p, x, key: _network(p, x, mix), params, directions, X, n))
    return np.concatenate(out)


@pytest.mark.parametrize(
    "mix", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["position by position", "positions mixed"]
)
def test_agrees_with_finite_networks(mix):
    def kernels(**options):
        return np.stack(wl.gram(wl.limit(lambda p, x: _network(p, x, mix, **options), _prior).kernels, X))

    mean, error = extrapolated(_drawn(WIDTH, mix), _drawn(2 * WIDTH, mix))
    exact = kernels()
    z = (exact - mean) / error
    assert np.abs(z).max() < 4, f"{exact}\n{mean}\nin standard errors\n{z}"
    # two filters without anything in common have other kernels
    assert np.abs((kernels(back="V") - mean) / error).max() > 8
