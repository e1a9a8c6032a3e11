"""Axes merged with the width (`Flatten`, heads put side by side): kept apart, and seen as one only in shapes."""

from __future__ import annotations

import dataclasses
import math

import jax.numpy as jnp

from widelimit.trace._heads import each_head
from widelimit.trace._rules import RULES
from widelimit.trace._values import Det, Field, Flat, Heads, Weight

__all__ = ["apart", "merged", "on_parts", "seen_as"]


def apart(value, position: int, sizes: tuple[int, ...], wide: tuple[bool, ...]):
    """An operand with one axis of its array seen as several."""
    if isinstance(value, Flat):
        return value.field
    if isinstance(value, Weight):
        if value.axes[position] is None:
            return dataclasses.replace(
                value, axes=(*value.axes[:position], *[None] * len(sizes), *value.axes[position + 1 :])
            )
        return value.split(position, sizes, wide)
    array = value.array
    if not jnp.ndim(array):
        return value
    shape = jnp.shape(array)
    if shape[position] == 1:
        new: tuple[int, ...] = (1,) * len(sizes)
    else:
        new = tuple(1 if w else n for w, n in zip(wide, sizes, strict=True))
    return Det(jnp.reshape(array, (*shape[:position], *new, *shape[position + 1 :])))


def on_parts(interpreter, equation, values, function):
    """An elementwise rule applied with the merged axis seen as its parts; the result is merged again."""
    flat = next(v for v in values if isinstance(v, Flat))
    j, sizes, sizes2 = flat.axis, flat.sizes, flat.sizes2
    if any(isinstance(v, Flat) and (v.axis, v.sizes) != (j, sizes) for v in values):
        raise equation.refuse("its operands have different axes merged with the width.")
    wide = tuple(a != b for a, b in zip(sizes, sizes2, strict=True))
    rank = len(equation.out_shapes[0][0])

    def shapes(pair):
        if len(pair[0]) != rank:
            return pair
        out = []
        for shape, parts in zip(pair, (sizes, sizes2), strict=True):
            new = parts if shape[j] == math.prod(parts) else (1,) * len(parts)
            out.append((*shape[:j], *new, *shape[j + 1 :]))
        return tuple(out)

    parted = dataclasses.replace(
        equation, in_shapes=[shapes(s) for s in equation.in_shapes], out_shapes=[shapes(s) for s in equation.out_shapes]
    )
    parts = []
    for value, before, after in zip(values, equation.in_shapes, parted.in_shapes, strict=True):
        if isinstance(value, Field | Heads):
            parts.append(seen_as(interpreter, equation, value, (before, after)))
        else:
            parts.append(apart(value, j, sizes, wide) if len(before[0]) == rank else value)
    if any(isinstance(part, Heads) for part in parts):
        out = each_head(interpreter, parted, parts, function)
    else:
        out = function(interpreter, parted, parts)
    return Flat(out, j, sizes, sizes2) if isinstance(out, Field | Heads) else out


def seen_as(interpreter, equation, value, shapes):
    """A field, or one merged before, in another shape: (before, after), each at the two widths."""
    before, after = shapes
    reshape = dataclasses.replace(
        equation, name="reshape", params={}, params2={}, in_shapes=[before], out_shapes=[after]
    )
    return RULES["reshape"](interpreter, reshape, [value])


def merged(field: Field | Heads, wide: int | None, groups: list[list[int]], before) -> Flat:
    """The field whose array has each group of neighbouring axes merged; one group holds the wide axis and others.

    before: shapes of the array at the two widths.
    """
    j = next(i for i, g in enumerate(groups) if wide in g)
    sizes, sizes2 = (tuple(shape[a] for a in groups[j]) for shape in before)
    return Flat(field, j, sizes, sizes2)
