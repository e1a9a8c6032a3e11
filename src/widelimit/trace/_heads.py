"""Attention with as many heads as channels: fields with two wide axes, of which all heads are alike.

The queries and keys of a head are Gaussian, and their inner product over its channels is a sum of independent terms:
with a factor ``1/sqrt(channels)`` it is Gaussian itself (a `Score`), another one in each head.  What is contracted over
heads and channels at once is an average over both.  A rule for fields with one wide axis is applied to one head, whose
axis is left out of all shapes.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np

from widelimit._precision import at_once
from widelimit.fields import Axes, Linear, Node, Score, channel_sources
from widelimit.trace._merging import multiply_nodes
from widelimit.trace._rules import RULES, Equation
from widelimit.trace._values import Det, Field, Heads, Weight

__all__ = ["channel_by_channel", "each_head", "heads_product", "is_per_head", "split_into_heads", "transposed"]

Axis = int | None


def _less(shape: tuple[int, ...], axis: Axis) -> tuple[int, ...]:
    return shape if axis is None else (*shape[:axis], *shape[axis + 1 :])


def _fewer(axes, dropped: Axis) -> tuple[int, ...]:
    return tuple(a - (dropped is not None and a > dropped) for a in axes if a != dropped)


def _wide_axis(heads: Heads) -> Axis:
    """Where the channels of a head are in the whole array."""
    wide = heads.field.wide_axis
    return None if wide is None else wide + (wide >= heads.axis)


def _single(equation, field: Field) -> tuple[Node, int]:
    """The node of a field that is not put together of parts along the width, and its channels."""
    if len(field.blocks) != 1:
        raise equation.refuse("a field with heads is put together of parts along its width.")
    return field.blocks[0]


def split_into_heads(equation, field: Field, axis: int, count: int) -> Heads:
    """A field whose channels are seen as `count` heads, on a new axis of the array, and the channels of each.

    Channels of one law are alike whichever way they are counted.
    """
    node, n = _single(equation, field)
    return Heads(Field(((node, n // count),), field.wide_axis), axis, count)


def _swapped(equation, heads: Heads) -> Heads:
    """The same field with its two wide axes seen the other way round."""
    wide = _wide_axis(heads)
    if not heads.alike or wide is None:
        raise equation.refuse(
            "it contracts heads that have something in common.",
            "Remedy: contract the channels of each head, or heads and channels at once.",
        )
    node, n = _single(equation, heads.field)
    axis = heads.axis - (heads.axis > wide)
    return Heads(Field(((node, heads.count),), axis), wide, n)


def _one_head(value, axis: Axis):
    """An operand without its axis of heads."""
    if axis is None or isinstance(value, Heads):
        return value.field if isinstance(value, Heads) else value
    if isinstance(value, Weight):
        return value.of_one_head(axis)
    if isinstance(value, Det):
        with at_once(value.array):
            return Det(jnp.squeeze(jnp.asarray(value.array), axis))
    return Field(value.blocks, None)  # one channel for each head


def each_head(interpreter, equation: Equation, values: list, function):
    """An elementwise rule applied to one head."""
    heads = next(v for v in values if isinstance(v, Heads))
    rank = len(equation.out_shapes[0][0])
    values = [_swapped(equation, v) if isinstance(v, Heads) and v.axis != heads.axis else v for v in values]
    whole = [len(s[0]) == rank for s in equation.in_shapes]
    for value, full in zip(values, whole, strict=True):
        if isinstance(value, Field) or (isinstance(value, Weight) and (not full or value.axes[heads.axis] is None)):
            raise equation.refuse(
                "a field with heads meets one without, or a parameter that all heads share.",
                "Remedy: give each head its own parameter, one more axis as wide as the heads.",
            )
    one = dataclasses.replace(
        equation,
        in_shapes=[
            tuple(_less(t, heads.axis) for t in s) if w else s for s, w in zip(equation.in_shapes, whole, strict=True)
        ],
        out_shapes=[tuple(_less(t, heads.axis) for t in s) for s in equation.out_shapes],
    )
    parts = [
        _one_head(v, heads.axis if w and jnp.ndim(getattr(v, "array", 1.0)) else None) if not isinstance(v, Weight)
        else v.of_one_head(heads.axis)
        for v, w in zip(values, whole, strict=True)
    ]  # fmt: skip
    out = function(interpreter, one, parts)
    alike = all(v.alike for v in values if isinstance(v, Heads))
    return Heads(out, heads.axis, heads.count, alike) if isinstance(out, Field) else out


def transposed(equation, heads: Heads) -> Heads:
    """``transpose(order)``."""
    order = equation.params["permutation"]
    axis = order.index(heads.axis)
    params = {"permutation": _fewer(order, heads.axis)}
    shapes = [tuple(_less(s, heads.axis) for s in equation.in_shapes[0])]
    one = dataclasses.replace(equation, params=params, in_shapes=shapes)
    return dataclasses.replace(heads, field=RULES["transpose"](None, one, [heads.field]), axis=axis)


def is_per_head(equation, weight: Weight, position: int) -> bool:
    """Whether a parameter that is contracted leaves two wide axes."""
    contract, batch = equation.params["dimension_numbers"]
    free = [i for i in range(len(weight.axes)) if i not in (*contract[position], *batch[position])]
    return sum(equation.wide_in(position)[i] for i in free) == 2 and not any(
        equation.wide_in(position)[i] for i in batch[position]
    )


def heads_product(interpreter, equation, values):
    """A contraction that makes heads, or in which they take part."""
    for i, value in enumerate(values):
        if isinstance(value, Weight) and not isinstance(values[1 - i], Heads) and is_per_head(equation, value, i):
            return _made(interpreter, equation, values, i)
    if all(isinstance(v, Heads) for v in values):
        return _scores(interpreter, equation, *values)
    i = 0 if isinstance(values[0], Heads) else 1
    heads, other = values[i], values[1 - i]
    (contract, batch) = equation.params["dimension_numbers"]
    if heads.axis not in (*contract[i], *batch[i]) and _wide_axis(heads) in batch[i]:
        heads = _swapped(equation, heads)
    if heads.axis in contract[i] and _wide_axis(heads) in contract[i] and isinstance(other, Weight):
        return _over_both(interpreter, equation, heads, other, i)
    if isinstance(other, Det) and heads.axis not in (*contract[i], *batch[i]):
        return _on_one(interpreter, equation, values, i, heads, None)
    if heads.axis not in batch[i] or isinstance(other, Det):
        raise equation.refuse(
            "heads are contracted without their channels, or a constant or a shared parameter meets them.",
            "Remedy: contract heads and channels at once, einsum('hpd,hdc->pc', y, O).",
        )
    partner = batch[1 - i][list(batch[i]).index(heads.axis)]
    if isinstance(other, Field):
        return _attended(interpreter, equation, heads, other, i)
    return _on_one(interpreter, equation, values, i, heads, partner)


def _dropped(equation, axes: tuple[Axis, Axis], out: Axis) -> Equation:
    """The contraction without an axis of each operand."""
    contract, batch = equation.params["dimension_numbers"]
    numbers = tuple(tuple(_fewer(part[i], axes[i]) for i in (0, 1)) for part in (contract, batch))
    return dataclasses.replace(
        equation,
        params={**equation.params, "dimension_numbers": numbers},
        in_shapes=[tuple(_less(t, a) for t in s) for s, a in zip(equation.in_shapes, axes, strict=True)],
        out_shapes=[tuple(_less(t, out) for t in s) for s in equation.out_shapes],
    )


def _place(equation, operand: int, axis: int) -> int:
    """Where an operand's axis is in the result: batch axes, then the free ones of the first, then of the second."""
    contract, batch = equation.params["dimension_numbers"]
    if axis in batch[operand]:
        return list(batch[operand]).index(axis)
    free = [
        [a for a in range(len(s[0])) if a not in (*contract[i], *batch[i])] for i, s in enumerate(equation.in_shapes)
    ]
    return len(batch[0]) + (len(free[0]) if operand else 0) + free[operand].index(axis)


