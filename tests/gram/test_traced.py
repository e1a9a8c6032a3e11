"""Grams of kernels whose own numbers are being differentiated or compiled, of inputs that are known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl
from widelimit import nn


def square(s):
    return lambda x, y: s**2 * jnp.sum(x * y)


def inputs(*shape):
    return np.random.default_rng(0).normal(size=shape)


@pytest.mark.parametrize(
    ("shape", "as_array"),  # few pairs, many, examples with positions
    [((4, 3), np.asarray), ((4, 3), jnp.asarray), ((70, 3), np.asarray), ((4, 3, 2), np.asarray)],
)
def test_derivatives_of_a_kernel_that_is_traced(shape, as_array, float64):
    x = as_array(inputs(*shape))

    def total(s):
        k = square(s)
        return (wl.gram(k, x) ** 2).sum() + wl.gram_diag(k, x).sum() + (wl.gram(k, x, x[:3]) ** 2).sum()

    K, K_3 = (np.tensordot(x, y, axes=(range(1, x.ndim),) * 2) for y in (x, x[:3]))
    exact = 4 * 1.5**3 * (np.sum(K**2) + np.sum(K_3**2)) + 2 * 1.5 * np.trace(K)
    np.testing.assert_allclose(jax.grad(total)(1.5), exact, rtol=1e-12)
    with jax.checking_leaks():
        np.testing.assert_allclose(jax.jit(jax.grad(total))(1.5), exact, rtol=1e-12)
    batch = jax.jit(jax.vmap(total))(jnp.array([1.5, 0.3]))
    np.testing.assert_allclose(batch, [total(1.5), total(0.3)], rtol=1e-12)


def test_types_while_jax_traces():
    x = inputs(4, 3)
    k = square(2.0)
    known = wl.gram(k, x)
    assert known.dtype == np.float64
    found = jax.jit(lambda s: s * wl.gram(k, x))(1.0)
    assert isinstance(found, jax.Array) and found.dtype == jnp.float32
    np.testing.assert_allclose(found, known, rtol=1e-5)


def test_modules_at_positions():
    """A convolution, jitted, with inputs in NumPy: Gram, diagonal and the kernel of one pair."""
    x = inputs(3, 5, 2)

    def values(s):
        k = wl.nngp(nn.Sequential(nn.Conv(8, (3,), W_std=s), nn.Relu(), nn.Flatten(), nn.Dense(1)))
        return wl.gram(k, x)[0, 1], wl.gram_diag(k, x)[1], k(x[0], x[1])

    slopes, found = jax.jit(lambda s: (jax.jacfwd(values)(s), values(s)))(1.5)
    np.testing.assert_allclose(slopes, 2 / 1.5 * np.array(found), rtol=1e-5)  # homogeneous of degree 2
    k = wl.nngp(nn.Sequential(nn.Conv(8, (3,), W_std=1.5), nn.Relu(), nn.Flatten(), nn.Dense(1)))
    np.testing.assert_allclose(found[2], k(x[0], x[1]), rtol=1e-5)


def test_empirical_kernels_of_parameters_that_are_traced():
    net = nn.Dense(1)  # whose kernel is x . x' / 3, and with parameters s W in a product that of s W x
    params = net.init(jax.random.key(0), (3,))
    x = inputs(4, 3)

    def total(s):
        apply = lambda p, x: net.apply(p, x) ** 2 / 2  # noqa: E731
        return jnp.sum(wl.gram(wl.empirical_ntk(apply, jax.tree.map(lambda p: s * p, params)), x))

    np.testing.assert_allclose(jax.jit(jax.grad(total))(1.0), 2 * total(1.0), rtol=1e-4)  # homogeneous of degree 2
