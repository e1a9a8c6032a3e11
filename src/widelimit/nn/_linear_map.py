"""A fixed matrix along an axis of positions."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from widelimit.nn._module import Module

__all__ = ["LinearMap"]


@dataclasses.dataclass(frozen=True)
class LinearMap(Module):
    """``y_p = sum_q matrix[p, q] x_q`` along one axis of positions: a filter, a Fourier transform, a known graph.

    matrix: (m, n) numbers, not trained; a vector (n,) takes the axis away.  axis: of the example (positions..., C), by
    default the first; not the last.  The matrix is kept as a tuple of tuples.
    Raises ValueError for a matrix with other axes, entries that are not finite, or an input that does not fit.
    """

    matrix: Any
    axis: int = 0

    def __post_init__(self) -> None:
        try:
            matrix = np.asarray(self.matrix, float)
        except (TypeError, ValueError) as error:
            raise TypeError(f"LinearMap: matrix must be an array of numbers, not {self.matrix!r}.") from error
        if matrix.ndim not in (1, 2) or not matrix.size or not np.isfinite(matrix).all():
            raise ValueError(
                f"LinearMap: matrix must be (m, n) or (n,) finite numbers, and its shape is {matrix.shape}."
            )
        if isinstance(self.axis, bool) or not isinstance(self.axis, int):
            raise TypeError(f"LinearMap: axis must be an integer, not {self.axis!r}.")
        rows = matrix.tolist()
        object.__setattr__(self, "matrix", tuple(map(tuple, rows)) if matrix.ndim == 2 else tuple(rows))

    def apply(self, params, x, *, key=None):
        matrix = jnp.asarray(self.matrix, x.dtype)
        axis = self.axis + x.ndim * (self.axis < 0)
        if not 0 <= axis < x.ndim - 1 or x.shape[axis] != matrix.shape[-1]:
            raise ValueError(
                f"LinearMap: a matrix of shape {matrix.shape} along axis {self.axis} does not fit an input of shape "
                f"{x.shape}, whose last axis (channels) is not for it."
            )
        y = jnp.tensordot(matrix, x, axes=([-1], [axis]))
        return jnp.moveaxis(y, 0, axis) if matrix.ndim == 2 else y
