"""Primitives that pick positions: slices, splits, flips, padding, gathers."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from widelimit._precision import at_once, is_traced
from widelimit.fields import Axes, Const, Ew, Frozen, Node, Split, Sum, Take, Vec, has_parameters, is_number
from widelimit.trace._axes import finite_index, permuted, without_axis
from widelimit.trace._rules import on_one_head, rule
from widelimit.trace._values import Det, Field, Heads, Weight, as_field, shifted

__all__ = ["cut", "cut_width", "reversed_along", "sliced", "taken"]


@rule("slice", takes_heads=True)
def sliced(interpreter, equation, values):
    if isinstance(values[0], Heads):
        shape, p = equation.in_shapes[0][0], equation.params
        parts = zip(p["start_indices"], p["limit_indices"], p["strides"] or (1,) * len(shape), strict=True)
        if any(w and part != (0, n, 1) for w, n, part in zip(equation.wide_in(0), shape, parts, strict=True)):
            raise equation.refuse("some of infinitely many heads, or of their channels, are taken.")
        return on_one_head(sliced, equation, values[0], ("start_indices", "limit_indices", "strides"))
    start, limit = equation.params["start_indices"], equation.params["limit_indices"]
    start2, limit2 = equation.params2["start_indices"], equation.params2["limit_indices"]
    strides = equation.params["strides"] or (1,) * len(start)
    value = values[0]
    wide = equation.wide_in(0)
    for axis in range(len(start)):
        whole = (start[axis], limit[axis], strides[axis]) == (0, equation.in_shapes[0][0][axis], 1)
        whole2 = (start2[axis], limit2[axis]) == (0, equation.in_shapes[0][1][axis])
        if whole and whole2:
            continue
        if wide[axis] and not equation.wide_out()[axis]:
            raise equation.refuse(
                "a fixed number of channels is cut out of a wide axis.",
                "Remedy: cut fractions of the width (n // 2), or give the part its own layer.",
            )
        if wide[axis] and strides[axis] != 1:
            raise equation.refuse("channels are taken with a stride.")
        value = cut(interpreter, equation, value, axis, start[axis], limit[axis], strides[axis], wide[axis])
    return value


def cut(interpreter, equation, value, axis, start, limit, stride, wide):
    if isinstance(value, Det):
        if wide:
            return value
        index = [slice(None)] * jnp.ndim(value.array)
        index[axis] = slice(start, limit, stride)
        return Det(jnp.asarray(value.array)[tuple(index)])
    if isinstance(value, Weight) and stride == 1 and value.axes[axis] is not None:
        own = value.axes[axis]
        starts, sizes = list(value.start), list(value.size)
        starts[own] += value.size[own] - limit if own in value.flips else start
        sizes[own] = limit - start
        return dataclasses.replace(value, start=tuple(starts), size=tuple(sizes))
    field = as_field(value) if isinstance(value, Weight) else value
    if axis == field.wide_axis:
        return cut_width(field, start, limit)
    index = finite_index(field, axis)
    return field.map(lambda x: taken(x, index, np.arange(start, limit, stride)))


def taken(node: Node, axis: int, index: np.ndarray) -> Node:
    """The node at positions of a finite axis; a function of it is the function of what is taken."""
    if isinstance(node, Const):
        return Const(jnp.take(node.array, index, axis=axis))
    if isinstance(node, Ew) and not has_parameters(node.expression):
        return Ew(node.expression, taken(node.leaf, axis, index))
    return _of_what_is_placed(node, axis, index) or Take(node, axis, index)


def _of_what_is_placed(node: Node, axis: int, index: np.ndarray) -> Node | None:
    """What is taken of fields put side by side along the axis (queries beside keys): only of those that are there."""
    if isinstance(node, Axes) and node.source[axis] is not None:
        child = _of_what_is_placed(node.child, node.source[axis], index)  # type: ignore[arg-type]
        shape = (*node.shape[:axis], len(index), *node.shape[axis + 1 :])
        return None if child is None else Axes(child, node.source, shape)
    if not isinstance(node, Sum) or np.min(index, initial=0) < 0:
        return None
    if not all(isinstance(x, Take) and x.axis == axis and jnp.ndim(c) == 0 for c, x in node.terms):
        return None
    places = [(c, x.child, x.index[index]) for c, x in node.terms if isinstance(x, Take)]
    terms: list[tuple[Any, Node]] = [(c, Take(x, axis, at)) for c, x, at in places if np.any(at >= 0)]
    return Sum(terms) if 0 < len(terms) < len(node.terms) else None


def cut_width(field, start, limit):
    blocks, low = [], 0
    for node, n in field.blocks:
        a, b = max(start, low), min(limit, low + n)
        if a < b:
            blocks.append((shifted(node, a - low), b - a))
        low += n
    return Field(tuple(blocks), field.wide_axis)


@rule("split")
def _split(interpreter, equation, values):
    axis, out, start = equation.params["axis"], [], 0
    for i, size in enumerate(equation.params["sizes"]):
        wide = equation.wide_in(0)[axis]
        if wide and not equation.wide_out(i)[axis]:
            raise equation.refuse("a fixed number of channels is cut out of a wide axis.")
        out.append(cut(interpreter, equation, values[0], axis, start, start + size, 1, wide))
        start += size
    return out


@rule("dynamic_slice")
def _dynamic_slice(interpreter, equation, values):
    sizes = equation.params["slice_sizes"]
    value = values[0]
    for axis, (index, size) in enumerate(zip(values[1:], sizes, strict=True)):
        if size == equation.in_shapes[0][0][axis]:
            continue
        if not isinstance(index, Det):
            raise equation.refuse("the index is random.")
        if is_traced(index.array):
            value = _moving_slice(equation, value, axis, index.array, size)
            continue
        start = int(np.clip(int(index.array), 0, equation.in_shapes[0][0][axis] - size))
        value = cut(interpreter, equation, value, axis, start, start + size, 1, equation.wide_in(0)[axis])
    return value


def _moving_slice(equation, value, axis, start, size):
    """`size` entries from a place that depends on the input on."""
    value = as_field(value) if isinstance(value, Weight) else value
    if not isinstance(value, Field) or axis == value.wide_axis:
        raise equation.refuse("the place of a slice of a constant, or of channels, depends on the input.")
    start = jnp.clip(start, 0, equation.in_shapes[0][0][axis] - size)
    return _at(equation, value, axis, start + jnp.arange(size))


@rule("rev")
def _reverse(interpreter, equation, values):
    value = values[0]
    for axis in equation.params["dimensions"]:
        if equation.wide_in(0)[axis] and not isinstance(value, Det):
            raise equation.refuse("the channels of a wide axis are reversed.")
        value = reversed_along(value, axis)
    return value


def reversed_along(value, axis: int):
    """The value with one axis of positions of its array reversed."""
    if isinstance(value, Det):
        return Det(jnp.flip(jnp.asarray(value.array), axis))
    if isinstance(value, Weight):
        return value.flipped(axis)
    index = finite_index(value, axis)
    return value.map(lambda x: taken(x, index, np.arange(x.shape[index])[::-1]))


@rule("pad")
def _pad(interpreter, equation, values):
    value, fill = values
    if isinstance(value, Det) or not isinstance(fill, Det):
        raise equation.refuse("a constant along the width is padded, or a field with something random.")
    value = as_field(value) if isinstance(value, Weight) else value
    shape = equation.in_shapes[0][0]
    for axis, (low, high, inner) in enumerate(equation.params["padding_config"]):
        if (low, high, inner) == (0, 0, 0):
            continue
        if axis == value.wide_axis:
            raise equation.refuse("a wide axis is padded.")
        n = shape[axis]
        at = np.arange(-low, (n - 1) * (inner + 1) + 1 + high)
        place = np.where((at >= 0) & (at < (n - 1) * (inner + 1) + 1) & (at % (inner + 1) == 0), at // (inner + 1), -1)
        index = finite_index(value, axis)
        value = value.map(lambda x, i=index, p=place: _padded(x, i, p, fill.array, equation))
    return value


def _padded(node, axis, place, fill, equation):
    out = Take(node, axis, place)
    if is_number(fill) and float(fill) == 0:
        return out
    shape = [1] * len(node.shape)
    shape[axis] = len(place)
    edge = jnp.broadcast_to(jnp.where((place < 0).reshape(shape), jnp.asarray(fill), 0), out.shape)
    return Sum([(1.0, out), (1.0, Const(edge))])


@rule("gather")
def _gather(interpreter, equation, values):
    """Positions along one axis: ``x[i]``, ``x[[2, 0, 1]]``; of a parameter, also by indices from the input (tokens)."""
    value, indices = values
    dims, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    value = as_field(value) if isinstance(value, Weight) else value
    shape = equation.in_shapes[0][0]
    if not isinstance(value, Field) or not isinstance(indices, Det):
        raise equation.refuse("the indices are random, or the values are constants with a wide axis.")
    # an axis taken whole starts at its start, whatever the index
    axes = [a for a in dims.start_index_map if (sizes[a], equation.params2["slice_sizes"][a]) != _both(equation, a)]
    for a in list(axes):  # the same start at every index: a slice (older JAX writes x[1:6, ::2] so)
        start = _one_start(indices.array, list(dims.start_index_map).index(a)) if len(axes) > 1 else None
        if start is not None and a != value.wide_axis and sizes[a] > 1:
            start = min(max(start, 0), shape[a] - sizes[a])
            index, at = finite_index(value, a), np.arange(start, start + sizes[a])
            value = value.map(lambda x, i=index, at=at: taken(x, i, at))
            shape = (*shape[:a], sizes[a], *shape[a + 1 :])
            axes.remove(a)
    if len(axes) != 1 or getattr(dims, "operand_batching_dims", ()) or axes[0] == value.wide_axis:
        raise equation.refuse("only one axis of positions can be indexed at a time.")
    axis = axes[0]
    collapsed = tuple(dims.collapsed_slice_dims)
    if (
        any(n != shape[a] for a, n in enumerate(sizes) if a != axis)
        or sizes[axis] != 1
        or collapsed not in ((axis,), ())
    ):
        raise equation.refuse("only single positions along one axis can be picked.")
    with at_once(indices.array):
        at = jnp.asarray(indices.array)[..., list(dims.start_index_map).index(axis)]
        at = jnp.clip(at, 0, shape[axis] - 1)
    picked = _at(equation, value, axis, at)
    # axes now: the operand's, those of the indices in place of the one picked from
    kept = iter([a if a < axis else a + at.ndim - 1 for a in range(len(shape)) if a != axis])
    new = iter(range(axis, axis + at.ndim))
    single = None if collapsed else dims.offset_dims[axis]  # an axis of size 1 that is left of the one picked from
    rank = len(shape) - 1 + at.ndim + (single is not None)
    out = permuted(picked, [next(kept) if i in dims.offset_dims else next(new) for i in range(rank) if i != single])
    return out if single is None else _with_axis(out, single)


def _one_start(indices, which: int) -> int | None:
    """Where a slice starts that starts at one place whatever the index; None where it does not, or is not known."""
    if is_traced(indices):
        return None
    starts = np.unique(np.asarray(indices)[..., which])
    return int(starts[0]) if len(starts) == 1 else None


def _both(equation, axis: int) -> tuple[int, int]:
    return equation.in_shapes[0][0][axis], equation.in_shapes[0][1][axis]


def _with_axis(field, position: int):
    """A new axis of size 1 of the array."""
    wide = field.wide_axis
    at = position - (wide is not None and position > wide)

    def put(x):
        source = list(range(len(x.shape)))
        return Axes(x, (*source[:at], None, *source[at:]), (*x.shape[:at], 1, *x.shape[at:]))

    return Field(field.map(put).blocks, wide if wide is None or wide < position else wide + 1)


def _at(equation, field, axis: int, at):
    """The field at indices along one axis, whose place the axes of `at` take."""
    index = finite_index(field, axis)
    if not is_traced(at):
        flat = field.map(lambda x: taken(x, index, np.asarray(at).ravel()))
        if at.ndim == 0:
            return without_axis(flat, index, axis)
        out = flat if at.ndim == 1 else flat.map(lambda x: Split(x, index, at.shape))
    else:
        out = field.map(lambda x: _entries(equation, x, index, at))
    wide = field.wide_axis
    return Field(out.blocks, wide if wide is None or wide < axis else wide + at.ndim - 1)


def _entries(equation, node, axis: int, at):
    """A parameter's entries at indices that depend on the input (tokens): the node itself, read at other places."""
    if isinstance(node, Ew) and not has_parameters(node.expression):
        return Ew(node.expression, _entries(equation, node.leaf, axis, at))
    if isinstance(node, Frozen):
        return Frozen(_entries(equation, node.child, axis, at))
    if isinstance(node, Sum) and all(jnp.ndim(c) == 0 for c, _ in node.terms):
        return Sum([(c, _entries(equation, x, axis, at)) for c, x in node.terms])
    if isinstance(node, Const):
        return Const(jnp.take(node.array, at, axis=axis))
    if not isinstance(node, Vec):
        raise equation.refuse(
            "positions of a field are picked by indices that depend on the input.",
            "Remedy: pick rows of the parameter (embedding[tokens]) before anything else is done with it.",
        )
    places = []
    for p in node.own_places():
        if p.shape[axis] == 1:
            places.append(p.reshape(*p.shape[:axis], *(1,) * at.ndim, *p.shape[axis + 1 :]))
        else:
            places.append(jnp.take(jnp.asarray(p), at, axis=axis))
    shape = (*node.shape[:axis], *at.shape, *node.shape[axis + 1 :])
    return Vec(node.key, node.prior, shape, node.offset, tuple(places))
