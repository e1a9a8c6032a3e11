"""Primitives that move, cut, join or sum axes."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np

from widelimit._precision import at_once, is_traced
from widelimit.fields import Axes, Const, Ew, Linear, Node, Sum, Take, has_parameters, is_number
from widelimit.trace._contraction import permuted, without_axis
from widelimit.trace._flat import merged
from widelimit.trace._interpreter import rule
from widelimit.trace._values import Det, Field, Flat, Weight, as_field, shifted

__all__ = ["cut_width", "stacked", "taken"]


def _wide_sizes(equation, i=0):
    """Output shape with its wide axes at size 1."""
    return tuple(1 if w else n for w, n in zip(equation.wide_out(i), equation.out_shapes[i][0], strict=True))


def _finite_index(field: Field, axis: int) -> int:
    return axis - (field.wide_axis is not None and axis > field.wide_axis)


@rule("transpose")
def _transpose(interpreter, equation, values):
    order = equation.params["permutation"]
    value = values[0]
    if isinstance(value, Det):
        return Det(jnp.transpose(value.array, order))
    if isinstance(value, Weight):
        return dataclasses.replace(value, axes=tuple(value.axes[i] for i in order))
    return permuted(value, order)


@rule("broadcast_in_dim")
def _broadcast(interpreter, equation, values):
    value, where = values[0], equation.params["broadcast_dimensions"]
    shape = _wide_sizes(equation)
    if isinstance(value, Det):
        array = jnp.asarray(value.array)
        expanded = [1] * len(shape)
        for i, j in enumerate(where):
            expanded[j] = array.shape[i]
        return Det(jnp.broadcast_to(array.reshape(expanded), shape))
    if isinstance(value, Weight):
        added = [i for i in range(len(shape)) if i not in where]
        if all(shape[i] == 1 and not equation.wide_out()[i] for i in added) and (
            equation.in_shapes[0][0] == tuple(equation.out_shapes[0][0][j] for j in where)
        ):
            axes: list = [None] * len(shape)
            for i, j in enumerate(where):
                axes[j] = value.axes[i]
            return dataclasses.replace(value, axes=tuple(axes))
        value = as_field(value)
    return _broadcast_field(equation, value, where, shape)


def _broadcast_field(equation, field, where, shape):
    wide_out = equation.wide_out()
    axis = None if field.wide_axis is None else where[field.wide_axis]
    if any(w and i != axis for i, w in enumerate(wide_out)):
        raise equation.refuse("a random value is repeated along a wide axis, so its channels are not independent.")
    finite_out = [i for i in range(len(shape)) if i != axis]
    back = {j: i for i, j in enumerate(where)}
    in_shape = equation.in_shapes[0][0]
    source = []
    for i in finite_out:
        if i in back and (in_shape[back[i]] == shape[i]):
            source.append(_finite_index(field, back[i]))
        else:
            source.append(None)  # new, or repeated from size 1 (that axis of the child is dropped)
    sizes = tuple(shape[i] for i in finite_out)
    if source == list(range(len(field.shape))):
        return Field(field.blocks, axis)
    return Field(tuple((Axes(x, tuple(source), sizes), n) for x, n in field.blocks), axis)


@rule("squeeze", "reshape", "expand_dims", takes_flat=True)
def _reshape(interpreter, equation, values):
    value = values[0]
    if isinstance(value, Flat):
        return _reshape_flat(interpreter, equation, value)
    before, after = equation.in_shapes[0][0], equation.out_shapes[0][0]
    if isinstance(value, Det):
        return Det(jnp.reshape(value.array, _wide_sizes(equation)))
    matches = _axis_matches(before, after)
    if matches is None and isinstance(value, Field):
        return _merge(equation, value)
    if matches is None or (equation.params.get("dimensions", None) not in (None,) and equation.name == "reshape"):
        raise equation.refuse(
            "axes are merged or split.",
            "Remedy: keep the axes apart (contract over several axes with jnp.einsum).",
        )
    if isinstance(value, Weight):
        axes = tuple(None if j is None else value.axes[j] for j in matches)
        if any(value.axes[j] is not None and j not in matches for j in range(len(before))):
            value = as_field(value)
        else:
            return dataclasses.replace(value, axes=axes)
    axis = None if value.wide_axis is None else matches.index(value.wide_axis)
    source = tuple(None if j is None else _finite_index(value, j) for i, j in enumerate(matches) if i != axis)
    sizes = tuple(n for i, n in enumerate(after) if i != axis)
    if source == tuple(range(len(value.shape))):
        return Field(value.blocks, axis)
    return Field(tuple((Axes(x, source, sizes), n) for x, n in value.blocks), axis)


def _merge(equation, field):
    """Neighbouring axes made one, where that holds the wide axis."""
    groups = _groups(equation.in_shapes[0], equation.out_shapes[0])
    plain = groups is not None and all(len(g) == 1 or field.wide_axis in g for g in groups)
    if groups is None or not plain:
        raise equation.refuse(
            "axes are merged or split.", "Remedy: keep the axes apart (contract over several axes with jnp.einsum)."
        )
    return merged(field, groups, equation.in_shapes[0])


def _groups(before, after) -> list[list[int]] | None:
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
    while i < len(before[0]) and before[0][i] == 1:
        out[-1].append(i)
        i += 1
    return out if i == len(before[0]) else None


def _reshape_flat(interpreter, equation, value):
    """Merged axes taken apart again, or axes of size 1 put beside them."""
    before = equation.in_shapes[0]
    j, parts, parts2 = value.axis, value.sizes, value.sizes2
    whole = tuple((*s[:j], *p, *s[j + 1 :]) for s, p in zip(before, (parts, parts2), strict=True))
    direct = dataclasses.replace(equation, name="reshape", params={}, params2={}, in_shapes=[whole])
    return _reshape(interpreter, direct, [value.field])


def _axis_matches(before, after):
    """For each output axis the input axis it is, None for a new axis of size 1; None if axes merge or split."""
    out: list[int | None] = []
    i = 0
    for n in after:
        while i < len(before) and before[i] == 1 and n != 1:
            i += 1
        if i < len(before) and before[i] == n:
            out.append(i)
            i += 1
        elif n == 1:
            out.append(None)
        else:
            return None
    return out if all(n == 1 for n in before[i:]) else None


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
        value = _cut(interpreter, equation, value, axis, start[axis], limit[axis], strides[axis], wide[axis])
    return value


def _cut(interpreter, equation, value, axis, start, limit, stride, wide):
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
    index = _finite_index(field, axis)
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
        out.append(_cut(interpreter, equation, values[0], axis, start, start + size, 1, wide))
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
        value = _cut(interpreter, equation, value, axis, start, start + size, 1, equation.wide_in(0)[axis])
    return value


@rule("concatenate")
def _concatenate(interpreter, equation, values):
    axis = equation.params["dimension"]
    if all(isinstance(v, Det) for v in values):
        if equation.wide_out()[axis]:
            raise equation.refuse("constants are joined along a wide axis.")
        return Det(jnp.concatenate([v.array for v in values], axis))
    sizes = [s[0][axis] for s in equation.in_shapes]
    fields = []
    for i, v in enumerate(values):
        v = as_field(v) if isinstance(v, Weight) else v
        if isinstance(v, Det):
            wide_axis = next((a for a, w in enumerate(equation.wide_out()) if w), None)
            array = jnp.asarray(v.array)
            array = array if wide_axis is None else jnp.squeeze(array, wide_axis)
            n = 1 if wide_axis is None else equation.in_shapes[i][0][wide_axis]
            v = Field(((Const(array), n),), wide_axis)
        fields.append(v)
    if fields[0].wide_axis == axis:
        return Field(tuple(b for f in fields for b in f.blocks), axis)
    if any(len(f.blocks) > 1 for f in fields):
        raise equation.refuse("fields made of blocks of channels are joined along a finite axis.")
    index = _finite_index(fields[0], axis)
    total, start, terms = sum(sizes), 0, []
    for field, size in zip(fields, sizes, strict=True):
        place = np.full(total, -1)
        place[start : start + size] = np.arange(size)
        terms.append((1.0, Take(field.blocks[0][0], index, place)))
        start += size
    return Field(((Sum(terms), fields[0].blocks[0][1]),), fields[0].wide_axis)


@rule("stack")
def _stack(interpreter, equation, values):
    return stacked(interpreter, equation, values, equation.params["axis"], equation.out_shapes[0])


def stacked(interpreter, equation, values, axis: int, out_shapes):
    """Values of one shape joined along a new axis."""
    if all(isinstance(v, Det) for v in values):
        arrays = [jnp.asarray(v.array) for v in values]
        return Det(jnp.stack(jnp.broadcast_arrays(*arrays), axis))
    inner = tuple(s[:axis] + s[axis + 1 :] for s in out_shapes)
    one = tuple((*s[:axis], 1, *s[axis + 1 :]) for s in out_shapes)
    where = tuple(i for i in range(len(out_shapes[0])) if i != axis)
    expand = dataclasses.replace(
        equation, name="broadcast_in_dim", params={"broadcast_dimensions": where}, in_shapes=[inner], out_shapes=[one]
    )
    pieces = [_broadcast(interpreter, expand, [v]) for v in values]
    join = dataclasses.replace(
        equation,
        name="concatenate",
        params={"dimension": axis},
        in_shapes=[one] * len(values),
        out_shapes=[tuple(out_shapes)],
    )
    return _concatenate(interpreter, join, pieces)


@rule("reduce_sum", takes_flat=True)
def _reduce_sum(interpreter, equation, values):
    value, axes = values[0], equation.params["axes"]
    if isinstance(value, Flat):
        if value.axis not in axes:
            raise equation.refuse("an axis beside one that is merged with the width is summed over.")
        more = len(value.sizes) - 1
        axes = [a + more * (a > value.axis) for a in axes if a != value.axis]
        axes += range(value.axis, value.axis + len(value.sizes))
        shapes = [
            (*s[: value.axis], *parts, *s[value.axis + 1 :])
            for s, parts in zip(equation.in_shapes[0], (value.sizes, value.sizes2), strict=True)
        ]
        equation = dataclasses.replace(equation, params={"axes": tuple(axes)}, in_shapes=[tuple(shapes)])
        return _reduce_sum(interpreter, equation, [value.field])
    wide = equation.wide_in(0)
    if isinstance(value, Det):
        count = 1
        for a in axes:
            if wide[a]:
                count *= equation.in_shapes[0][0][a]
        return Det(jnp.sum(jnp.asarray(value.array), axis=tuple(axes)) * float(count))
    if isinstance(value, Weight):
        value = as_field(value)
    finite = sorted((a for a in axes if a != value.wide_axis), reverse=True)
    if value.wide_axis in axes:
        array = interpreter.field_mean(value)
        with at_once(array):
            array = jnp.broadcast_to(jnp.asarray(array, interpreter.dtype), value.shape)
            return Det(jnp.sum(array, axis=tuple(_finite_index(value, a) for a in finite)))
    for a in finite:
        value = _sum_axis(value, _finite_index(value, a))
    return value


def _sum_axis(field, index):
    summed = field.map(lambda x: Linear(x, index, jnp.ones((1, x.shape[index]))))
    wide = field.wide_axis
    return without_axis(summed, index, index + (wide is not None and index >= wide))


@rule("reduce_max", "reduce_min", "argmax", "argmin", "sort", "reduce_prod", "top_k", "reduce_window_max")
def _no_limit(interpreter, equation, values):
    if all(isinstance(v, Det) for v in values) and not any(equation.wide_in(0)):
        return interpreter._evaluate(equation, values)
    axes = equation.params.get("axes", equation.params.get("dimension"))
    raise equation.refuse(f"taken over axes {axes} of a wide random field it has no deterministic closed-form limit.")


@rule("rev")
def _reverse(interpreter, equation, values):
    value = values[0]
    if isinstance(value, Det):
        return Det(jnp.flip(jnp.asarray(value.array), equation.params["dimensions"]))
    value = as_field(value) if isinstance(value, Weight) else value
    for axis in equation.params["dimensions"]:
        if axis == value.wide_axis:
            raise equation.refuse("the channels of a wide axis are reversed.")
        index = _finite_index(value, axis)
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
        index = _finite_index(value, axis)
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


@rule("cumsum")
def _cumulative_sum(interpreter, equation, values):
    value, axis = values[0], equation.params["axis"]
    value = as_field(value) if isinstance(value, Weight) else value
    if isinstance(value, Det) or axis == value.wide_axis:
        raise equation.refuse("a cumulative sum over the width has no limit.")
    index, n = _finite_index(value, axis), equation.in_shapes[0][0][axis]
    matrix = np.tril(np.ones((n, n)))
    matrix = matrix.T if equation.params["reverse"] else matrix
    return value.map(lambda x: Linear(x, index, jnp.asarray(matrix)))


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
    index = _finite_index(value, axis)
    picked = value.map(lambda x: taken(x, index, np.atleast_1d(at)))
    if at.ndim == 0:
        return without_axis(picked, index, axis)
    batch = next(i for i in range(len(shape)) if i not in dims.offset_dims)
    order = [a for a in range(len(shape)) if a != axis]
    order.insert(batch, axis)
    return permuted(picked, order)
