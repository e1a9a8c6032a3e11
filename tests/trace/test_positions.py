"""Functions of sums over positions of functions: pooling, maxima and statistics of a batch inside a network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl

_X, _Y = np.random.default_rng(0).normal(size=(2, 4, 3))


def _prior(n):
    return {
        "W": wl.normal((3, n), 3**-0.5), "V": wl.normal((n, n), n**-0.5), "v": wl.normal((n,), n**-0.5),
    }  # fmt: skip


def _pooled(h):
    return jnp.tanh(2 * jnp.mean(jnp.tanh(h), axis=0))


def _gated(h):
    h = jnp.tanh(h)
    return jnp.mean(h * jax.nn.sigmoid(jnp.mean(h, 0)), 0)


def _windows(h):
    return jnp.mean(jax.nn.relu(jnp.tanh(h[:-1]) - 0.5 * jnp.tanh(h[1:])), 0)


def _largest(h):
    return jnp.max(h, axis=0)


def _softmax(h):
    return jnp.sum(h * jax.nn.softmax(h, axis=0), 0)


def _mixed(h):
    """A known matrix along positions between two functions, and an array in the second."""
    A = jnp.asarray([[1.0, -1.0, 0.0, 0.0], [0.0, 0.5, 0.5, 1.0]])
    return jnp.sum(jnp.sin(A @ jnp.tanh(h) + jnp.asarray([[0.3], [0.0]])), 0)


_FUNCTIONS = {f.__name__[1:]: f for f in (_pooled, _gated, _windows, _largest, _softmax, _mixed)}


@pytest.mark.parametrize("name", _FUNCTIONS)
def test_agrees_with_sampled_fields(name):
    # channels of x @ W are independent and Gaussian with covariance x x^T / 3: no network is needed
    f = _FUNCTIONS[name]
    k = wl.limit(lambda p, x: f(x @ p["W"]) @ p["v"], _prior, lr="ntk").nngp
    both = np.concatenate([_X, _Y])
    u = np.random.default_rng(1).multivariate_normal(np.zeros(8), both @ both.T / 3, size=200_000).T
    products = np.asarray(f(jnp.asarray(u[:4])) * f(jnp.asarray(u[4:])))
    error = np.std(products) / len(products) ** 0.5
    assert abs(float(k(_X, _Y)) - products.mean()) < 5 * error


@pytest.mark.parametrize("name", ["gated", "largest", "softmax", pytest.param("windows", marks=pytest.mark.slow)])
def test_ntk_agrees_with_gradients_of_sampled_fields(name):
    # Theta = E[f f'] (the readout) + E[sum_ij df/du_i Cov(u_i, u_j') df'/du_j']
    f = _FUNCTIONS[name]
    k = wl.limit(lambda p, x: f(x @ p["W"]) @ p["v"], _prior, lr="ntk")
    C = np.concatenate([_X, _Y]) @ np.concatenate([_X, _Y]).T / 3
    u = np.random.default_rng(1).multivariate_normal(np.zeros(8), C, size=200_000).T
    gradient = jax.grad(lambda h: jnp.sum(f(h)))
    first, second = (np.asarray(gradient(jnp.asarray(part))) for part in (u[:4], u[4:]))
    values = np.asarray(f(jnp.asarray(u[:4])) * f(jnp.asarray(u[4:])))
    values = values + np.einsum("in,ij,jn->n", first, C[:4, 4:], second)
    assert abs(float(k.ntk(_X, _Y)) - values.mean()) < 5 * np.std(values) / len(values) ** 0.5


def _normalised(h):
    return (h - jnp.mean(h, 0)) / jnp.sqrt(jnp.var(h, axis=0) + 1e-5)


def test_statistics_of_a_batch():
    # the batch is the input; its outputs are one for each example
    x = np.random.default_rng(3).normal(size=(2, 8, 10))

    def prior(n):
        return {"W": wl.normal((10, n), 10**-0.5), "v": wl.normal((n,), n**-0.5)}

    def f(p, x):
        return jax.nn.relu(_normalised(x @ p["W"])) @ p["v"]

    k = wl.limit(f, prior, lr="ntk", output="full", points=2**16).nngp
    both = np.concatenate([*x])
    u = np.random.default_rng(1).multivariate_normal(np.zeros(16), both @ both.T / 10, size=100_000).T
    first, second = (np.asarray(jax.nn.relu(_normalised(jnp.asarray(part)))) for part in (u[:8], u[8:]))
    sampled = first @ second.T / first.shape[1]
    error = np.sqrt((first**2) @ (second**2).T / first.shape[1] - sampled**2) / first.shape[1] ** 0.5
    assert np.all(np.abs(np.asarray(k(x[0], x[1])) - sampled) < 5 * np.hypot(error, 2e-3 * sampled.max()))


@pytest.mark.slow
def test_finite_networks_with_batch_normalisation():
    def f(p, x):
        h = jax.nn.relu(_normalised(x @ p["W"]))
        return jax.nn.relu(_normalised(h @ p["V"])) @ p["v"]

    def prior(n):
        return {**_prior(n), "W": wl.normal((12, n), 12**-0.5)}

    x = np.random.default_rng(0).normal(size=(2, 8, 12))
    check = wl.limit(f, prior, lr="ntk").check(x, key=jax.random.key(0), widths=(256, 1024), seeds=16)
    assert check.rows[1].nngp_z < 4 and check.rows[1].ntk_z < 4, str(check)


def test_one_of_two_uses_behind_stop_gradient():
    # the same values as two uses of one parameter, but only one of them has a tangent
    def network(p, x, stop):
        h = jnp.tanh(x[0] @ p["W"])
        W = stop(p["V"])
        return jnp.tanh(jnp.tanh(h @ p["V"]) + 2 * jnp.sin(h @ W)) @ p["v"]

    def ntk(stop, frozen=()):
        def prior(n):
            return {
                name: wl.normal(w.shape, w.std, lr=0.0 if name in frozen else w.std**2) for name, w in _prior(n).items()
            }

        return float(wl.limit(lambda p, x: network(p, x, stop), prior).ntk(_X, _Y))

    def same(W):
        return W

    # the part of V: stopping its second use leaves one of four terms
    both, first = (ntk(stop) - ntk(stop, "V") for stop in (same, jax.lax.stop_gradient))
    assert abs(both - first) > 0.05 * abs(both)


def test_standard_error_is_reported():
    limit = wl.limit(lambda p, x: _pooled(x @ p["W"]) @ p["v"], _prior, lr="ntk")
    assert "quasi-Monte Carlo" in str(limit.explain(_X))


def test_many_positions_are_refused():
    limit = wl.limit(lambda p, x: _pooled(x @ p["W"]) @ p["v"], _prior, lr="ntk")
    with pytest.raises(wl.UnknownLimitError, match="Remedy"):
        limit.nngp(np.ones((200, 3)), np.ones((200, 3)))


def test_where_drops_cases_that_are_never_chosen():
    # jax.numpy.var has a case of nan for an empty batch
    def f(p, x):
        return jnp.tanh(jnp.where(jnp.asarray([True]), x @ p["W"], jnp.nan)) @ p["v"]

    k = wl.limit(f, _prior, lr="ntk").nngp(_X, _Y)
    plain = wl.limit(lambda p, x: jnp.tanh(x @ p["W"]) @ p["v"], _prior, lr="ntk").nngp(_X, _Y)
    np.testing.assert_allclose(k, plain, rtol=1e-13)


def test_positions_taken_apart():
    # newer JAX has a primitive for it
    def f(p, x):
        first, second, third = jnp.unstack(x @ p["W"], axis=0)
        return (jax.nn.relu(first) + second * third) @ p["v"]

    def indexed(p, x):
        h = x @ p["W"]
        return (jax.nn.relu(h[0]) + h[1] * h[2]) @ p["v"]

    def prior(n):
        return {"W": wl.normal((10, n), 10**-0.5), "v": wl.normal((n,), n**-0.5)}

    x = np.random.default_rng(3).normal(size=(2, 3, 10))
    one, two = (wl.gram(wl.limit(g, prior, lr="ntk").ntk, x) for g in (f, indexed))
    np.testing.assert_allclose(one, two, rtol=1e-12)
