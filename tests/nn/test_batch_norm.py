"""BatchNorm: the forward pass, its limit beside sampled fields and finite networks, what it refuses."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl
from widelimit import nn

RNG = np.random.default_rng(3)
BATCHES = RNG.normal(size=(2, 8, 10))


def _wanted(x, epsilon):
    axes = tuple(range(x.ndim - 1))
    return (x - x.mean(axes)) / np.sqrt(x.var(axes) + epsilon)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("shape", [(8, 3), (4, 5, 3), (2, 4, 3, 2)])
def test_forward(shape):
    x, layer = 2 + RNG.normal(size=shape), nn.BatchNorm(0.1)
    np.testing.assert_allclose(layer.apply((), jnp.asarray(x)), _wanted(x, 0.1), rtol=1e-12)
    assert layer.output_shape((), shape) == shape
    running = nn.BatchNorm(0.1, statistics="running")
    np.testing.assert_allclose(running.apply((), jnp.asarray(x)), x / np.sqrt(1.1), rtol=1e-12)


@pytest.mark.usefixtures("float64")
def test_masked_examples_are_left_out():
    x, mask = RNG.normal(size=(6, 3)), np.arange(6) < 4
    y = nn.Masked(nn.BatchNorm(0.1)).apply([()], (x, mask))
    np.testing.assert_allclose(y, np.concatenate([_wanted(x[:4], 0.1), np.zeros((2, 3))]), rtol=1e-12)


def test_agrees_with_sampled_fields():
    # channels of the first layer are independent and Gaussian with covariance x x^T / 10: no network is needed
    net = nn.Sequential(nn.Dense(16), nn.BatchNorm(1e-5), nn.Relu(), nn.Dense(1))
    K = wl.nngp(net, output="full", points=2**16)(*BATCHES)
    both = np.concatenate([*BATCHES])
    u = np.random.default_rng(1).multivariate_normal(np.zeros(16), both @ both.T / 10, size=100_000).T
    first, second = (np.maximum(_wanted(part, 1e-5), 0) for part in (u[:8], u[8:]))
    sampled = first @ second.T / first.shape[1]
    error = np.sqrt((first**2) @ (second**2).T / first.shape[1] - sampled**2) / first.shape[1] ** 0.5
    assert K.shape == (8, 8)
    assert np.all(np.abs(K - sampled) < 5 * np.hypot(error, 2e-3 * sampled.max()))


def test_running_statistics_scale():
    kernels = wl.kernels(nn.Sequential(nn.Dense(8), nn.BatchNorm(0.1, "running"), nn.Relu(), nn.Dense(1)))
    plain = wl.kernels(nn.Sequential(nn.Dense(8), nn.Relu(), nn.Dense(1)))
    np.testing.assert_allclose(kernels(*BATCHES[:, 0]), np.array(plain(*BATCHES[:, 0])) / 1.1, rtol=1e-12)


@pytest.mark.slow
def test_agrees_with_finite_networks():
    net = nn.Sequential(nn.Dense(8), nn.BatchNorm(), nn.Relu(), nn.Dense(8), nn.BatchNorm(), nn.Relu(), nn.Dense(1))
    row = wl.limit(net).check(BATCHES, key=jax.random.key(0), widths=(512,), seeds=16).rows[0]
    assert max(row.nngp_z, row.ntk_z) < 4.5
    assert row.ntk_error < 0.5


def test_bad_hyperparameters():
    with pytest.raises(ValueError, match='BatchNorm: statistics must be "batch" or "running"'):
        nn.BatchNorm(statistics="mean")
    with pytest.raises(ValueError, match="BatchNorm: epsilon must"):
        nn.BatchNorm(-1.0)
    with pytest.raises(TypeError, match="BatchNorm: epsilon must"):
        nn.BatchNorm("a")


def test_one_example_is_no_batch():
    with pytest.raises(ValueError, match=r'BatchNorm: .* a batch \(B, positions..., C\).*statistics="running"'):
        nn.BatchNorm().apply((), jnp.ones(4))


@pytest.mark.parametrize("shape", [(97, 4), (25, 4, 4)])
def test_too_many_examples_are_refused(shape):
    net = nn.Sequential(nn.Dense(8), nn.BatchNorm(), nn.Relu(), nn.Dense(1))
    with pytest.raises(wl.UnknownLimitError, match=r"examples of a batch.* more than 96 enter.*Remedy: at most 96"):
        wl.nngp(net)(np.ones(shape), np.ones(shape))
