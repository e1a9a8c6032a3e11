"""What a module is: two functions, `init` and `apply`; its infinite-width limit is derived from them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["Module"]

Params = Any


class Module:
    """A network or a layer of one, for ONE example: ``params = init(key, shape)``, ``y = apply(params, x)``.

    Subclasses are frozen dataclasses whose fields are the hyperparameters, so that modules compare by value.
    """

    def init(self, key: jax.Array, shape: tuple[int, ...]) -> Params:
        """Draw parameters for an input of the given shape (of one example, without a batch axis)."""
        return ()

    def apply(self, params: Params, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Output for one example `x`; with a `key`, layers with noise (`Dropout`) draw it, else they do nothing."""
        raise NotImplementedError

    def output_shape(self, params: Params, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of ``apply(params, x)`` for an `x` of the given shape; nothing is computed."""
        dtype = jnp.result_type(float)
        return jax.eval_shape(self.apply, params, jax.ShapeDtypeStruct(shape, dtype)).shape
