"""Primitives that pick positions: slices, splits, flips, padding, gathers."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np

from widelimit._precision import is_traced
from widelimit.fields import Const, Ew, Node, Sum, Take, has_parameters, is_number
from widelimit.trace._contraction import permuted, without_axis
from widelimit.trace._interpreter import rule
from widelimit.trace._shape import finite_index
from widelimit.trace._values import Det, Field, Weight, as_field, shifted

__all__ = ["cut", "cut_width", "taken"]


@rule("slice")
def _slice(interpreter, equation, values):
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
        starts[own] += start
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
    return Take(node, axis, index)


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
        start = int(np.clip(int(index.array), 0, equation.in_shapes[0][0][axis] - size))
        value = cut(interpreter, equation, value, axis, start, start + size, 1, equation.wide_in(0)[axis])
    return value


@rule("rev")
def _reverse(interpreter, equation, values):
    value = values[0]
    if isinstance(value, Det):
        return Det(jnp.flip(jnp.asarray(value.array), equation.params["dimensions"]))
    value = as_field(value) if isinstance(value, Weight) else value
    for axis in equation.params["dimensions"]:
        if axis == value.wide_axis:
            raise equation.refuse("the channels of a wide axis are reversed.")
        index = finite_index(value, axis)
        value = value.map(lambda x, i=index: taken(x, i, np.arange(x.shape[i])[::-1]))
    return value


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
    """Positions along one axis by indices that are known: ``x[i]``, ``x[[2, 0, 1]]``."""
    value, indices = values
    dims, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    value = as_field(value) if isinstance(value, Weight) else value
    shape = equation.in_shapes[0][0]
    if not isinstance(value, Field) or not isinstance(indices, Det) or is_traced(indices.array):
        raise equation.refuse("the indices depend on the input, or the values are constants with a wide axis.")
    axes = dims.start_index_map
    if len(axes) != 1 or getattr(dims, "operand_batching_dims", ()) or axes[0] == value.wide_axis:
        raise equation.refuse("only one axis of positions can be indexed at a time.")
    axis = axes[0]
    if any(n != shape[a] for a, n in enumerate(sizes) if a != axis) or tuple(dims.collapsed_slice_dims) != axes:
        raise equation.refuse("only whole positions along one axis can be picked.")
    at = np.asarray(indices.array)[..., 0]
    if at.ndim > 1:
        raise equation.refuse("only a position or a list of positions can be picked.")
    at = np.clip(at, 0, shape[axis] - 1)
    index = finite_index(value, axis)
    picked = value.map(lambda x: taken(x, index, np.atleast_1d(at)))
    if at.ndim == 0:
        return without_axis(picked, index, axis)
    batch = next(i for i in range(len(shape)) if i not in dims.offset_dims)
    order = [a for a in range(len(shape)) if a != axis]
    order.insert(batch, axis)
    return permuted(picked, order)
