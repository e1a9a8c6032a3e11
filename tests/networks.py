"""Networks as plain JAX code with their priors: ``f(params, x)`` and ``prior(n, outputs)``, for inputs of length D."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import erf

import widelimit as wl

D = 4


class Network(NamedTuple):
    """``f(params, x)`` and ``prior(n, outputs)``."""

    f: Callable
    prior: Callable[[int, int], Any]


def dense(W, x):
    """``x @ W / sqrt(fan_in)``; a list of (coefficient, matrix) stands for their linear combination."""
    if isinstance(W, list):
        return sum(c * dense(M, x) for c, M in W)
    return x @ W / x.shape[-1] ** 0.5


def vector(b):
    """A parameter vector, or the linear combination given by a list."""
    return sum(c * v for c, v in b) if isinstance(b, list) else b


def _prior(**extra):
    """Input matrix, readout and what the network has besides, as a function of the width."""

    def prior(n, outputs):
        sizes = {"in": (D, n), "out": (n, outputs), **{name: shape(n) for name, shape in extra.items()}}
        return {name: wl.normal(size) for name, size in sizes.items()}

    return prior


def _square(n):
    return (n, n)


def _relu_mlp(p, x):
    h = jax.nn.relu(1.3 * dense(p["in"], x) + 0.4 * vector(p["b"]))
    h = jax.nn.relu(1.3 * dense(p["W"], h) + 0.4 * vector(p["c"]))
    return dense(p["out"], h)


def _erf_residual(p, x):
    h = dense(p["in"], x)
    h = h + dense(p["W"], erf(h))
    return dense(p["out"], erf(h + dense(p["V"], erf(h))))


def _gate(p, x):
    h = erf(dense(p["in"], x))
    return dense(p["out"], dense(p["W"], h) * jax.nn.sigmoid(dense(p["V"], h)))


def _tied(p, x):
    h = erf(dense(p["W"], erf(dense(p["in"], x))))
    return dense(p["out"], erf(1.2 * dense(p["W"], h)))


def _recurrent(p, x):
    def step(h, xt):
        return erf(1.2 * dense(p["W"], h) + xt * vector(p["b"]) + 0.3 * vector(p["c"])), None

    n = p["b"][0][1].shape if isinstance(p["b"], list) else p["b"].shape
    return dense(p["out"], jax.lax.scan(step, jnp.zeros(n, x.dtype), x)[0])


def _shared(p, x):
    u = dense(p["in"], x)
    h = erf(dense(p["W"], jnp.sin(u))) + erf(dense(p["W"], jax.nn.relu(u)))
    return dense(p["out"], h)


def _concatenation(p, x):
    u = dense(p["in"], x)
    return dense(p["out"], erf(dense(p["W"], jnp.concatenate([jax.nn.relu(u), erf(2 * u)]))))


def _standard(p, x):
    return jax.nn.relu(jax.nn.relu(x @ p["in"]) @ p["W"] + p["b"]) @ p["out"]


def _standard_prior(n, outputs):
    return {
        "in": wl.normal((D, n), 1.4 / D**0.5, 0.3),
        "W": wl.normal((n, n), 1.4 / n**0.5, 1.1 / n),
        "b": wl.normal((n,), 0.0, 0.7),
        "out": wl.normal((n, outputs), n**-0.5, 1 / n),
    }


NETWORKS: dict[str, Network] = {
    "relu with biases": Network(_relu_mlp, _prior(W=_square, b=lambda n: (n,), c=lambda n: (n,))),
    "erf residual": Network(_erf_residual, _prior(W=_square, V=_square)),
    "gated linear unit": Network(_gate, _prior(W=_square, V=_square)),
    "matrix applied twice": Network(_tied, _prior(W=_square)),
    "recurrent by scan": Network(
        _recurrent,
        lambda n, o: {
            k: v for k, v in _prior(W=_square, b=lambda n: (n,), c=lambda n: (n,))(n, o).items() if k != "in"
        },
    ),
    "matrix in two branches": Network(_shared, _prior(W=_square)),
    "concatenation": Network(_concatenation, _prior(W=lambda n: (2 * n, n))),
    "standard parameterisation": Network(_standard, _standard_prior),
}
