"""The activations the lab knows, by name: the function of a finite network and the module of its limit."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp


def _erf(z):
    return jax.scipy.special.erf(z)


def _gelu(z):
    return jax.nn.gelu(z, approximate=False)


_KNOWN: dict[str, tuple[Callable, str, float]] = {
    # name: function, name of the nn module, usual W_std (critical or the field's custom)
    "erf": (_erf, "Erf", 1.5),
    "relu": (jax.nn.relu, "Relu", 2.0**0.5),
    "gelu": (_gelu, "Gelu", 1.5),
    "tanh": (jnp.tanh, "Tanh", 1.5),
    "sin": (jnp.sin, "Sin", 1.5),
}

ACTIVATIONS: tuple[str, ...] = tuple(_KNOWN)


def activation_function(name: str) -> Callable:
    """The elementwise function of that name."""
    return _KNOWN[name][0]


def activation_module(name: str):
    """A new ``nn`` module applying that function."""
    from widelimit import nn

    return getattr(nn, _KNOWN[name][1])()


def usual_W_std(name: str) -> float:
    """Weight standard deviation used when none is given: sqrt(2) for ReLU (He), 1.5 for the others."""
    return _KNOWN[name][2]
