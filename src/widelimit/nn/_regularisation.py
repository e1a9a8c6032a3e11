"""Noise: Dropout."""

from __future__ import annotations

import dataclasses

import jax

from widelimit.nn._module import Module, checked_number

__all__ = ["Dropout"]


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
