"""Empirical kernels and expansions of a small MLP and a small CNN against the reference."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import erf

import widelimit as wl


def mlp(params, x):
    h = x
    for i, phi in enumerate((erf, lambda z: jnp.maximum(z, 0), lambda z: z)):
        W, b = params[2 * i], params[2 * i + 1]
        h = phi(1.5 / W.shape[0] ** 0.5 * h @ W + 0.1 * b[0])
    return h


def cnn(params, x):
    """3x3 SAME, relu; 3x3 stride 2 VALID, erf; flattened; dense."""

    def convolved(h, i, strides, padding):
        W, b = params[i], params[i + 1]
        z = jax.lax.conv_general_dilated(h[None], W, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))[0]
        return 1.5 / (9 * W.shape[2]) ** 0.5 * z + 0.1 * b[0, 0, 0]

    h = jnp.maximum(convolved(x, 0, (1, 1), "SAME"), 0)
    h = erf(convolved(h, 2, (2, 2), "VALID")).ravel()
    return 1.5 / h.size**0.5 * h @ params[4] + 0.1 * params[5][0]


NETWORKS = {"mlp": mlp, "cnn": cnn}


@pytest.fixture(params=NETWORKS)
def reference(request, shared, float64):
    """The network, its stored arrays and its parameters."""
    name, path = request.param, shared / "reference" / "empirical.npz"
    if not path.is_file():
        pytest.skip("no reference values of empirical kernels")
    with np.load(path) as stored:
        z = {key.removeprefix(f"{name}/"): stored[key] for key in stored if key.startswith(f"{name}/")}
    return NETWORKS[name], z, [jnp.asarray(z[f"param{i}"]) for i in range(6)]


def test_outputs(reference):
    f, z, params = reference
    for x in ("x1", "x2"):
        np.testing.assert_allclose(jax.vmap(f, (None, 0))(params, z[x]), z[f"f_{x}"], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("output", "name"), [("mean", "trace"), ("full", "full"), ("diag", "diag_out")])
def test_kernels(reference, output, name):
    f, z, params = reference
    k = wl.empirical_ntk(f, params, output=output)
    for x2, suffix in ((None, "11"), (z["x2"], "12")):
        K = wl.gram(k, z["x1"], x2)
        np.testing.assert_allclose(K, z[f"ntk_{name}_{suffix}"], rtol=1e-10, atol=1e-12)
    if name == "trace":
        np.testing.assert_allclose(wl.gram_diag(k, z["x1"]), z["ntk_diag_batch_11"], rtol=1e-10, atol=1e-12)


def test_sum_scalar_and_learning_rates(reference):
    f, z, params = reference
    x, y = jnp.asarray(z["x1"][0]), jnp.asarray(z["x2"][1])
    full = wl.empirical_ntk(f, params, output="full")(x, y)
    np.testing.assert_allclose(wl.empirical_ntk(f, params, output="sum")(x, y), jnp.trace(full), rtol=1e-12)
    first = wl.empirical_ntk(f, params, output=lambda o: o[0] - 2 * o[2])(x, y)
    c = np.array([1.0, 0.0, -2.0])
    np.testing.assert_allclose(first, c @ full @ c, rtol=1e-12)
    twice = wl.empirical_ntk(f, params, output="full", lr=2.0)(x, y)
    np.testing.assert_allclose(twice, 2 * full, rtol=1e-12)
    with pytest.raises(ValueError, match="output must be"):
        wl.empirical_ntk(f, params, output="trace")


def test_expansions(reference):
    f, z, params = reference
    moved = [p + jnp.asarray(z[f"dparam{i}"]) for i, p in enumerate(params)]
    x = jnp.asarray(z["x1"])

    def batched(expansion):
        return jax.jit(jax.vmap(expansion, (None, 0)))(moved, x)

    np.testing.assert_allclose(batched(wl.linearize(f, params)), z["linearize_x1"], rtol=1e-10, atol=1e-12)
    for order in (2, 3):
        out = batched(wl.taylor(f, params, order=order))
        np.testing.assert_allclose(out, z[f"taylor{order}_x1"], rtol=1e-10, atol=1e-12)


def test_bad_input():
    params = [jnp.ones((4, 3))]

    def f(p, x):
        return x @ p[0]

    for lr in ("ntk", {"a": 1.0}, [1.0, 2.0]):
        with pytest.raises(ValueError, match="lr must be a number or a pytree of the same structure"):
            wl.empirical_ntk(f, params, lr=lr)
    for make, name in ((wl.empirical_ntk, "empirical_ntk"), (wl.taylor, "taylor"), (wl.linearize, "taylor")):
        with pytest.raises(TypeError, match=f"{name}: f must be a function"):
            make(params, f)  # type: ignore[arg-type]
    for order in (-1, 1.5, True):
        with pytest.raises(ValueError, match="order must be an integer >= 0"):
            wl.taylor(f, params, order)  # type: ignore[arg-type]
    twice = wl.empirical_ntk(f, params, lr=np.float32(2))(jnp.ones(4), jnp.ones(4))
    assert twice == 2 * wl.empirical_ntk(f, params)(jnp.ones(4), jnp.ones(4)) == 8


def test_parameters_that_cannot_be_differentiated_or_do_not_fit():
    def f(p, x):
        return x @ p["W"]

    whole = {"W": jnp.ones((4, 3), jnp.int32)}
    for make in (wl.empirical_ntk, wl.taylor, wl.linearize):
        with pytest.raises(TypeError, match=r"params\['W'\] holds int32"):
            make(f, whole)
        with pytest.raises(ValueError, match="holds no arrays"):
            make(f, {})
    line = wl.linearize(f, {"W": jnp.ones((4, 3))})
    with pytest.raises(ValueError, match=r"parameter \['W'\] has shape \(4, 2\), .* \(4, 3\)"):
        line({"W": jnp.ones((4, 2))}, jnp.ones(4))
    with pytest.raises(ValueError, match="another structure"):
        line([jnp.ones((4, 3))], jnp.ones(4))
