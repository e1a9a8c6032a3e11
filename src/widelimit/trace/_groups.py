"""The width seen as groups of a fixed number of channels, (n // 8, 8), and put together again."""

from __future__ import annotations

import math

import jax.numpy as jnp

from widelimit.fields import Axes, Split, channel_sources, copied, group_stride, without_copies
from widelimit.trace._axes import axis_groups
from widelimit.trace._values import Det, Field

__all__ = ["grouped", "reshaped_constant", "ungrouped"]


def grouped(equation, field: Field, position: int, sizes: tuple[int, ...]) -> Field:
    """The channels in groups: the wide axis at `position`, and after it new axes of `sizes`."""
    count, blocks = math.prod(sizes), []
    for node, n in field.blocks:
        whole = count * group_stride(node)
        if n % count or any(offset % whole for _, _, offset in channel_sources(node)):
            raise equation.refuse(
                f"groups of {count} channels begin or end within another group, for parts of the width are taken or "
                "joined that hold no whole number of groups.",
                "Remedy: cut and join the width at multiples of the size of a group.",
            )
        node = copied(node, count)
        last = len(node.shape) - 1
        if position != last:
            source = (*range(position), last, *range(position, last))
            node = Axes(node, source, tuple(node.shape[i] for i in source))
        blocks.append((node if len(sizes) == 1 else Split(node, position, sizes), n // count))
    return Field(tuple(blocks), position)


def ungrouped(field: Field, groups: list[list[int]]) -> Field | None:
    """The channels one after another, where the members of a group have not met; None where they have.

    groups: of neighbouring axes of the array, which become one each.
    """
    wide = field.wide_axis
    if wide is None or groups.count([wide, wide + 1]) != 1:
        return None
    blocks = [(without_copies(node, wide), n * node.shape[wide]) for node, n in field.blocks]
    known = tuple((node, n) for node, n in blocks if node is not None)
    return Field(known, groups.index([wide, wide + 1])) if len(known) == len(blocks) else None


def reshaped_constant(equation, value: Det) -> Det:
    """``reshape`` of an array that is constant along wide axes, where it has size 1."""
    array, before, after = jnp.asarray(value.array), equation.in_shapes[0], equation.out_shapes[0]
    wide = equation.wide_out()
    target = tuple(1 if w else n for w, n in zip(wide, after[0], strict=True))
    if math.prod(target) == array.size:
        return Det(jnp.reshape(array, target))
    split = axis_groups(after, before)  # of the width, (n,) as (n // 8, 8)
    if split is None or array.ndim != len(split):
        raise equation.refuse(
            "an array that is the same along a wide axis is reshaped across it.",
            "Remedy: make it in the shape in which it is used.",
        )
    ones = [1 if w else after[0][a] for w, group in zip(equation.wide_in(0), split, strict=True) for a in group]
    return Det(jnp.broadcast_to(array.reshape(ones), target))
