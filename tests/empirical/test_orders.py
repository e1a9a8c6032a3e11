"""Empirical kernels where factors of layers could be confused: orders of a bias, scales of zero, indices, two sides."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import widelimit as wl

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 4))


def arrays(**shapes):
    return {name: jnp.asarray(RNG.normal(size=shape)) for name, shape in shapes.items()}


def jacobian(f, params, X):
    """(n, O, P), of real and imaginary parts one operation after the other."""

    def rows(part, x):
        J = jax.jacrev(lambda p: jnp.ravel(part(f(p, x))))(params)
        return np.concatenate([np.asarray(a).reshape(a.shape[0], -1) for a in jax.tree.leaves(J)], -1)

    real = np.stack([rows(jnp.real, x) for x in X])
    is_complex = jnp.iscomplexobj(f(params, X[0]))
    return real + 1j * np.stack([rows(jnp.imag, x) for x in X]) if is_complex else real


def reversed_bias(p, x):
    return jnp.tanh(jnp.tanh(x @ p["W"] + p["b"]) @ p["W"] + p["b"][::-1])


def reversed_output(p, x):
    return jnp.tanh((jnp.tanh(x @ p["W"] + p["b"]) @ p["W"])[::-1] + p["b"])


def transposed_bias(p, x):
    b = p["b"].reshape(2, 2)
    return jnp.tanh(jnp.tanh(x @ p["W"] + b.ravel()) @ p["W"] + b.T.ravel())


def same_order(p, x):
    return jnp.tanh(jnp.tanh(x @ p["W"] + p["b"][::-1]) @ p["W"] + p["b"][::-1])


def no_weight(p, x):
    return jnp.tanh(x @ (0.0 * p["W"]) + p["b"])


@pytest.mark.parametrize("f", [reversed_bias, reversed_output, transposed_bias, same_order, no_weight])
def test_biases_of_a_layer(f, float64):
    params = arrays(W=(4, 4), b=(4,))
    J = jacobian(f, params, X)
    kernel = wl.empirical_ntk(f, params, output="full", method="factorised")
    ways = {part.leaf: part.way for part in kernel.plan(X).parts}
    assert ways == {0: "Gram", 1: "shared" if f is same_order else "direct"}
    np.testing.assert_allclose(wl.gram(kernel, X), np.einsum("nak,mbk->nmab", J, J), rtol=1e-10, atol=1e-12)


def test_rows_beyond_the_table(float64):
    """Unsigned numbers of rows that are clipped to the last one."""
    numbers = lax.GatherDimensionNumbers((1,), (0,), (0,))

    def f(table, tokens):
        return jnp.sin(lax.gather(table, tokens[:, None], numbers, (1, 3), mode="clip")).ravel()

    table, tokens = arrays(E=(7, 3))["E"], np.array([[0, 1], [6, 2**32 - 1], [1, 3]], np.uint32)
    J = jacobian(f, table, tokens)
    got = wl.gram(wl.empirical_ntk(f, table, output="full", method="factorised"), tokens)
    np.testing.assert_allclose(got, np.einsum("nak,mbk->nmab", J, J), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("outputs", [1, 2])
def test_a_complex_network_beside_a_real_one(outputs, float64):
    params = arrays(A=(4, 3), v=(3, 1), w=(3, outputs))

    def real(p, x):
        return jnp.tanh(x @ p["A"]) @ p["w"]

    def wave(p, x):
        h = jnp.tanh(x @ p["A"]) @ p["v"]
        return h * jnp.exp(1j * h)

    for f, other in ((wave, real), (real, wave)):
        got = wl.gram(wl.empirical_ntk(f, params, output="full", other=other), X)
        want = np.einsum("nak,mbk->nmab", jacobian(f, params, X), jacobian(other, params, X).conj())
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12)
    with pytest.raises(TypeError, match="complex outputs"):
        wl.ntk_features(wave, params, X, features=2, key=jax.random.key(0))


def test_rates_of_entries_keep_their_digits():
    """NumPy's float64, also where JAX's numbers have 32 bits."""
    W, rates = (RNG.uniform(0.5, 2, (4, 3)) for _ in range(2))
    J = (1 / np.cosh(X @ W) ** 2)[:, None, :] * X[:, :, None]
    got = wl.gram(wl.empirical_ntk(lambda W, x: jnp.tanh(x @ W).sum(), W, lr=rates), X)
    np.testing.assert_allclose(got, np.einsum("nij,ij,mij->nm", J, rates, J), rtol=1e-12)
