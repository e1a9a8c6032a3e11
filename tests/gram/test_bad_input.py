"""Bad arguments of `wl.gram` and `wl.gram_diag`: the error names the function and the argument."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl
from widelimit import nn

X = np.random.default_rng(0).normal(size=(3, 4))
NET = nn.Sequential(nn.Dense(8), nn.Erf(), nn.Dense(1))
K = wl.ntk(NET)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((X * np.nan,), "gram: x1 holds NaN or infinity, first in example 0"), ((3.0,), "gram: x1 .* is a scalar"),
        ((X, np.where(np.arange(3)[:, None] == 2, np.inf, X)), "gram: x2 holds NaN or infinity, first in example 2"),
        ((X, np.ones(4)), "examples of x1 have shape"), ((X, np.ones((2, 5))), r"input of shape \(5,\)"),
        (([[1.0, 2.0], [3.0]],), "gram: the examples in x1 must all have one shape"),
        ((np.zeros((3, 0)),), "gram: examples of x1 have no entries"),
    ],
)  # fmt: skip
def test_values(arguments, message):
    with pytest.raises(ValueError, match=message):
        wl.gram(K, *arguments)


@pytest.mark.parametrize(
    "option, message",
    [
        ({"batch_size": 0}, "batch_size must be a positive integer"), ({"batch_size": 2.5}, "batch_size must"),
        ({"batch_size": True}, "batch_size must"), ({"memory": 0}, "memory must be a positive number of bytes"),
        ({"memory": "1GB"}, "memory must"), ({"memory": float("nan")}, "memory must"),
    ],
)  # fmt: skip
def test_options(option, message):
    with pytest.raises(ValueError, match="gram: " + message):
        wl.gram(K, X, **option)
    with pytest.raises(ValueError, match="gram_diag: " + message):
        wl.gram_diag(K, X, **option)


@pytest.mark.parametrize(
    "k, x, message",
    [
        (NET, X, r"k is a network; give one of its kernels, such as wl.ntk\(net\)"), (None, X, "k must be a kernel"),
        (X, K, "k must be a kernel"), (K, [["a"]], "must hold numbers"), (K, X * 1j, "must hold numbers"),
        (K, jnp.asarray(X) * 1j, "must hold numbers"), (K, np.array([[1, None]]), "must hold numbers"),
        (K, None, "must hold numbers"),
    ],
)  # fmt: skip
def test_types(k, x, message):
    with pytest.raises(TypeError, match="gram: .*" + message):
        wl.gram(k, x)
    with pytest.raises(TypeError, match="gram_diag: .*" + message):
        wl.gram_diag(k, x)


def test_no_examples_give_an_empty_gram():
    assert wl.gram(K, np.zeros((0, 4))).shape == (0, 0)
    assert wl.gram(K, np.zeros((0, 4)), X).shape == (0, 3)
    assert wl.gram_diag(K, np.zeros((0, 4))).shape == (0,)
