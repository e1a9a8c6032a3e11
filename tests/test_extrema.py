"""Derivatives of maxima, which XLA compiles wrongly on a CPU where it fuses them with products (jax 0.8 to 0.12)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl
from widelimit._extrema import by_place

EXTREMA = {
    "max": lambda d: jnp.max(d, -1),
    "norm": lambda d: jnp.linalg.norm(d, jnp.inf, -1),
    "min over two axes": lambda d: jnp.min(d, (0, 2)),
    "others": lambda d: jnp.concatenate([jnp.ravel(a) for a in _others(d)]),
}


def _others(d):
    place = jnp.arange(d.size) % 5
    yield jnp.max(d)
    yield jnp.max(d, -1, where=d < 1, initial=-3)
    yield jnp.nanmin(d, -1)
    yield jax.ops.segment_max(d.ravel(), place, 5)
    yield jnp.full(5, -9.0).at[place].max(d.ravel())
    yield jax.lax.cummax(d, 2)
    yield jax.lax.reduce_window(d, -jnp.inf, jax.lax.max, (1, 1, 3), (1, 1, 3), "VALID")
    yield jnp.sort(d, -1)
    yield jax.lax.top_k(d, 2)[0]
    yield jax.nn.softmax(d, -1)


def _distances(params, x):
    """Whose derivatives jax 0.8 to 0.12 compiles wrongly under `jnp.max`."""
    h = jnp.tanh(params["W"] @ x).reshape(4, 3)
    return h[:, None, :] - h[None] ** 2


def _inputs():
    rng = np.random.default_rng(0)
    return rng.normal(size=(3, 5)), {"W": jnp.asarray(rng.normal(size=(12, 5)))}


def _jacobians(f, params, X):
    """One operation after the other, which leaves nothing to fuse."""
    rows = [jax.jacrev(f)(params, jnp.asarray(x))["W"].reshape(-1, 60) for x in X]
    return np.stack(rows)


@pytest.mark.parametrize("name", EXTREMA)
def test_empirical_kernels_of_extrema(name, float64):
    X, params = _inputs()

    def f(params, x):
        return EXTREMA[name](_distances(params, x)).ravel()

    J = _jacobians(f, params, X)
    want = np.einsum("nap,mbp->nmab", J, J)
    for method in ("structured", "jacobian", "products") if name == "max" else ("structured",):
        kernel = wl.empirical_ntk(f, params, output="full", method=method)
        np.testing.assert_allclose(wl.gram(kernel, X), want, atol=1e-12, err_msg=method)


def test_an_operator_of_maxima(float64):
    pytest.importorskip("lineax")
    X, params = _inputs()

    def f(params, x):
        return jnp.max(_distances(params, x), -1).ravel()

    J = _jacobians(f, params, X)
    v = np.random.default_rng(1).normal(size=J.shape[:2])
    product = wl.operator(wl.empirical_ntk(f, params, output="full"), X).mv(v)
    np.testing.assert_allclose(product, np.einsum("nap,mbp,mb->na", J, J, v), atol=1e-12)


def test_linearised_and_trained_networks(float64):
    X, params = _inputs()

    def f(params, x):
        return jnp.max(_distances(params, x), -1).ravel()

    moved = {"W": params["W"] + 0.1 * jnp.cos(params["W"])}
    got = jax.jit(jax.vmap(wl.linearize(f, params), (None, 0)))(moved, jnp.asarray(X))
    change = np.asarray(moved["W"] - params["W"]).ravel()
    start = np.stack([f(params, x) for x in X])
    np.testing.assert_allclose(got, start + _jacobians(f, params, X) @ change, atol=1e-12)


def _in_a_scan(h):
    return jax.lax.scan(lambda c, x: (c + jnp.max(x - c**2), jnp.min(c * x)), jnp.sum(h), h.reshape(-1, 4))[1]


def _in_a_loop(h):
    return jax.lax.fori_loop(0, jnp.size(h) // 9, lambda i, c: c - 0.1 * jnp.max(c * h), h)


def _in_a_while(h):
    return jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, jnp.sin(c[1]) + jnp.max(c[1])), (0, h))[1]


def _in_whiles_side_by_side(h):
    def loop(h):
        def step(c):
            return c[0] + 1, jnp.max(jnp.sin(c[1])) - c[1]

        return jax.lax.while_loop(lambda c: c[0] < 3, step, ((2 * h[0]).astype(int), h))[1]

    return jax.vmap(loop)(h.reshape(3, 4))


def _of_nothing(h):
    return h + jnp.max(h[:0], initial=0.3) + jnp.min(h[:0].reshape(0, 3), 1).sum()


def _in_a_branch(h):
    return jax.lax.cond(h[0] > 0, lambda h: jnp.max(h) * h, lambda h: jnp.min(h) * h, h)


PROGRAMS = {
    "scan": _in_a_scan,
    "fori": _in_a_loop,
    "while": _in_a_while,
    "whiles": _in_whiles_side_by_side,
    "nothing": _of_nothing,
    "cond": _in_a_branch,
    "jit": jax.jit(lambda h: h - jnp.max(h * h)),
    "remat": jax.checkpoint(lambda h: h - jnp.max(h * h)),
    "none": lambda h: jnp.sin(h),
    "pytree": lambda h: {"a": (jnp.max(h), None), "b": h},
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_same_function_and_derivatives(name, float64):
    f, h = PROGRAMS[name], jnp.sin(1 + 3 * jnp.arange(12.0))
    jax.tree.map(np.testing.assert_array_equal, by_place(f)(h), f(h))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-14), jax.jacfwd(by_place(f))(h), jax.jacfwd(f)(h)
    )
    if name not in ("none", "while", "nothing"):
        assert "custom_jvp_call" in str(jax.make_jaxpr(by_place(f))(h))
    if name in ("cond", "jit"):
        twice = [jax.jacfwd(jax.jacrev(g))(h) for g in (by_place(f), f)]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-13), *twice)


@pytest.mark.parametrize("value", [0.0, 1.5])
def test_equal_entries_share_the_derivative(value):
    x = jnp.asarray([value, -2.0, value, value])
    for f in (jnp.max, lambda x: -jnp.min(-x)):
        for g in (jax.grad, jax.jacfwd):
            np.testing.assert_allclose(g(by_place(f))(x), [1 / 3, 0, 1 / 3, 1 / 3], rtol=1e-6)


def test_what_is_left_as_it_is():
    """Rules of the user's own, maxima without a derivative, integers, and functions that look at values."""
    own = jax.custom_jvp(lambda x: jnp.max(x))
    own.defjvp(lambda x, dx: (own(*x), 7 * jnp.sum(dx[0])))
    x = jnp.asarray([3.0, 1.0])
    np.testing.assert_array_equal(jax.grad(by_place(own))(x), [7, 7])
    assert "argmax" not in str(jax.make_jaxpr(jax.jvp, static_argnums=0)(by_place(jax.nn.softmax), (x,), (x,)))
    np.testing.assert_array_equal(by_place(jnp.max)(jnp.asarray([3, 5])), 5)
    np.testing.assert_array_equal(jax.grad(by_place(lambda x: jnp.max(x) if x[0] > 0 else x[1]))(x), [1, 0])
