"""Primitives that move, cut, join or sum axes."""

from __future__ import annotations

import dataclasses
import math

import jax.numpy as jnp
import numpy as np

from widelimit.fields import Axes, Const, Merge, Split, Sum, Take
from widelimit.trace._axes import axis_groups, finite_index, permuted
from widelimit.trace._flat import merged
from widelimit.trace._groups import grouped, reshaped_constant, ungrouped
from widelimit.trace._heads import split_into_heads, transposed
from widelimit.trace._picking import sliced
from widelimit.trace._rules import on_one_head, rule
from widelimit.trace._values import Det, Field, Flat, Heads, Weight, aligned, as_field, known

__all__ = ["stacked"]


def _wide_sizes(equation, i=0):
    """Output shape with its wide axes at size 1."""
    return tuple(1 if w else n for w, n in zip(equation.wide_out(i), equation.out_shapes[i][0], strict=True))


@rule("transpose", takes_heads=True)
def _transpose(interpreter, equation, values):
    order = equation.params["permutation"]
    value = values[0]
    if isinstance(value, Det):
        return Det(jnp.transpose(value.array, order))
    if isinstance(value, Heads):
        return transposed(equation, value)
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
        constant = known(value, interpreter.dtype)
        if isinstance(constant, Det):
            return _broadcast(interpreter, equation, [constant])
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
            source.append(finite_index(field, back[i]))
        else:
            source.append(None)  # new, or repeated from size 1 (that axis of the child is dropped)
    sizes = tuple(shape[i] for i in finite_out)
    if source == list(range(len(field.shape))):
        return Field(field.blocks, axis)
    return Field(tuple((Axes(x, tuple(source), sizes), n) for x, n in field.blocks), axis)


@rule("squeeze", "reshape", "expand_dims", takes_flat=True, takes_heads=True)
def _reshape(interpreter, equation, values):
    value = values[0]
    if isinstance(value, Flat):
        return _reshape_flat(interpreter, equation, value)
    if isinstance(value, Heads):
        return _reshape_heads(equation, value)
    if isinstance(value, Det):
        return reshaped_constant(equation, value)
    matches = _axis_matches(equation.in_shapes[0], equation.out_shapes[0])
    if matches is None and isinstance(value, Field):
        return _merge(equation, value)
    if matches is None and isinstance(value, Weight):
        return _split_weight(equation, value)
    if matches is None or (equation.params.get("dimensions", None) not in (None,) and equation.name == "reshape"):
        raise equation.refuse(
            "axes are merged or split.",
            "Remedy: keep the axes apart (contract over several axes with jnp.einsum).",
        )
    if isinstance(value, Weight):
        axes = tuple(None if j is None else value.axes[j] for j in matches)
        # an axis of which one entry was taken (W[i]) is left; the parameter knows which
        return dataclasses.replace(value, axes=axes)
    axis = None if value.wide_axis is None else matches.index(value.wide_axis)
    source = tuple(None if j is None else finite_index(value, j) for i, j in enumerate(matches) if i != axis)
    sizes = tuple(n for i, n in enumerate(equation.out_shapes[0][0]) if i != axis)
    if source == tuple(range(len(value.shape))):
        return Field(value.blocks, axis)
    return Field(tuple((Axes(x, source, sizes), n) for x, n in value.blocks), axis)


def _merge(equation, field):
    """Neighbouring axes made one, where that holds the wide axis."""
    groups = axis_groups(equation.in_shapes[0], equation.out_shapes[0])
    if groups is None:
        return _split_axes(equation, field)
    if all(len(g) == 1 or field.wide_axis not in g for g in groups):
        return _merge_positions(field, groups)
    if any(len(g) > 1 and field.wide_axis not in g for g in groups):
        raise equation.refuse("axes of positions are merged, and others with the width, at once.")
    return ungrouped(field, groups) or merged(field, field.wide_axis, groups, equation.in_shapes[0])


def _reshape_heads(equation, heads):
    """Heads and their channels joined; the two are contracted at once then."""
    groups = axis_groups(equation.in_shapes[0], equation.out_shapes[0])
    wide = {i for i, w in enumerate(equation.wide_in(0)) if w}
    matches = _axis_matches(equation.in_shapes[0], equation.out_shapes[0])
    if matches is not None:
        return on_one_head(_reshape, equation, heads, (), matches.index(heads.axis))
    if groups is None or len(wide) != 2 or not all(len(g) == 1 or wide <= set(g) for g in groups):
        raise equation.refuse(
            "axes of a field with infinitely many heads are merged or split, other than its heads with their channels.",
            "Remedy: only out.reshape(positions, heads * channels), and positions by themselves before or after.",
        )
    if any(len(g) > 2 for g in groups):
        raise equation.refuse(
            "positions are merged with heads and their channels.",
            "Remedy: contract with a parameter of as many axes, einsum('phd,phdc->c', y, W).",
        )
    return merged(heads, heads.axis, groups, equation.in_shapes[0])


