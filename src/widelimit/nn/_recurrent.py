"""Recurrent layers over (T, C), by `jax.lax.scan`; their weights are the same at every time."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from widelimit.nn._context import mask_of, values_of, with_values
from widelimit.nn._elementwise import Relu, Tanh
from widelimit.nn._module import Module, checked_number

__all__ = ["GRU", "RNN"]

_RELU, _TANH = Relu(), Tanh()


@dataclasses.dataclass(frozen=True)
class _Recurrent(Module):
    takes_context = True  # to say that the last state under a mask is not the last real one
    width: int
    W_std: Any = 1.0
    U_std: Any = 1.0
    b_std: Any = None
    activation: Module = _RELU
    last: bool = False

    def __post_init__(self) -> None:
        name = type(self).__name__
        checked_number(name, "width", self.width, whole=True, least=1)
        for field in ("W_std", "U_std", "b_std"):
            if field != "b_std" or self.b_std is not None:
                checked_number(name, field, getattr(self, field), least=0)
        if not isinstance(self.activation, Module):
            raise TypeError(
                f"{name}: activation must be an nn module such as nn.Relu() or nn.Elementwise(fn), not "
                f"{self.activation!r}."
            )
        if not isinstance(self.last, bool):
            raise TypeError(f"{name}: last must be True or False, not {self.last!r}.")

    def _parameters(self, key, shape):
        shape = values_of(shape)
        self._checked(shape)
        keys = jax.random.split(key, 3)
        params = {
            "W": jax.random.normal(keys[0], (self.width, self.width)),
            "U": jax.random.normal(keys[1], (shape[-1], self.width)),
        }
        return params if self.b_std is None else {**params, "b": jax.random.normal(keys[2], (self.width,))}

    def _checked(self, shape) -> None:
        if len(shape) != 2:
            raise ValueError(f"{type(self).__name__}: the input must be (T, C), and its shape is {tuple(shape)}.")

    def _states(self, x, step, inputs):
        """All states, or the last, in the context of x."""
        if self.last and mask_of(x) is not None:
            raise ValueError(
                f"{type(self).__name__}: the last state of a padded sequence is not that of its last real step. "
                "Remedy: last=False, then GlobalAvgPool or GlobalSumPool."
            )
        self._checked(values_of(x).shape)
        # in the precision of the states, which a loop may not change
        start = jnp.zeros((self.width,), jax.tree.leaves(inputs)[0].dtype)
        final, states = jax.lax.scan(lambda h, z: (step(h, z),) * 2, start, inputs)
        if not self.last:
            return with_values(self, x, states)
        return final if mask_of(x) is None and x is values_of(x) else x._replace(values=final)

    def _from_inputs(self, params, x):
        """``U_std / sqrt(C) U x_t + b_std b`` for all times."""
        z = jnp.dot(x, params["U"]) * (self.U_std / x.shape[-1] ** 0.5)
        return z if self.b_std is None else z + self.b_std * params["b"]


@dataclasses.dataclass(frozen=True)
class RNN(_Recurrent):
    """``h_t = phi(W_std / sqrt(width) W h_(t-1) + U_std / sqrt(C) U x_t + b_std b)`` with ``h_0 = 0``.

    The input is (T, C), the output all states (T, width), or with `last` the last one (width,).  W, U and b ~ N(0, 1)
    are the same at every time.  b_std None: no bias.  activation: a module without parameters, phi.

    Parameters: ``{"W": (width, width), "U": (C, width), "b": (width,)}``.  Raises ValueError for widths below 1,
    negative standard deviations, an input with other axes, or `last` under a mask; TypeError for an activation that is
    no module.  Source: Yang 2020 (Tensor Programs II); Alemohammad et al. 2021.
    """

    def init(self, key, shape):
        return self._parameters(key, shape)

    def apply(self, params, x, *, key=None):
        scale = self.W_std / self.width**0.5

        def step(h, z):
            return self.activation.apply((), jnp.dot(h, params["W"]) * scale + z)

        return self._states(x, step, self._from_inputs(params, values_of(x)))


@dataclasses.dataclass(frozen=True)
class GRU(_Recurrent):
    """Gated recurrent unit: ``h_t = (1 - z) h_(t-1) + z c`` with gates z and r between 0 and 1.

        z = sigmoid(W_z h_(t-1) + U_z x_t + b_z),   r = sigmoid(W_r h_(t-1) + U_r x_t + b_r),
        c = phi(W_c (r h_(t-1)) + U_c x_t + b_c),   h_0 = 0,

    each matrix W times ``W_std / sqrt(width)``, U times ``U_std / sqrt(C)``, b times b_std.  The input is (T, C), the
    output all states (T, width), or with `last` the last one.  activation: phi.  Its limit is a quasi-Monte Carlo
    average (a gate acts repeatedly) and slow beyond a few steps.

    Parameters: ``{"z": ..., "r": ..., "c": ...}``, each as in `RNN`.  Errors as in `RNN`.
    Source: Cho et al. 2014; Yang 2019 (Tensor Programs I).
    """

    activation: Module = _TANH

    def init(self, key, shape):
        return {gate: self._parameters(k, shape) for gate, k in zip("zrc", jax.random.split(key, 3), strict=True)}

    def apply(self, params, x, *, key=None):
        scale = self.W_std / self.width**0.5
        parts = [params[gate] for gate in "zrc"]

        def step(h, inputs):
            z, r = (jax.nn.sigmoid(jnp.dot(h, p["W"]) * scale + u) for p, u in zip(parts[:2], inputs[:2], strict=True))
            c = self.activation.apply((), jnp.dot(r * h, parts[2]["W"]) * scale + inputs[2])
            return (1 - z) * h + z * c

        return self._states(x, step, tuple(self._from_inputs(p, values_of(x)) for p in parts))
