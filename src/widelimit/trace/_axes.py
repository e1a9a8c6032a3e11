"""Axes of a field's array: found, dropped, and put in another order."""

from __future__ import annotations

from widelimit.fields import Axes
from widelimit.trace._values import Field

__all__ = ["axis_groups", "finite_index", "permuted", "without_axis"]


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


def axis_groups(before, after) -> list[list[int]] | None:
    """For each output axis the input axes whose product it is, at both widths; None where axes are split."""
    out, i = [], 0
    for n, n2 in zip(*after, strict=True):
        group: list[int] = []
        size = [1, 1]
        while i < len(before[0]) and (size != [n, n2] or not group):
            group.append(i)
            size = [size[0] * before[0][i], size[1] * before[1][i]]
            i += 1
        if size != [n, n2]:
            return None
        out.append(group)
    while i < len(before[0]) and before[0][i] == before[1][i] == 1:
        out[-1].append(i)
        i += 1
    return out if i == len(before[0]) else None
