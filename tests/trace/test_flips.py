"""Parameters read backwards: alone they have the law of any other, tied they meet what is reversed in their place."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from finite_networks import SEEDS, extrapolated, kernels_of_draws, numbers

import widelimit as wl

X = np.random.default_rng(0).normal(size=(2, 5, 4, 3))
X[1] = 0.6 * X[0] + 0.8 * X[1]
C = np.random.default_rng(1).normal(size=(12, 9))  # unequal weights of positions: else reversals would not matter
AXES = ("NHWC", "HWIO", "NHWC")


def _conv(W, x, stride=(1, 1), dilation=(1, 1)):
    return jax.lax.conv_general_dilated(
        x[None], W, stride, "SAME", rhs_dilation=dilation, dimension_numbers=AXES, precision="highest"
    )[0]


def _transposed(W, x, transpose_kernel=True):
    return jax.lax.conv_transpose(x[None], W, (2, 2), "SAME", transpose_kernel=transpose_kernel, precision="highest")[0]


def _weighed(z):
    return jnp.einsum("ij,ijc->c", C[: z.shape[0], : z.shape[1]], z)


FILTERS = {
    "reversed alone": lambda W, x: _weighed(_conv(W[::-1, ::-1], x)),
    "both ways": lambda W, x: _weighed(_conv(W, x)) + _weighed(_conv(jnp.flip(W, (0, 1)), x)),
    "along one axis": lambda W, x: _weighed(_conv(W, x, (2, 1))) - _weighed(_conv(W[::-1], x, (2, 1))),
    "dilated": lambda W, x: _weighed(_conv(W, x, (1, 2), (2, 1))) + _weighed(_conv(W[::-1, ::-1], x, (1, 2), (2, 1))),
    "twice is once": lambda W, x: _weighed(_conv(W[::-1][::-1], x)) + _weighed(_conv(W, x)),
    "channels of the input": lambda W, x: _weighed(_conv(W[:, :, ::-1], x)) + _weighed(_conv(W[::-1], x)),
    "transposed": lambda W, x: _weighed(_transposed(jnp.swapaxes(W, 2, 3), x)),
    "transposed, tied": lambda W, x: _weighed(_transposed(jnp.swapaxes(W, 2, 3), x))
    + _weighed(_transposed(W, x, False)),
    "matrix of positions": lambda W, x: jnp.einsum("ijk,ijkc->c", x[:3, :3], W[::-1])
    + jnp.einsum("ijk,ijkc->c", x[1:4, 1:4], W[:, ::-1]),
    "another at each position": lambda W, x: C[0, :3] @ jnp.einsum("ijk,ijkc->ic", x[:3, :3], W[::-1])
    + C[1, :3] @ jnp.einsum("ijk,ijkc->ic", x[:3, 1:], W[:, ::-1]),
    "left over": lambda W, x: jnp.einsum("i,ic->c", C[0, :3], jnp.einsum("jk,ijkc->ic", x[0, :3], W[::-1]))
    + jnp.einsum("i,ic->c", C[1, :3], jnp.einsum("jk,ijkc->ic", x[1, :3], W)),
    "part of what is reversed": lambda W, x: jnp.einsum("ijk,ijkc->c", x[:2, :3], W[::-1][:2])
    + jnp.einsum("ijk,ijkc->c", x[3:, :3], W[1:]),
    "entries": lambda W, x: jnp.einsum("ijk,ijkc->c", x[:3, :3], jnp.cumsum(W[::-1], 0) + W),
}  # fmt: skip


@pytest.mark.parametrize("name", FILTERS)
def test_agrees_with_the_jacobian(name):
    # linear in the filter, so that at any width each channel's kernel is that of its Jacobian
    f = FILTERS[name]
    jacobians = [jax.jacobian(lambda W, x=x: f(W, x)[0])(jnp.zeros((3, 3, 3, 1))).ravel() for x in X]
    exact = float(jacobians[0] @ jacobians[1])
    k = wl.limit(
        lambda p, x: f(p["W"], x) @ p["r"],
        lambda n: {"W": wl.normal((3, 3, 3, n)), "r": wl.normal((n,), n**-0.5, lr=1 / n)},
    )
    np.testing.assert_allclose(k.nngp(*X), exact, rtol=1e-6)
    np.testing.assert_allclose(k.ntk(*X), 2 * exact, rtol=1e-6)


def _scanned(p, x, order):
    weights = p["W"][::-1] if order < 0 else p["W"]
    h, _ = jax.lax.scan(lambda h, W: (jax.nn.relu(h @ W), None), x.sum((0, 1)) @ p["a"], weights)
    return h @ p["r"]


def test_layers_in_the_other_order_have_the_same_kernel():
    def prior(n):
        return {"W": wl.normal((3, n, n), n**-0.5), "a": wl.normal((3, n)), "r": wl.normal((n,), n**-0.5)}

    kernels = [wl.limit(lambda p, x, o=o: _scanned(p, x, o), prior, lr="ntk").kernels(*X) for o in (1, -1)]
    np.testing.assert_allclose(*kernels, rtol=1e-12)


WIDTH, OUTPUTS = 16, 32
SEQUENCES = np.random.default_rng(2).normal(size=(2, 3, 2))
SEQUENCES[1] = 0.6 * SEQUENCES[0] + 0.8 * SEQUENCES[1]


def _layer(W, x, transposed=False):
    dims = ("NWC", "WIO", "NWC")
    if transposed:  # the transpose of the layer itself: reversed, and its channels swapped
        return jax.lax.conv_transpose(x[None], W, (1,), "SAME", dimension_numbers=dims, transpose_kernel=True)[0]
    return jax.lax.conv_general_dilated(x[None], W, (1,), "SAME", dimension_numbers=dims)[0]


def _autoencoder(p, x, back="W"):
    y = jax.nn.relu(_layer(p["W"], jax.nn.relu(_layer(p["a"], x) / 6**0.5)) / (3 * p["W"].shape[1]) ** 0.5)
    z = 2 * _layer(p[back], y, True) / (3 * y.shape[1]) ** 0.5
    return jnp.einsum("pc,pco->o", z, p["r"]) / (3 * z.shape[1]) ** 0.5


def _both_ways(p, x, other="W"):
    h = jax.nn.relu(_layer(p["a"], x) / 6**0.5)
    y = jnp.tanh((_layer(p["W"], h) + _layer(p[other][::-1], h)) / (3 * h.shape[1]) ** 0.5)
    return jnp.einsum("pc,pco->o", y, p["r"]) / (3 * y.shape[1]) ** 0.5


def _prior(n, outputs=1):
    return {
        "a": wl.normal((3, 2, n)), "W": wl.normal((3, n, n)), "V": wl.normal((3, n, n)),
        "r": wl.normal((3, n, outputs)),
    }  # fmt: skip


def _drawn(network, n):
    shapes = {name: a.shape for name, a in _prior(n, OUTPUTS).items() if name != "V"}
    params, directions = (
        {name: numbers((SEEDS, *shape), f"flips {what}{name}") for name, shape in shapes.items()} for what in ("", "d")
    )
    numbers.cache_clear()  # large, and not wanted again
    return kernels_of_draws(lambda p, x, key: network(p, x), params, directions, SEQUENCES, n)


@pytest.mark.slow
@pytest.mark.parametrize(("network", "other"), [(_both_ways, "other"), (_autoencoder, "back")])
def test_tied_filters_agree_with_finite_networks(network, other):
    def kernels(**options):
        return np.stack(wl.gram(wl.limit(lambda p, x: network(p, x, **options), _prior).kernels, SEQUENCES))

    mean, error = extrapolated(_drawn(network, WIDTH), _drawn(network, 2 * WIDTH))
    exact = kernels()
    z = (exact - mean) / error
    assert np.abs(z).max() < 4, f"{exact}\n{mean}\nin standard errors\n{z}"
    # two filters without anything in common have other kernels
    assert np.abs((kernels(**{other: "V"}) - mean) / error).max() > 8


def test_reversed_channels_are_refused():
    with pytest.raises(wl.UnknownLimitError, match="channels of a wide axis are reversed"):
        wl.limit(
            lambda p, x: x[0, 0] @ p["a"][:, ::-1] @ p["r"], lambda n: {"a": wl.normal((3, n)), "r": wl.normal((n,))}
        ).nngp(*X)