def _made(interpreter, equation, values, i: int):
    """``x W`` with a W of two more wide axes, the first of which are the heads."""
    contract, _ = equation.params["dimension_numbers"]
    weight = values[i]
    axis = next(a for a, w in enumerate(equation.wide_in(i)) if w and a not in contract[i])
    out = _place(equation, i, axis)
    one = _dropped(equation, (axis, None) if i == 0 else (None, axis), out)
    parts = [v.of_one_head(axis) if j == i else v for j, v in enumerate(values)]
    return Heads(RULES["dot_general"](interpreter, one, parts), out, weight.size[weight.axes[axis]])


def _on_one(interpreter, equation, values, i: int, heads: Heads, partner: Axis):
    """A contraction in each head: with its own parameter, or of positions with a constant."""
    if partner is not None and not heads.alike:  # given its attention a head's channels are not Gaussian of one law
        raise equation.refuse(
            "a parameter of each head is applied to what its attention has mixed, whose law differs from head to head.",
            "Remedy: contract heads and channels at once, einsum('hpd,hdc->pc', y, O).",
        )
    out = _place(equation, i, heads.axis)
    axes = (heads.axis, partner) if i == 0 else (partner, heads.axis)
    parts = [heads.field if j == i else _one_head(v, partner) for j, v in enumerate(values)]
    field = RULES["dot_general"](interpreter, _dropped(equation, axes, out), parts)
    if field.wide_axis is None:  # channels contracted, heads are left
        return Field(((_single(equation, field)[0], heads.count),), out)
    return Heads(field, out, heads.count, heads.alike)


