"""Each channel normalised over its own positions: a function of the fields at all of them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl

X = np.random.default_rng(0).normal(size=(2, 2, 3, 4))
X[1] = 0.7 * X[0] + 0.7 * X[1]  # related, so that the kernels are not small beside the errors
EPSILON = 0.1


def _normalised(u):
    m = u.mean((0, 1))
    return jax.nn.relu((u - m) / jnp.sqrt(jnp.square(u - m).mean((0, 1)) + EPSILON))


def _network(p, x):
    h = _normalised(x @ p["u"] / x.shape[-1] ** 0.5)
    return jnp.einsum("ijc,ijc->", h, p["r"]) / p["r"].size ** 0.5


def _prior(n):
    return {"u": wl.normal((4, n)), "r": wl.normal((2, 3, n))}


def _sampled(count=400_000):
    """Both kernels and their errors, of single channels drawn from their law: fields u and tangents of one law."""
    flat = X.reshape(12, 4)
    L = np.linalg.cholesky(flat @ flat.T / 4 + 1e-12 * np.eye(12)).astype(np.float32)
    draws = np.random.default_rng(1).normal(size=(2, count, 12)).astype(np.float32) @ L.T
    u, du = (jnp.moveaxis(jnp.asarray(a).reshape(count, 2, 2, 3), 0, -1) for a in draws)
    ys, dys = zip(*(jax.jvp(_normalised, (u[i],), (du[i],)) for i in (0, 1)), strict=True)
    nngp, slopes = ((a * b).mean((0, 1)) for a, b in (ys, dys))
    return [(float(v.mean()), float(v.std()) / count**0.5) for v in (nngp, nngp + slopes)]


def test_agrees_with_sampled_channels():
    kernels = wl.limit(_network, _prior, points=16384).kernels(*X)
    for kernel, (mean, error) in zip(kernels, _sampled(), strict=True):
        assert error < 5e-3 * mean
        assert abs(float(kernel) - mean) < 5 * error


def _before_another_layer(p, x):
    h = _normalised(x @ p["u"] / x.shape[-1] ** 0.5)
    return jnp.sin(h.mean((0, 1)) @ p["W"] / p["r"].size ** 0.5) @ p["r"] / p["r"].size ** 0.5


@pytest.mark.slow
def test_finite_networks():
    limit = wl.limit(
        _before_another_layer, lambda n: {"u": wl.normal((4, n)), "W": wl.normal((n, n)), "r": wl.normal((n,))}
    )
    check = limit.check(X, key=jax.random.key(1), widths=(64, 512), seeds=24)
    assert max(check.rows[1].nngp_z, check.rows[1].ntk_z) < 4, str(check)
    assert check.rows[1].ntk_error < 0.6 * check.rows[0].ntk_error, str(check)


def test_too_many_positions_are_refused():
    x = np.ones((1, 100, 4))
    with pytest.raises(wl.UnknownLimitError, match=r"more than 96 enter.*LayerNorm, GroupNorm"):
        wl.limit(_network, lambda n: {**_prior(n), "r": wl.normal((1, 100, n))}).nngp(x, x)
