"""Axes of a field's array: found, dropped, and put in another order."""

from __future__ import annotations

from widelimit.fields import Axes
from widelimit.trace._values import Field

__all__ = ["finite_index", "permuted", "without_axis"]


def finite_index(field: Field, axis: int) -> int:
    """The node's axis for an axis of positions of the array."""
    return axis - (field.wide_axis is not None and axis > field.wide_axis)


def without_axis(field: Field, index: int, position: int) -> Field:
    """A finite axis of size 1 dropped: the node's axis `index`, the array's axis `position`."""

    def dropped(x):
        keep = tuple(i for i in range(len(x.shape)) if i != index)
        return Axes(x, keep, tuple(x.shape[i] for i in keep))

    wide = field.wide_axis
    return Field(field.map(dropped).blocks, wide if wide is None or wide < position else wide - 1)


def permuted(field: Field, order) -> Field:
    """``transpose(order)`` of a field."""
    axis = None if field.wide_axis is None else list(order).index(field.wide_axis)
    rank = len(order)
    finite = [i for i in range(rank) if i != field.wide_axis]
    source = tuple(finite.index(i) for i in order if i != field.wide_axis)
    if source == tuple(range(len(source))):
        return Field(field.blocks, axis)
    return Field(tuple((Axes(x, source, tuple(x.shape[j] for j in source)), n) for x, n in field.blocks), axis)