def _over_both(interpreter, equation, heads: Heads, weight: Weight, i: int):
    """A parameter contracted with heads and channels: as many terms as there are of both."""
    contract, _ = equation.params["dimension_numbers"]
    partner = contract[1 - i][list(contract[i]).index(heads.axis)]
    axes = (heads.axis, partner) if i == 0 else (partner, heads.axis)
    node, n = _single(equation, heads.field)
    field = Field(((node, n * heads.count),), heads.field.wide_axis)
    parts = [field, weight.of_one_head(partner)]
    return RULES["dot_general"](interpreter, _dropped(equation, axes, None), parts if i == 0 else parts[::-1])


def _scores(interpreter, equation, a: Heads, b: Heads):
    """Inner products of queries and keys in each head."""
    contract, batch = equation.params["dimension_numbers"]
    a = a if a.axis in batch[0] else _swapped(equation, a)
    b = b if b.axis in batch[1] else _swapped(equation, b)
    tied, summed = list(zip(*batch, strict=True)), list(zip(*contract, strict=True))
    if (a.axis, b.axis) not in tied or summed != [(_wide_axis(a), _wide_axis(b))]:
        raise equation.refuse(
            "two fields with heads are contracted in another way than over the channels of each head."
        )
    (x, n), (y, _) = _single(equation, a.field), _single(equation, b.field)
    known = all(z.gaussian and interpreter.covariance.mean(z) is None for z in (x, y))
    if not known or channel_sources(x) & channel_sources(y):
        raise equation.refuse(
            "queries and keys of infinitely many heads share a parameter, or are not linear in their parameters, so "
            "that their inner product over n channels is of order n.",
            "Remedy: separate parameters for queries and keys; or few heads, and logits divided by the width.",
        )
    x, y, _ = _side_by_side(equation, (x, y), (_places(a), _places(b)))
    count = len(batch[0])
    return Field(((Score(x, y, n), a.count),), [i for i, _ in tied].index(a.axis) if count else 0)


