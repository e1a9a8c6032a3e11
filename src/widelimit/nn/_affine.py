"""What layers with weights and biases have in common: how parameters are drawn, stored and scaled."""

from __future__ import annotations

import math
from typing import Any

import jax

from widelimit.nn._module import checked_number

__all__ = ["affine", "check_affine", "draw_affine", "weight_of"]

# Layers have the fields width, W_std, b_std (None: no bias), parameterization, W_lr, b_lr.


def check_affine(layer: Any) -> None:
    """Raise ValueError or TypeError for hyperparameters that make no layer."""
    name = type(layer).__name__
    checked_number(name, "width", layer.width, whole=True, least=1)
    if layer.parameterization not in ("ntk", "standard"):
        raise ValueError(f'{name}: parameterization must be "ntk" or "standard", not {layer.parameterization!r}.')
    for field in ("W_std", "b_std", "W_lr", "b_lr"):
        if field != "b_std" or layer.b_std is not None:
            checked_number(name, field, getattr(layer, field), least=0)


def draw_affine(layer: Any, key: jax.Array, shape: tuple[int, ...], fan_in: int, biases: tuple[int, ...] | None = None):
    """``{"W": shape, "b": (width,)}``: N(0, 1), or scaled in the standard parameterisation; over ``sqrt(lr)``."""
    key_W, key_b = jax.random.split(key)
    W = jax.random.normal(key_W, shape) * _stored(layer.W_lr)
    if layer.parameterization == "standard":
        W = W * (layer.W_std / fan_in**0.5)
    if layer.b_std is None:
        return {"W": W}
    b = jax.random.normal(key_b, (layer.width,) if biases is None else biases) * _stored(layer.b_lr)
    return {"W": W, "b": b * layer.b_std if layer.parameterization == "standard" else b}


def weight_of(layer: Any, params: Any) -> jax.Array:
    """The weight as it acts on the input."""
    return _used(params["W"], layer.W_lr)


def affine(layer: Any, params: Any, z: jax.Array, fan_in: int) -> jax.Array:
    """``W_std / sqrt(fan_in) z + b_std b`` of a product z with the weight, or ``z + b``."""
    standard = layer.parameterization == "standard"
    if not standard:
        z = z * (layer.W_std / math.sqrt(fan_in))
    if layer.b_std is None:
        return z
    b = _used(params["b"], layer.b_lr)
    return z + (b if standard else b * layer.b_std)


def _stored(lr: float) -> float:
    return 1.0 if lr in (0, 1) else lr**-0.5


def _used(theta: jax.Array, lr: float) -> jax.Array:
    if lr == 0:
        return jax.lax.stop_gradient(theta)
    return theta if lr == 1 else theta * lr**0.5
