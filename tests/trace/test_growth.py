"""A program without a limit, for its scaling, is refused with the power of the width; rescaled ones agree."""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl
from widelimit import nn

X = np.random.default_rng(0).normal(size=(2, 4))


def net(p, x):
    return jnp.tanh(jnp.tanh(x @ p["a"]) @ p["b"]) @ p["c"]


def prior(a=lambda n: 1.0, b=lambda n: n**-0.5, c=lambda n: n**-0.5, lr=lambda n: 1 / n):
    return lambda n: {
        "a": wl.normal((4, n), a(n)),
        "b": wl.normal((n, n), b(n), lr(n)),
        "c": wl.normal((n, 1), c(n), lr(n)),
    }


def scan_of(p, x):
    def step(h, u):
        return h @ p["b"] + u * p["a"], None

    return jax.lax.scan(step, jnp.zeros(p["a"].shape), x)[0] @ p["c"]


def scan_prior(b):
    return lambda n: {"a": wl.normal((n,)), "b": wl.normal((n, n), b(n)), "c": wl.normal((n, 1), n**-0.5)}


@pytest.mark.parametrize(
    "f, prior, message",
    [
        (net, prior(c=lambda n: 1.0), r"output grows .* as width\^\(1/2\) \(a contraction .*test_growth.py:\d+\)"),
        (net, prior(c=lambda n: 1 / n), r"output vanishes .* as width\^\(-1/2\)"),
        (net, prior(b=lambda n: 1.0), r"`tanh` at .*test_growth.py:\d+: its argument grows .*width\^\(1/2\)"),
        (net, prior(a=lambda n: (2 / (n + 4)) ** 0.5), r"`tanh` at .*: its argument vanishes .*width\^\(-1/2\)"),
        (net, prior(c=lambda n: 1 / np.log(n)), r"the variance of \['c'\] is .* no power of the width"),
        (lambda p, x: jnp.tanh(x @ p["a"]).sum() / p["a"].shape[1] ** 0.5, prior(), "a sum over the width"),
        (lambda p, x: net(p, x) / jnp.log(p["a"].shape[1]), prior(), "`log`"),
        (scan_of, scan_prior(lambda n: 1.0), r"output grows"),
    ],
)  # fmt: skip
def test_no_limit(f, prior, message):
    with pytest.raises(wl.UnknownLimitError, match=message):
        wl.limit(f, prior).nngp(X[0], X[1])


def test_learning_rates_that_make_the_ntk_diverge():
    limit = wl.limit(net, prior(lr=lambda n: 1.0))
    assert np.isfinite(limit.nngp(X[0], X[1]))
    with pytest.raises(wl.UnknownLimitError, match=r"NTK grows .* as width\^1 \(through \['[bc]'\]\)"):
        limit.ntk(X[0], X[1])
    assert "the NTK has no limit: it grows as width^1" in limit.explain(X[0])
    ready = wl.limit(net, prior(lr=lambda n: 1.0), lr="ntk")
    assert np.isfinite(ready.ntk(X[0], X[1])) and "no limit" not in ready.explain(X[0])


def test_a_frozen_network_has_an_ntk_of_zero():
    def frozen(n):
        return {k: a._replace(lr=0.0) for k, a in prior()(n).items()}

    assert float(wl.limit(net, frozen).ntk(X[0], X[1])) == 0


def kernels(f, prior):
    return np.stack([wl.limit(f, prior, lr="ntk").kernels(X[0], X[1])])


def test_a_scale_may_come_late_where_the_function_is_homogeneous():
    def relu(late):
        def f(p, x):
            n = p["b"].shape[0]
            h = jax.nn.relu(jax.nn.relu(x @ p["a"]) @ p["b"] / (1 if late else n**0.5))
            return h @ p["c"] / (n if late else n**0.5)

        return f

    scales = prior(b=lambda n: 1.0, c=lambda n: 1.0)
    np.testing.assert_allclose(kernels(relu(True), scales), kernels(relu(False), scales), rtol=1e-12)


def test_layer_norm_makes_an_unscaled_layer_of_order_one():
    def f(p, x):
        h = jax.nn.relu(x @ p["a"]) @ p["b"]
        h = (h - h.mean()) / jnp.sqrt(h.var())
        return jnp.tanh(h) @ p["c"]

    unscaled = wl.limit(f, prior(b=lambda n: 1.0)).nngp(X[0], X[1])
    np.testing.assert_allclose(unscaled, wl.limit(f, prior()).nngp(X[0], X[1]), rtol=1e-12)


def test_what_vanishes_is_below_rounding():
    glorot = prior(c=lambda n: (2 / (n + 1)) ** 0.5)
    np.testing.assert_allclose(kernels(net, glorot), kernels(net, prior(c=lambda n: (2 / n) ** 0.5)), rtol=1e-12)


def test_builders_are_judged_too():
    with pytest.raises(wl.UnknownLimitError, match=r"NTK grows .*through \.layers\[\d\]\.weight"):
        wl.limit(lambda n, key: eqx.nn.MLP(4, 1, n, 2, key=key), lr=1.0).ntk(X[0], X[1])


@dataclasses.dataclass(frozen=True)
class Glorot(nn.Module):
    """A dense layer whose variance is ``2 / (fan_in + fan_out)``."""

    width: int
    outputs: int

    def init(self, key, shape):
        del shape
        return (2 / (self.width + self.outputs)) ** 0.5 * jax.random.normal(key, (self.width, self.outputs))

    def apply(self, params, x, key=None):
        return x @ params


def test_a_module_whose_scale_is_no_power_of_the_width():
    with pytest.raises(wl.UnknownLimitError, match=r"variance of .*no power of the width"):
        wl.nngp(nn.Sequential(nn.Dense(16), nn.Erf(), Glorot(16, 8)))(X[0], X[1])


def test_a_standard_module_keeps_the_ntk_of_its_written_width():
    def net(n):
        return nn.Sequential(
            nn.Dense(n, parameterization="standard"), nn.Erf(), nn.Dense(1, parameterization="standard")
        )

    narrow, wide = (wl.ntk(net(n))(X[0], X[1]) for n in (16, 32))
    # the last layer's part is n times the covariance of the hidden units, the first layer's does not depend on n
    np.testing.assert_allclose(wide - narrow, 16 * wl.nngp(net(16))(X[0], X[1]), rtol=1e-10)


def test_a_builder_of_untraced_arrays_is_told_so():
    with pytest.raises(TypeError, match=r"draw every parameter with jax\.random"):
        wl.limit(lambda n, key: jax.tree_util.Partial(lambda W, x: W @ x, np.ones((n, 4))))


def test_a_scale_that_is_differentiated_is_let_through():
    def kernel(std):
        return wl.limit(net, prior(b=lambda n: std * n**-0.5)).nngp(jnp.asarray(X[0]), jnp.asarray(X[1]))

    assert np.isfinite(jax.grad(kernel)(1.0))
