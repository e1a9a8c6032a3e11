"""Where the axes of two fields go in an array over pairs of positions.

A `tie` says, for each finite axis of Y, which axis of X it is identified with (same position), or None.  The arrays
over pairs have the axes of X first, then the untied axes of Y; an axis along which nothing varies may have size 1.
"""

from __future__ import annotations

import jax.numpy as jnp

__all__ = ["Tie", "full_tie", "inverse", "place_x", "place_y", "swap"]

Tie = tuple[int | None, ...]


def full_tie(node) -> Tie:
    """Every axis of the field with itself."""
    return tuple(range(len(node.shape)))


def untied(tie: Tie) -> list[int]:
    """Axes of Y that are not tied."""
    return [i for i, j in enumerate(tie) if j is None]


def inverse(tie: Tie, nx: int) -> Tie:
    """The tie seen from the other side."""
    out: list[int | None] = [None] * nx
    for i, j in enumerate(tie):
        if j is not None:
            out[j] = i
    return tuple(out)


def place_x(array, tie: Tie):
    """An array over X's axes, put in place."""
    return array.reshape(array.shape + (1,) * len(untied(tie))) if jnp.ndim(array) else array


def place_y(array, tie: Tie, nx: int):
    """An array over Y's axes, put in place."""
    if not jnp.ndim(array):
        return array
    free = untied(tie)
    position = [j if j is not None else nx + free.index(i) for i, j in enumerate(tie)]
    order = sorted(range(len(position)), key=lambda i: position[i])
    shape = [1] * (nx + len(free))
    for i, target in enumerate(position):
        shape[target] = array.shape[i]
    return jnp.transpose(array, order).reshape(shape)


def swap(array, tie: Tie, nx: int):
    """From the layout of (Y, X, inverse tie) to that of (X, Y, tie)."""
    if array is None or not jnp.ndim(array):
        return array
    ny = len(tie)
    back = inverse(tie, nx)
    x_free = [j for j, i in enumerate(back) if i is None]
    order = [back[j] if back[j] is not None else ny + x_free.index(j) for j in range(nx)]
    return jnp.transpose(array, [*order, *untied(tie)])  # type: ignore[list-item]
