"""Primitives that sum over axes, and reductions that have no limit."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
from jax import lax

from widelimit._precision import at_once
from widelimit.fields import LARGEST, Axes, Linear, Node
from widelimit.trace._axes import finite_index, without_axis
from widelimit.trace._merging import folded
from widelimit.trace._picking import taken
from widelimit.trace._rules import rule
from widelimit.trace._values import Det, Field, Flat, Weight, as_field

__all__: list[str] = []


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
            return Det(jnp.sum(array, axis=tuple(finite_index(value, a) for a in finite)))
    for a in finite:
        value = _sum_axis(value, finite_index(value, a))
    return value


@rule("psum")
def _sum_over_examples(interpreter, equation, values):
    """`lax.psum` over the axis of a `vmap`, which is an axis of the arrays by now."""
    axes, groups = equation.params["axes"], equation.params.get("axis_index_groups")
    if groups is not None or not all(isinstance(a, int) for a in axes):
        raise equation.refuse("it sums over devices, or over groups of examples.")
    parts = zip(values, equation.in_shapes, strict=True)
    return [
        _reduce_sum(interpreter, dataclasses.replace(equation, params={"axes": axes}, in_shapes=[shapes]), [value])
        for value, shapes in parts
    ]


def _sum_axis(field, index):
    summed = field.map(lambda x: Linear(x, index, np.ones((1, x.shape[index]))))
    wide = field.wide_axis
    return without_axis(summed, index, index + (wide is not None and index >= wide))


@rule("reduce_max", "reduce_min")
def _extremum(interpreter, equation, values):
    """The largest or smallest over positions: a function of the field at each of them."""
    value, axes = values[0], equation.params["axes"]
    if not isinstance(value, Field) or value.wide_axis in axes:
        return _no_limit(interpreter, equation, values)
    primitive = lax.max_p if equation.name == "reduce_max" else lax.min_p
    for axis in sorted(axes, reverse=True):
        index = finite_index(value, axis)
        blocks = []
        for node, n in value.blocks:
            folded_node = folded(primitive, _positions(node, index))
            if folded_node is None and node.shape[index] > LARGEST:
                raise equation.refuse(
                    f"it is the largest or smallest of more than {LARGEST} positions (or examples of a batch).",
                    f"Remedy: at most {LARGEST} of them, or an average in its place.",
                )
            if folded_node is None:
                return _no_limit(interpreter, equation, values)
            blocks.append((folded_node, n))
        wide = value.wide_axis
        value = Field(tuple(blocks), wide if wide is None or wide < axis else wide - 1)
    return value


def _positions(node: Node, axis: int):
    """The field at each position of an axis, without that axis."""
    keep = tuple(i for i in range(len(node.shape)) if i != axis)
    for j in range(min(node.shape[axis], LARGEST + 1)):
        one = taken(node, axis, np.array([j]))
        yield Axes(one, keep, tuple(node.shape[i] for i in keep))


@rule("argmax", "argmin", "sort", "reduce_prod", "top_k", "reduce_window_max")
def _no_limit(interpreter, equation, values):
    if all(isinstance(v, Det) for v in values) and not any(equation.wide_in(0)):
        return interpreter._evaluate(equation, values)
    axes = equation.params.get("axes", equation.params.get("dimension"))
    place = "windows" if axes is None else f"axes {axes}"
    raise equation.refuse(f"taken over {place} of a wide random field it has no deterministic closed-form limit.")


@rule("cumsum")
def _cumulative_sum(interpreter, equation, values):
    value, axis = values[0], equation.params["axis"]
    value = as_field(value) if isinstance(value, Weight) else value
    if isinstance(value, Det) or axis == value.wide_axis:
        raise equation.refuse("a cumulative sum over the width has no limit.")
    index, n = finite_index(value, axis), equation.in_shapes[0][0][axis]
    matrix = np.tril(np.ones((n, n)))
    matrix = matrix.T if equation.params["reverse"] else matrix
    return value.map(lambda x: Linear(x, index, jnp.asarray(matrix)))