def _places(heads: Heads) -> dict[int, int]:
    """The node's axis for each axis of positions of the array."""
    rank = len(heads.field.shape) + 2
    finite = [i for i in range(rank) if i not in (heads.axis, _wide_axis(heads))]
    return {axis: j for j, axis in enumerate(finite)}


def _side_by_side(equation, nodes, places) -> tuple[Node, Node, int]:
    """Both nodes over the same axes: batch, free of the first, of the second, contracted; and how many of the last."""
    contract, batch = equation.params["dimension_numbers"]
    sources: list[list[Axis]] = [[], []]
    shape: list[int] = []

    def add(i, j):
        for side, (axis, where) in enumerate(zip((i, j), places, strict=True)):
            sources[side].append(None if axis is None else where[axis])
        node, where, axis = (nodes[0], places[0], i) if i is not None else (nodes[1], places[1], j)
        shape.append(node.shape[where[axis]])

    pairs = [(i, j) for i, j in zip(*batch, strict=True) if i in places[0] and j in places[1]]
    summed = [(i, j) for i, j in zip(*contract, strict=True) if i in places[0] and j in places[1]]
    used = [{p[side] for p in (*zip(*batch, strict=True), *zip(*contract, strict=True))} for side in (0, 1)]
    for i, j in pairs:
        add(i, j)
    for i in sorted(set(places[0]) - used[0]):
        add(i, None)
    for j in sorted(set(places[1]) - used[1]):
        add(None, j)
    for i, j in summed:
        add(i, j)
    x, y = (Axes(node, tuple(source), tuple(shape)) for node, source in zip(nodes, sources, strict=True))
    return x, y, len(summed)


def _summed(node: Node, count: int) -> Node:
    """A sum over the last `count` axes of positions."""
    for _ in range(count):
        last = len(node.shape) - 1
        total = Linear(node, last, np.ones((1, node.shape[last])))
        node = Axes(total, tuple(range(last)), total.shape[:-1])
    return node


def _attended(interpreter, equation, heads: Heads, weights: Field, i: int):
    """``sum_q A_hpq V_hqd``: each head's values mixed with its own weights."""
    contract, batch = equation.params["dimension_numbers"]
    if (weights.wide_axis, heads.axis) not in set(zip(batch[1 - i], batch[i], strict=True)):
        raise equation.refuse("a field without heads meets one with heads.")
    (x, _), (y, n) = _single(equation, weights), _single(equation, heads.field)
    if channel_sources(x) & channel_sources(y):
        raise equation.refuse(
            "the values of a head share a parameter with its attention weights.",
            "Remedy: separate parameters for values, or compare finite networks with wl.monte_carlo.",
        )
    finite = [a for a in range(len(weights.shape) + 1) if a != weights.wide_axis]
    order = ((y, x), (_places(heads), {a: j for j, a in enumerate(finite)}))
    nodes, places = order if i == 0 else (order[0][::-1], order[1][::-1])
    x, y, count = _side_by_side(equation, nodes, places)
    wide = _wide_axis(heads)
    if wide is None or wide in contract[i]:
        raise equation.refuse("the channels of a head's values are contracted with its attention weights.")
    head, channel = _place(equation, i, heads.axis), _place(equation, i, wide)
    field = Field(((_summed(multiply_nodes(x, y), count), n),), channel - (channel > head))
    return Heads(field, head, heads.count, alike=False)


def channel_by_channel(equation, a: Field, b: Field) -> Field:
    """Two fields multiplied channel by channel, summed over positions: heads are the width, their channels few."""
    _, batch = equation.params["dimension_numbers"]
    (x, n), (y, _) = _single(equation, a), _single(equation, b)
    places = []
    for field in (a, b):
        finite = [i for i in range(len(field.shape) + 1) if i != field.wide_axis]
        places.append({axis: j for j, axis in enumerate(finite)})
    x, y, count = _side_by_side(equation, (x, y), places)
    return Field(((_summed(multiply_nodes(x, y), count), n),), list(batch[0]).index(a.wide_axis))
