"""Convolutions: windows of positions, contracted with a weight; sums over windows (pooling)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from widelimit.fields import Axes, Const, Linear, Mat, Node, Sum, Window, Windows
from widelimit.trace._merging import multiply_nodes
from widelimit.trace._picking import cut_width, reversed_along
from widelimit.trace._rules import rule
from widelimit.trace._uses import mean_shift, reaction
from widelimit.trace._values import BOTH_USES, Det, Field, Weight, aligned, as_field

__all__: list[str] = []


@rule("conv_general_dilated")
def _convolution(interpreter, equation, values):
    value, weight = values
    if isinstance(value, Weight):
        value = as_field(value)
    if not isinstance(weight, Weight):
        raise equation.refuse(
            "the filter is not a parameter.",
            "Remedy: write a fixed filter as shifted sums, or contract with a constant matrix along one axis.",
        )
    p, p2 = equation.params, equation.params2
    if p["batch_group_count"] != 1:
        raise equation.refuse("groups of the batch have no rule.")
    if p["feature_group_count"] != p2["feature_group_count"]:
        return _depthwise(interpreter, equation, value, weight)
    if p["feature_group_count"] != 1 and not isinstance(value, Field):
        raise equation.refuse("groups of the channels of an input have no rule.")
    return _apply_filter(interpreter, equation, value, weight)


def _windows(equation, spatial) -> list[Window]:
    p, dims = equation.params, equation.params["dimension_numbers"]
    out = []
    for i in spatial:
        size = equation.out_shapes[0][0][dims.out_spec[2 + i]]
        taps = equation.in_shapes[1][0][dims.rhs_spec[2 + i]]
        low = p["padding"][i][0]
        out.append(Window(size, taps, p["window_strides"][i], p["rhs_dilation"][i], low, p["lhs_dilation"][i]))
    return out


def _apply_filter(interpreter, equation, value, weight):
    """``z_p = sum_k W_k x_{p stride + k}``: one `Mat` for each block of channels (and group), offsets contracted."""
    dims, groups = equation.params["dimension_numbers"], equation.params["feature_group_count"]
    own = [weight.axes[a] for a in dims.rhs_spec]
    if any(a is None for a in own) or any(weight.wide[a] for a in own[2:]):
        raise equation.refuse("a filter with added or wide spatial axes has no rule.")
    if any((weight.start[a], weight.size[a]) != (0, weight.full[a]) for a in own[2:]):
        raise equation.refuse("a part of a filter's positions is used. Use the whole filter.")
    spatial = sorted(range(len(own) - 2), key=lambda i: own[2 + i])
    wide_in, wide_out = weight.wide[own[1]], weight.wide[own[0]]
    if wide_in and weight.uses.vector:
        raise equation.refuse(BOTH_USES, " ")
    if own[1] in weight.flips:
        value = reversed_along(value, dims.lhs_spec[1])
    order = [dims.lhs_spec[0], *(dims.lhs_spec[2 + i] for i in spatial)]  # batch, positions
    windows = [
        _backwards(w) if own[2 + i] in weight.flips else w
        for i, w in zip(spatial, _windows(equation, spatial), strict=True)
    ]
    blocks = _seen(interpreter, equation, value, order, windows, wide_in)
    contracted = len(spatial) + (not wide_in)
    direction = tuple(sorted(own[1:]))
    weight = dataclasses.replace(weight, splits=(*weight.splits, "filter"))  # its contracted axes in another order
    key = (weight.taken_key(), direction)
    weight.uses.contracted(direction, weight.wide)
    channels = weight.size[own[0]]
    free = () if wide_out else (channels // groups,)
    rows = weight.start[own[1]] if wide_in else 0
    out: list[tuple[Node, int]] = []
    for g in range(groups):
        terms: list[tuple[Any, Node]] = []
        start, offset = rows, (weight.start[own[0]] if wide_out else 0) + g * (channels // groups)
        for node, n in _group(equation, blocks, g, groups):
            mat = Mat(key, weight.prior, node, n, contracted, free, start, offset)
            terms += [(1.0, mat), *mean_shift(interpreter, weight, mat)]
            terms += reaction(interpreter, equation, weight, direction, mat)
            start += n
        node = terms[0][1] if len(terms) == 1 else Sum(terms)
        out.append((_placed(node, dims, spatial, wide_out), channels // groups if wide_out else 1))
    if groups > 1 and not wide_out:
        raise equation.refuse("groups of a fixed number of output channels have no rule.")
    if not (isinstance(weight.scale, float) and weight.scale == 1.0):
        out = [(Sum([(weight.scale, node)]), n) for node, n in out]
    field = Field(tuple(out), dims.out_spec[1] if wide_out else None)
    return reversed_along(field, dims.out_spec[1]) if own[0] in weight.flips else field


def _backwards(window: Window) -> Window:
    """What a filter sees whose offsets are counted from its other end: the same entries meet the same positions."""
    return window._replace(dilation=-window.dilation, low=window.low - (window.taps - 1) * window.dilation)


def _depthwise(interpreter, equation, value, weight):
    """``z_cp = sum_k w_ck x_c(p + k)``: products of each channel with entries of its own, summed over offsets."""
    dims = equation.params["dimension_numbers"]
    groups, channels = equation.params["feature_group_count"], equation.in_shapes[0][0][dims.lhs_spec[1]]
    if not isinstance(value, Field) or value.wide_axis != dims.lhs_spec[1]:
        raise equation.refuse("a filter for each channel (depthwise) meets channels that are not wide.")
    if groups != channels or equation.out_shapes[0][0][dims.out_spec[1]] != channels:
        raise equation.refuse(
            "the channels are in groups whose number grows with the width, of several channels each.",
            "Remedy: one filter a channel (depthwise), or a fixed number of groups.",
        )
    rank = len(dims.lhs_spec) - 2
    order = [dims.lhs_spec[0], *dims.lhs_spec[2:]]
    windows = _windows(equation, range(rank))
    blocks = _seen(interpreter, equation, value, order, windows, True)
    entries = as_field(weight)
    finite = [a for a in range(rank + 2) if a != entries.wide_axis]
    source = (*(None,) * (1 + rank), *(finite.index(a) for a in dims.rhs_spec[2:]))
    out = []
    for (filters, node), n in aligned([entries, Field(tuple(blocks), None)]):
        own = Axes(filters, source, node.shape)
        total = multiply_nodes(own, node)
        for _ in range(rank):
            last = len(total.shape) - 1
            total = Linear(total, last, np.ones((1, total.shape[last])))
            total = Axes(total, tuple(range(last)), total.shape[:last])
        out.append((_placed(total, dims, range(rank), True), n))
    return Field(tuple(out), dims.out_spec[1])


def _seen(interpreter, equation, value, order, windows, wide_in):
    """Blocks of the value as filters see it: axes batch, positions, finite channels, then offsets."""
    dims = equation.params["dimension_numbers"]
    feature = dims.lhs_spec[1]
    if isinstance(value, Det):
        array: Any = jnp.asarray(value.array).astype(interpreter.dtype)
        shape = equation.in_shapes[0][0]
        array = jnp.broadcast_to(array, tuple(1 if a == feature and wide_in else n for a, n in enumerate(shape)))
        array = jnp.transpose(array, [*order, feature])
        node: Node = Const(jnp.squeeze(array, len(order)) if wide_in else array)
        return [(_windowed(node, windows), shape[feature] if wide_in else 1)]
    if value.wide_axis != feature or not wide_in:
        raise equation.refuse("the channels of a wide field are contracted along another axis than its width.")
    finite = [a for a in range(len(order) + 1) if a != feature]
    source = tuple(finite.index(a) for a in order)
    blocks = []
    for node, n in value.blocks:
        if source != tuple(range(len(source))):
            node = Axes(node, source, tuple(node.shape[j] for j in source))
        blocks.append((_windowed(node, windows), n))
    return blocks


def _windowed(node: Node, windows) -> Node:
    for i, window in enumerate(windows):
        node = Windows(node, 1 + i, window)
    return node


def _group(equation, blocks, g: int, groups: int):
    """The blocks of one group of channels."""
    if groups == 1:
        return blocks
    total = sum(n for _, n in blocks)
    low, high = g * total // groups, (g + 1) * total // groups
    return list(cut_width(Field(tuple(blocks), None), low, high).blocks)


def _placed(node, dims, spatial, wide_out):
    """Axes batch, positions (and a finite channel) put in the order of the output array."""
    places = [dims.out_spec[0], *(dims.out_spec[2 + i] for i in spatial)]
    places += [] if wide_out else [dims.out_spec[1]]
    source = tuple(int(i) for i in np.argsort(places))
    if source == tuple(range(len(source))):
        return node
    return Axes(node, source, tuple(node.shape[j] for j in source))


@rule("reduce_window_sum")
def _pool(interpreter, equation, values):
    """``y_o = sum_k x_{o stride + k}`` along each axis that has a window."""
    value, p = values[0], equation.params
    if isinstance(value, Det):
        if any(w and n != 1 for w, n in zip(equation.wide_in(0), p["window_dimensions"], strict=True)):
            raise equation.refuse("a window over the width has no limit.")
        return Det(equation.primitive.bind(jnp.asarray(value.array), **p))
    value = as_field(value) if isinstance(value, Weight) else value
    shape, out_shape = equation.in_shapes[0][0], equation.out_shapes[0][0]
    for axis, taps in enumerate(p["window_dimensions"]):
        window = Window(
            out_shape[axis], taps, p["window_strides"][axis], p["window_dilation"][axis], p["padding"][axis][0],
            p["base_dilation"][axis],
        )  # fmt: skip
        if window == Window(shape[axis], 1):
            continue
        if axis == value.wide_axis:
            raise equation.refuse("a window over the width has no limit.")
        matrix = window.matrix(shape[axis])
        place = axis - (value.wide_axis is not None and axis > value.wide_axis)
        value = value.map(lambda x, i=place, m=matrix: Linear(x, i, np.asarray(m)))
    return value