def _split_axes(equation, field):
    """Each axis seen as one or several neighbouring ones; the width as a fixed number of parts, side by side."""
    groups = axis_groups(equation.out_shapes[0], equation.in_shapes[0])
    if groups is None:
        raise equation.refuse(
            "axes are merged and split.", "Remedy: keep the axes apart (contract over several axes with jnp.einsum)."
        )
    after, after2 = equation.out_shapes[0]
    wide = field.wide_axis
    for i in reversed(range(len(groups))):
        group = groups[i]
        if len(group) > 1 and i != wide:
            index, sizes = finite_index(field, i), tuple(after[a] for a in group)
            field = field.map(lambda x, i=index, s=sizes: Split(x, i, s))
    if wide is None or len(groups[wide]) == 1:
        return Field(field.blocks, None if wide is None else groups[wide][0])
    group = groups[wide]
    many = [a for a in group if after[a] != after2[a]]
    few, members = [a for a in group if a < many[0]], [a for a in group if a > many[-1]]
    if few + many + members != group or len(many) > 2 or (members and len(many) > 1):
        raise equation.refuse(
            "the width is split into axes of which some have a fixed size, between or after two that are wide.",
            "Remedy: a fixed number of heads, wide each; groups of a fixed size (n // 8, 8); or as many heads as "
            "channels (both axes wide).",
        )
    if members:
        field = grouped(equation, field, group[0], tuple(after[a] for a in members))
    sizes = tuple(after[a] for a in few)
    field = _heads(field, group[0], math.prod(sizes), sizes) if few else field
    if len(many) == 1:
        return field
    return split_into_heads(equation, field, many[0], after[many[0]])


def _heads(field, position: int, count: int, sizes: tuple[int, ...]):
    """The channels in `count` parts of equal width, along a new axis at `position`, which is then seen as `sizes`."""
    from widelimit.trace._picking import cut_width

    n = sum(m for _, m in field.blocks) // count
    parts = [cut_width(field, i * n, (i + 1) * n) for i in range(count)]
    out = []
    for nodes, m in aligned(parts):
        shape = nodes[0].shape
        source = (*range(position), None, *range(position, len(shape)))
        terms = []
        for i, node in enumerate(nodes):
            place = np.full(count, -1)
            place[i] = 0
            terms.append((1.0, Take(Axes(node, source, (*shape[:position], 1, *shape[position:])), position, place)))
        out.append((Sum(terms), m))
    heads = Field(tuple(out), position + 1)
    if len(sizes) == 1:
        return heads
    return Field(heads.map(lambda x: Split(x, position, sizes)).blocks, position + len(sizes))


def _merge_positions(field, groups):
    """Neighbouring axes of positions made one."""
    for group in reversed(groups):
        if len(group) > 1:
            index, count = finite_index(field, group[0]), len(group)
            field = field.map(lambda x, i=index, n=count: Merge(x, i, n))
    return Field(field.blocks, next((i for i, g in enumerate(groups) if field.wide_axis in g), None))


def _split_weight(equation, weight):
    """Each axis of a parameter's array seen as one or several neighbouring ones."""
    groups = axis_groups(equation.out_shapes[0], equation.in_shapes[0])
    if groups is None:
        raise equation.refuse("axes of a parameter are merged.", "Remedy: give the parameter the shape it is used in.")
    after, after2 = equation.out_shapes[0]
    for i, group in enumerate(groups):
        sizes = tuple(after[a] for a in group)
        if len(group) > 1:
            weight = weight.split(group[0], sizes, tuple(after[a] != after2[a] for a in group))
        elif sizes[0] != equation.in_shapes[0][0][i]:
            raise equation.refuse("axes of a parameter are merged and split.")
    return weight


def _reshape_flat(interpreter, equation, value):
    """Merged axes taken apart again, or axes of size 1 put beside them."""
    before = equation.in_shapes[0]
    j, parts, parts2 = value.axis, value.sizes, value.sizes2
    whole = tuple((*s[:j], *p, *s[j + 1 :]) for s, p in zip(before, (parts, parts2), strict=True))
    direct = dataclasses.replace(equation, name="reshape", params={}, params2={}, in_shapes=[whole])
    return _reshape(interpreter, direct, [value.field])


def _axis_matches(before, after) -> list[int | None] | None:
    """For each output axis the input axis it is, None for a new axis of size 1; None if axes merge or split.

    Shapes at both widths: a wide axis that is written with width 1 is none of size 1.
    """
    out: list[int | None] = []
    sizes, i = list(zip(*before, strict=True)), 0
    for n in zip(*after, strict=True):
        while i < len(sizes) and sizes[i] == (1, 1) and n != (1, 1):
            i += 1
        if i < len(sizes) and sizes[i] == n:
            out.append(i)
            i += 1
        elif n == (1, 1):
            out.append(None)
        else:
            return None
    return out if all(n == (1, 1) for n in sizes[i:]) else None


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
    index = finite_index(fields[0], axis)
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


@rule("unstack", takes_heads=True)
def _unstack(interpreter, equation, values):
    """Slices of one position each, without its axis."""
    axis = equation.params["axis"]
    if equation.wide_in(0)[axis]:
        raise equation.refuse("channels of a wide axis are taken apart.")
    out = []
    for i, after in enumerate(equation.out_shapes):
        start, limit = zip(*((_placed(s, axis, 0, i), _placed(s, axis, None, i + 1)) for s in equation.in_shapes[0]),
                           strict=True)  # fmt: skip
        params = [{"start_indices": a, "limit_indices": b, "strides": None} for a, b in zip(start, limit, strict=True)]
        one = tuple(_placed(s, axis, None, 1) for s in equation.in_shapes[0])
        cut = dataclasses.replace(equation, name="slice", params=params[0], params2=params[1], out_shapes=[one])
        drop = {"dimensions": (axis,)}
        squeeze = dataclasses.replace(
            equation, name="squeeze", params=drop, params2=drop, in_shapes=[one], out_shapes=[after]
        )
        out.append(_reshape(interpreter, squeeze, [sliced(interpreter, cut, values)]))
    return out


def _placed(shape, axis: int, others: int | None, own: int) -> tuple[int, ...]:
    """`own` at the axis, `others` (None: the sizes) elsewhere."""
    return tuple(own if i == axis else n if others is None else others for i, n in enumerate(shape))
