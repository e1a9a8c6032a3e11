"""The activations the lab knows, by name: the function of a finite network and the module of its limit."""

from __future__ import annotations

from collections.abc import Callable

_KNOWN: dict[str, tuple[str, float]] = {
    # name: name of the nn module, usual W_std (critical or the field's custom)
    "erf": ("Erf", 1.5),
    "relu": ("Relu", 2.0**0.5),
    "gelu": ("Gelu", 1.5),
    "tanh": ("Tanh", 1.5),
    "sin": ("Sin", 1.5),
}

ACTIVATIONS: tuple[str, ...] = tuple(_KNOWN)
KINKED: tuple[str, ...] = ("relu",)
"""Those whose derivative jumps."""


def activation_function(name: str) -> Callable:
    """The elementwise function of that name."""
    import jax  # here, so that settings are checked without loading it

    return {
        "erf": jax.scipy.special.erf,
        "relu": jax.nn.relu,
        "gelu": lambda z: jax.nn.gelu(z, approximate=False),
        "tanh": jax.numpy.tanh,
        "sin": jax.numpy.sin,
    }[name]


def activation_module(name: str):
    """A new ``nn`` module applying that function."""
    from widelimit import nn

    return getattr(nn, _KNOWN[name][0])()


def usual_W_std(name: str) -> float:
    """Weight standard deviation used when none is given: sqrt(2) for ReLU (He), 1.5 for the others."""
    return _KNOWN[name][1]
