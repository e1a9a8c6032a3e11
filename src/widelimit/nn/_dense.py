"""Fully connected layers in the NTK or the standard parameterisation."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp

from widelimit.nn._module import Module, checked_number

__all__ = ["Dense"]


@dataclasses.dataclass(frozen=True)
class Dense(Module):
    """Affine map of the last axis, ``z = W_std / sqrt(fan_in) x @ W + b_std b`` with ``W, b ~ N(0, 1)``.

    width: number of outputs.  W_std, b_std: standard deviations (``b_std=None``: no bias).
    parameterization: "ntk" as above, or "standard", ``z = x @ W + b`` with ``W ~ N(0, W_std^2 / fan_in)``,
    ``b ~ N(0, b_std^2)``.
    W_lr, b_lr: factors on the learning rate of this layer's weights and bias (0 freezes them): the parameter theta
    is stored divided by ``sqrt(lr)``, which is the same as training it ``lr`` times as fast.

    Parameters: ``{"W": (fan_in, width), "b": (width,)}``.  Raises ValueError for widths below 1, negative standard
    deviations or learning-rate factors, TypeError for what is no number.  Source: Jacot et al. 2018, section 3;
    Sohl-Dickstein et al. 2020, eq. 1-3.
    """

    width: int
    W_std: Any = 1.0
    b_std: Any = None
    parameterization: Literal["ntk", "standard"] = "ntk"
    W_lr: float = 1.0
    b_lr: float = 1.0

    def __post_init__(self) -> None:
        checked_number("Dense", "width", self.width, whole=True, least=1)
        if self.parameterization not in ("ntk", "standard"):
            raise ValueError(f'Dense: parameterization must be "ntk" or "standard", not {self.parameterization!r}.')
        for name in ("W_std", "b_std", "W_lr", "b_lr"):
            if name != "b_std" or self.b_std is not None:
                checked_number("Dense", name, getattr(self, name), least=0)

    def init(self, key, shape):
        if not shape:
            raise ValueError("Dense: the input must have at least one axis, and it is a scalar.")
        key_W, key_b = jax.random.split(key)
        fan_in = shape[-1]
        W = jax.random.normal(key_W, (fan_in, self.width)) * self._stored(self.W_lr)
        if self.parameterization == "standard":
            W = W * (self.W_std / fan_in**0.5)
        if self.b_std is None:
            return {"W": W}
        b = jax.random.normal(key_b, (self.width,)) * self._stored(self.b_lr)
        return {"W": W, "b": b * self.b_std if self.parameterization == "standard" else b}

    def apply(self, params, x, *, key=None):
        standard = self.parameterization == "standard"
        W = self._used(params["W"], self.W_lr)
        z = jnp.dot(x, W)
        if not standard:
            z = z * (self.W_std / x.shape[-1] ** 0.5)
        if self.b_std is None:
            return z
        b = self._used(params["b"], self.b_lr)
        return z + (b if standard else b * self.b_std)

    @staticmethod
    def _stored(lr: float) -> float:
        return 1.0 if lr in (0, 1) else lr**-0.5

    @staticmethod
    def _used(theta: jax.Array, lr: float) -> jax.Array:
        if lr == 0:
            return jax.lax.stop_gradient(theta)
        return theta if lr == 1 else theta * lr**0.5
