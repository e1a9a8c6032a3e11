"""Gated linear units."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from widelimit.nn._elementwise import Sigmoid, Silu
from widelimit.nn._module import Module, checked_number

__all__ = ["GLU", "SwiGLU"]

_SIGMOID, _SILU = Sigmoid(), Silu()


@dataclasses.dataclass(frozen=True)
class GLU(Module):
    """``phi(W_std / sqrt(C) x V + b_std b_V) * (W_std / sqrt(C) x W + b_std b_W)`` along the last axis, entry by entry.

    The input is (..., C), the output (..., width); phi is `activation`, a module without parameters; b_std None: no
    biases.  Parameters: ``{"V": (C, width), "W": (C, width), "b_V": (width,), "b_W": (width,)}``, N(0, 1).
    Raises ValueError for widths below 1 or negative standard deviations, TypeError for an activation that is no module.
    Source: Dauphin et al. 2017; Shazeer 2020.
    """

    width: int
    activation: Module = _SIGMOID
    W_std: Any = 1.0
    b_std: Any = None

    def __post_init__(self) -> None:
        name = type(self).__name__
        checked_number(name, "width", self.width, whole=True, least=1)
        for field in ("W_std", "b_std"):
            if field != "b_std" or self.b_std is not None:
                checked_number(name, field, getattr(self, field), least=0)
        if not isinstance(self.activation, Module):
            raise TypeError(f"{name}: activation must be an nn module such as nn.Silu(), not {self.activation!r}.")

    def init(self, key, shape):
        if not shape:
            raise ValueError(f"{type(self).__name__}: the input must have at least one axis, and it is a scalar.")
        shapes = {"V": (shape[-1], self.width), "W": (shape[-1], self.width)}
        if self.b_std is not None:
            shapes |= {"b_V": (self.width,), "b_W": (self.width,)}
        keys = jax.random.split(key, len(shapes))
        return {name: jax.random.normal(k, s) for k, (name, s) in zip(keys, shapes.items(), strict=True)}

    def apply(self, params, x, *, key=None):
        def affine(name):
            z = jnp.dot(x, params[name]) * (self.W_std / x.shape[-1] ** 0.5)
            return z if self.b_std is None else z + self.b_std * params[f"b_{name}"]

        return self.activation.apply((), affine("V")) * affine("W")


@dataclasses.dataclass(frozen=True)
class SwiGLU(GLU):
    """`GLU` with ``phi(z) = z / (1 + exp(-z))``.  Source: Shazeer 2020."""

    activation: Module = _SILU
