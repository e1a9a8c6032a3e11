"""Fully connected layers in the NTK or the standard parameterisation."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax.numpy as jnp

from widelimit.nn._affine import affine, check_affine, draw_affine, weight_of
from widelimit.nn._module import Module

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
        check_affine(self)

    def init(self, key, shape):
        if not shape:
            raise ValueError("Dense: the input must have at least one axis, and it is a scalar.")
        return draw_affine(self, key, (shape[-1], self.width), shape[-1])

    def apply(self, params, x, *, key=None):
        return affine(self, params, jnp.dot(x, weight_of(self, params)), x.shape[-1])
