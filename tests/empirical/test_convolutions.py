"""Convolutions as products of matrices: the same function and derivatives, and no convolution in the program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from widelimit.empirical._convolutions import by_products

CASES = {  # layout, x, W, options
    "channels last": (
        ("NHWC", "HWIO", "NHWC"), (2, 7, 6, 4), (3, 2, 4, 8), {"window_strides": (2, 1), "padding": "SAME"},
    ),
    "channels first, groups, dilated": (
        ("NCHW", "OIHW", "NCHW"), (2, 4, 7, 6), (8, 2, 3, 3),
        {"window_strides": (1, 2), "padding": ((1, 2), (0, 1)), "rhs_dilation": (2, 1), "feature_group_count": 2},
    ),
    "depthwise": (
        ("NHWC", "HWIO", "NHWC"), (1, 5, 5, 3), (3, 3, 1, 6),
        {"window_strides": (1, 1), "padding": "VALID", "feature_group_count": 3},
    ),
    "one axis, mixed": (("CNH", "HIO", "HNC"), (4, 2, 7), (3, 4, 5), {"window_strides": (2,), "padding": "SAME"}),
    "three axes": (
        ("NHWDC", "HWDIO", "NHWDC"), (2, 4, 4, 4, 2), (2, 2, 2, 2, 3), {"window_strides": (1, 1, 2), "padding": "SAME"},
    ),
}  # fmt: skip


def _network(layout, options):
    @jax.jit
    def f(W, x):
        return {"y": jnp.tanh(lax.conv_general_dilated(jnp.sin(x), W, dimension_numbers=layout, **options))}

    return lambda W, x: f(W, x)


@pytest.mark.parametrize("name", CASES)
def test_the_same_function_and_derivatives(name, float64):
    layout, x_shape, W_shape, options = CASES[name]
    rng = np.random.default_rng(0)
    x, W = jnp.asarray(rng.normal(size=x_shape)), jnp.asarray(rng.normal(size=W_shape))
    f = _network(layout, options)
    g = by_products(f)
    assert "conv_general_dilated" in str(jax.make_jaxpr(f)(W, x))
    assert "conv_general_dilated" not in str(jax.make_jaxpr(g)(W, x))
    np.testing.assert_allclose(jax.jit(g)(W, x)["y"], f(W, x)["y"], atol=1e-14)
    gradients = [jax.jit(jax.grad(lambda W, x, h=h: jnp.sum(h(W, x)["y"] ** 2), (0, 1)))(W, x) for h in (f, g)]
    for a, b in zip(*gradients, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-13)
    tangents = [jax.jit(lambda W, h=h: jax.jvp(lambda W: h(W, x)["y"], (W,), (jnp.sin(W),))[1])(W) for h in (f, g)]
    np.testing.assert_allclose(*tangents, atol=1e-14)


def test_what_is_left_as_it_is():
    """Transposed convolutions, which have holes in their input, and rules of the user's own."""

    def transposed(W, x):
        return lax.conv_transpose(x, W, (2, 2), "SAME")

    @jax.custom_jvp
    def own(W, x):
        return lax.conv_general_dilated(x, W, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    own.defjvp(lambda primals, tangents: (own(*primals), 7 * own(tangents[0], primals[1])))
    W, x = jnp.ones((3, 3, 2, 2)), jnp.ones((1, 4, 4, 2))
    for f in (transposed, own):
        assert "conv_general_dilated" in str(jax.make_jaxpr(by_products(f))(W, x))
        a, b = (jax.jvp(lambda W, h=h: h(W, x), (W,), (W,)) for h in (f, by_products(f)))
        np.testing.assert_allclose(a, b)


def test_numbers_of_16_bits_are_summed_in_32():
    """And of the type that was asked for."""
    rng = np.random.default_rng(0)
    x, W = (jnp.asarray(rng.normal(size=shape), jnp.bfloat16) for shape in ((1, 6, 6, 3), (3, 3, 3, 4)))
    for dtype, rounding in ((jnp.float32, 1e-6), (jnp.bfloat16, 2**-8)):

        def f(x, W, dtype=dtype):
            return lax.conv_general_dilated(
                x, W, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), preferred_element_type=dtype
            )

        got, want = by_products(f)(x, W), f(x, W)
        assert got.dtype == want.dtype == dtype
        exact = f(x.astype(jnp.float32), W.astype(jnp.float32), jnp.float32)
        np.testing.assert_allclose(got.astype(jnp.float32), exact, rtol=rounding, atol=1e-5)
