"""Bad arguments of `wl.limit` and `wl.normal`, and what is no network: the error names the argument and the remedy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl

X = np.random.default_rng(0).normal(size=(3, 4))


def f(p, x):
    return jnp.tanh(x @ p["W"]) @ p["v"] / p["v"].size ** 0.5


def prior(n):
    return {"W": wl.normal((4, n)), "v": wl.normal((n,))}


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: wl.limit(3), "first argument must be a function"), (lambda: wl.limit(f, prior(8)), "prior must be"),
        (lambda: wl.limit(prior, f), "prior is|function of the width only"),
        (lambda: wl.limit(f), r"needs its prior: limit\(f, prior\)"),
        (lambda: wl.limit(f, lambda n: {"W": np.ones((4, n))}), "it holds ndarray"),
        (lambda: wl.limit(f, lambda n: {}), "it is empty"), (lambda: wl.normal(3, "a"), "normal: std must be a number"),
        (lambda: wl.normal(3, lr=None), "normal: lr must be a number"),
    ],
)  # fmt: skip
def test_types(make, message):
    with pytest.raises(TypeError, match=message):
        make()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: wl.limit(f, prior, lr=0.5), "state rates in wl.normal"),
        (lambda: wl.limit(f, prior, lr="x"), "lr must"),
        (lambda: wl.normal((-1, 3)), "normal: shape must"), (lambda: wl.normal((3.7,)), "normal: shape must"),
        (lambda: wl.normal("ab"), "normal: shape must"), (lambda: wl.normal(3, np.float32(-1)), "normal: std must be"),
        (lambda: wl.normal(3, float("inf")), "std must be finite"), (lambda: wl.normal(3, lr=-1), "normal: lr must be"),
        (lambda: wl.normal(3, mean=float("nan")), "normal: mean must be finite"),
        (lambda: wl.limit(f, prior).ntk(X[0, :3], X[0, :3]), r"cannot be applied to an input of shape \(3,\)"),
        (lambda: wl.limit(f, prior).check(X, key=jax.random.key(0), widths=(0,)), "check: widths must be positive"),
        (lambda: wl.limit(f, prior).explain(), "explain: give an example x"),
    ],
)  # fmt: skip
def test_values(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "g, message",
    [
        (lambda p, x: (f(p, x), f(p, x)), "must return one array, and returns 2"),
        (lambda p, x: x.sum(), "does not depend on any Gaussian parameter"),
        (lambda p, x: jnp.sort(jnp.tanh(x @ p["W"])) @ p["v"], "`sort`"),
    ],
)
def test_what_has_no_kernel(g, message):
    with pytest.raises(wl.UnknownLimitError, match=message):
        wl.limit(g, prior).ntk(X[0], X[1])


def test_a_narrow_network_is_refused():
    with pytest.raises(wl.UnknownLimitError, match=r"`tanh` at .*test_bad_input.py:\d+.*make the layer before it wide"):
        wl.limit(f, lambda n: {"W": wl.normal((4, 8)), "v": wl.normal((8,))}).ntk(X[0], X[1])
