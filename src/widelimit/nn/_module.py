"""What a module is: two functions, `init` and `apply`; its infinite-width limit is derived from them."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from widelimit.nn._context import as_structs, shapes_of

__all__ = ["Module", "checked_number"]

Params = Any


def checked_number(layer: str, name: str, value: Any, *, whole: bool = False, least: float = -math.inf) -> None:
    """Raise TypeError or ValueError unless the hyperparameter is a finite number (or one that is being traced)."""
    if isinstance(value, jax.Array) and jnp.ndim(value) == 0 and not whole:
        return
    kind = "an integer" if whole else "a finite number"
    wanted = kind if least == -math.inf else f"{kind} >= {least:g}"
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{layer}: {name} must be {wanted}, not {value!r}.")
    if not math.isfinite(value) or value < least or (whole and value != int(value)):
        raise ValueError(f"{layer}: {name} must be {wanted}, not {value!r}.")


class Module:
    """A network or a layer of one, for ONE example: ``params = init(key, shape)``, ``y = apply(params, x)``.

    Subclasses are frozen dataclasses whose fields are the hyperparameters, so that modules compare by value.
    A network that takes a tuple or dict of arrays is given the tuple or dict of their shapes.
    """

    takes_context: ClassVar[bool] = False  # whether `apply` knows of adjacency matrices and masks (nn/_context.py)

    @property
    def widths(self) -> tuple[str, ...]:
        """Names of the hyperparameters that grow with the width."""
        return ("width",)

    def init(self, key: jax.Array, shape: Any) -> Params:
        """Draw parameters for an input of the given shape (of one example, without a batch axis)."""
        return ()

    def apply(self, params: Params, x: Any, *, key: jax.Array | None = None) -> Any:
        """Output for one example `x`; with a `key`, layers with noise (`Dropout`) draw it, else they do nothing."""
        raise NotImplementedError

    def output_shape(self, params: Params, shape: Any) -> Any:
        """Shape of ``apply(params, x)`` for an `x` of the given shape; nothing is computed."""
        return shapes_of(jax.eval_shape(self.apply, params, as_structs(shape)))
