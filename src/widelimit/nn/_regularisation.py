"""Normalisation and noise: LayerNorm, Dropout."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from widelimit.nn._module import Module, checked_number

__all__ = ["Dropout", "LayerNorm"]


@dataclasses.dataclass(frozen=True)
class LayerNorm(Module):
    """``(x - mean(x)) / sqrt(var(x) + epsilon)`` over the given axes (Ba et al. 2016), without gain and shift.

    axis: one axis of the example or a tuple of them, the last (channels) among them.
    Raises ValueError for an epsilon below 0, TypeError for an axis that is no integer.
    """

    epsilon: float = 1e-12
    axis: int | tuple[int, ...] = -1

    def __post_init__(self) -> None:
        checked_number("LayerNorm", "epsilon", self.epsilon, least=0)
        axes = self.axis if isinstance(self.axis, tuple | list) else (self.axis,)
        if not axes or any(isinstance(a, bool) or not isinstance(a, int) for a in axes):
            raise TypeError(f"LayerNorm: axis must be an integer or a tuple of integers, not {self.axis!r}.")
        object.__setattr__(self, "axis", self.axis if isinstance(self.axis, int) else tuple(axes))

    def apply(self, params, x, *, key=None):
        centred = x - jnp.mean(x, axis=self.axis, keepdims=True)
        variance = jnp.mean(centred**2, axis=self.axis, keepdims=True)
        return centred / jnp.sqrt(variance + self.epsilon)


@dataclasses.dataclass(frozen=True)
class Dropout(Module):
    """``x * mask / keep`` with ``mask ~ Bernoulli(keep)``, fresh for each example; without a key, ``x``.

    The limit is that of the network with noise: the kernel of an example with itself is larger by ``1 / keep``.
    Raises ValueError for a keep outside (0, 1].  Source: Srivastava et al. 2014.
    """

    keep: float

    def __post_init__(self) -> None:
        checked_number("Dropout", "keep", self.keep)
        if not 0 < self.keep <= 1:
            raise ValueError(f"Dropout: keep must lie in (0, 1], not {self.keep!r}.")

    def apply(self, params, x, *, key=None):
        if key is None:
            return x
        return x * jax.random.bernoulli(key, self.keep, x.shape) / self.keep
