"""Contractions: a value with a weight (`Mat`), with a constant (`Linear`), of two fields over the width (a moment)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from widelimit.fields import Axes, Const, Linear, Mat, Merge, Node, Sum
from widelimit.trace._axes import permuted, without_axis
from widelimit.trace._flat import seen_as
from widelimit.trace._heads import channel_by_channel, heads_product, is_per_head
from widelimit.trace._picking import reversed_along
from widelimit.trace._rules import rule
from widelimit.trace._uses import mean_shift, reaction
from widelimit.trace._values import BOTH_USES, Det, Field, Flat, Heads, Weight, aligned, as_field

__all__: list[str] = []


@rule("dot_general", takes_flat=True, takes_heads=True)
def _dot_general(interpreter, equation, values):
    if any(isinstance(v, Flat) for v in values):
        return _flat_dot(interpreter, equation, values)
    (contract_a, contract_b), (batch_a, batch_b) = equation.params["dimension_numbers"]
    a, b = values
    if isinstance(a, Weight) and isinstance(b, Weight):
        a, b = _vectors_first(equation, a, b, contract_a, contract_b)
    if isinstance(a, Weight) and isinstance(b, Weight):
        raise equation.refuse(
            "two parameter matrices are multiplied with each other before they meet the input.",
            "Remedy: multiply the input first, (x @ A) @ B instead of x @ (A @ B).",
        )
    per_head = (isinstance(v, Weight) and is_per_head(equation, v, i) for i, v in enumerate(values))
    if any(isinstance(v, Heads) for v in values) or any(per_head):
        return heads_product(interpreter, equation, values)
    a, b = _entries_of_channels(equation, a, b, batch_a, batch_b)
    if isinstance(b, Weight):
        return _apply_weight(interpreter, equation, a, b, 0, (contract_a, contract_b), (batch_a, batch_b))
    if isinstance(a, Weight):
        return _apply_weight(interpreter, equation, b, a, 1, (contract_b, contract_a), (batch_b, batch_a))
    if isinstance(a, Det) and isinstance(b, Det):
        return _constants(interpreter, equation, a, b)
    if isinstance(a, Field) and isinstance(b, Field):
        return _moment(interpreter, equation, a, b, (contract_a, contract_b), (batch_a, batch_b))
    if isinstance(b, Det):
        return _mix(equation, a, b.array, (contract_a, contract_b), (batch_a, batch_b), det=1)
    assert isinstance(a, Det) and isinstance(b, Field)
    return _mix(equation, b, a.array, (contract_b, contract_a), (batch_b, batch_a), det=0)


def _flat_dot(interpreter, equation, values):
    """A merged axis contracted with a parameter's, or with a field's, which is then seen as several too."""
    i = 0 if isinstance(values[0], Flat) else 1
    flat, other = values[i], values[1 - i]
    numbers = equation.params["dimension_numbers"]
    contract, _ = numbers
    if isinstance(other, Det) or flat.axis not in contract[i]:
        raise equation.refuse("an axis merged with the width can only be contracted, with a parameter or a field.")
    w = contract[1 - i][list(contract[i]).index(flat.axis)]
    wide = tuple(a != b for a, b in zip(flat.sizes, flat.sizes2, strict=True))
    ends, shapes = (flat.axis, w) if i == 0 else (w, flat.axis), []
    for side, j in enumerate(ends):
        pair = zip(equation.in_shapes[side], (flat.sizes, flat.sizes2), strict=True)
        shapes.append(tuple((*s[:j], *parts, *s[j + 1 :]) for s, parts in pair))

    def spread(axes, j):
        new: list[int] = []
        for a in axes:
            new += range(j, j + len(wide)) if a == j else [a + (len(wide) - 1) * (a > j)]
        return tuple(new)

    if isinstance(other, Weight):
        other = other.split(w, flat.sizes, wide)
    else:
        other = seen_as(interpreter, equation, other, (equation.in_shapes[1 - i], shapes[1 - i]))
    numbers = tuple(tuple(spread(part[side], ends[side]) for side in (0, 1)) for part in numbers)
    params = {**equation.params, "dimension_numbers": numbers}
    equation = dataclasses.replace(equation, params=params, in_shapes=shapes)
    return _dot_general(interpreter, equation, [flat.field, other] if i == 0 else [other, flat.field])


def _vectors_first(equation, a, b, contract_a, contract_b):
    # a parameter that is itself a vector (an embedding row, a learned query) is a value, not a matrix; its square norm
    # is that of a value
    def is_vector(w, contracted):
        return sum(w.wide[x] for x in w.axes if x is not None) == 1 and len(w.axes) == len(contracted)

    if is_vector(a, contract_a):
        return as_field(a), as_field(b) if b.key == a.key else b
    if is_vector(b, contract_b):
        return a, as_field(b)
    return a, b


def _entries_of_channels(equation, a, b, batch_a, batch_b):
    """A parameter with entries of its own for each channel (or group of channels) of a field is a field itself."""

    def each(w, other, i, axes):
        return isinstance(w, Weight) and isinstance(other, Field) and any(equation.wide_in(i)[x] for x in axes)

    if each(a, b, 0, batch_a):
        return as_field(a), b
    return (a, as_field(b)) if each(b, a, 1, batch_b) else (a, b)


def _constants(interpreter, equation, a, b):
    (contract_a, _), _ = equation.params["dimension_numbers"]
    wide = equation.wide_in(0)
    count = 1
    for axis in contract_a:
        if wide[axis]:
            count *= equation.in_shapes[0][0][axis]
    params = dict(equation.params)
    params.update(precision=jax.lax.Precision.HIGHEST, preferred_element_type=None)
    out = jax.lax.dot_general(
        jnp.asarray(a.array).astype(interpreter.dtype),
        jnp.asarray(b.array).astype(interpreter.dtype),
        params["dimension_numbers"],
        precision=params["precision"],
    )
    return Det(out * float(count))


def _apply_weight(interpreter, equation, value, weight, position, contract, batch):
    """``value . W``: a fresh Gaussian field, one `Mat` for each block of the value.

    position: of the value among the operands; contract, batch: axes of the value and of W; batch axes are positions at
    which W differs.
    """
    (contract_v, contract_w), (batch_v, batch_w), weight_last = contract, batch, position == 0
    if weight.flips:
        return _apply_reversed(interpreter, equation, value, weight, position, contract, batch)
    pairs = sorted(zip(contract_w, contract_v, strict=True), key=lambda p: weight.axes[p[0]] or 0)
    if any(weight.axes[w] is None for w, _ in pairs):
        raise equation.refuse("a parameter is contracted along an axis that was added to it.")
    wide_v = equation.wide_in(position)
    if any(weight.axes[w] is None or weight.wide[weight.axes[w]] for w in batch_w):
        raise equation.refuse("a parameter meets the value entry by entry along a wide or an added axis.")
    wide_pairs = [(w, v) for w, v in pairs if weight.wide[weight.axes[w]]]
    finite_pairs = [(w, v) for w, v in pairs if not weight.wide[weight.axes[w]]]
    if any(not wide_v[v] for _, v in wide_pairs) or any(wide_v[v] for _, v in finite_pairs):
        raise equation.refuse("a wide axis is contracted with one that is not wide.")
    if len(wide_pairs) > 1:
        raise equation.refuse("two wide axes are contracted at once.")
    contracted_leaf = {weight.axes[w] for w, _ in pairs}
    if any(a is None for a in weight.axes):
        raise equation.refuse("a parameter with added axes is contracted.")
    free = [a for i, a in enumerate(weight.axes) if a not in contracted_leaf and i not in batch_w]
    free_wide = [a for a in free if weight.wide[a]]
    if len(free_wide) > 1:
        raise equation.refuse("the result would have two wide axes.")
    rows = weight.start[weight.axes[wide_pairs[0][0]]] if wide_pairs else 0
    n_out = weight.size[free_wide[0]] if free_wide else 1
    offset = weight.start[free_wide[0]] if free_wide else 0
    finite_free = sorted(a for a in free if not weight.wide[a])

    if isinstance(value, Det):
        blocks, value_axis = _constant_blocks(interpreter, equation, value, position, wide_pairs), None
        if wide_pairs:
            value_axis = wide_pairs[0][1]
    else:
        blocks, value_axis = list(value.blocks), value.wide_axis
        if value_axis is not None and not wide_pairs:
            raise equation.refuse("a wide field meets a parameter along a finite axis only; contract its wide axis.")
        if value_axis is None:
            raise equation.refuse(
                "a parameter acts on a random value without a wide axis (a narrow layer, a bottleneck), which stays "
                "random in the limit.",
                "Remedy: make that layer as wide as the others.",
            )
    rank = len(wide_v)
    finite_axes = [i for i in range(rank) if i != value_axis]
    kept = [*batch_v, *(i for i in finite_axes if i not in {v for _, v in pairs} and i not in batch_v)]
    order = [finite_axes.index(i) for i in kept + [v for _, v in finite_pairs]]
    terms: list[tuple[Any, Node]] = []
    start = rows
    direction = tuple(sorted(contracted_leaf))
    own = tuple(range(len(batch_v)))
    if wide_pairs and (weight.uses.vector or weight.uses.heads):
        raise equation.refuse(BOTH_USES, " ")
    key = (weight.taken_key(), direction)
    weight.uses.contracted(direction, weight.wide, tuple(weight.axes[w] for w in batch_w))
    for node, n in blocks:
        if order != list(range(len(order))):
            node = (
                Const(jnp.transpose(node.array, order))
                if isinstance(node, Const)
                else Axes(node, tuple(order), tuple(node.shape[i] for i in order))
            )
        free_sizes = tuple(weight.size[a] for a in finite_free)
        mat = Mat(key, weight.prior, node, n, len(finite_pairs), free_sizes, start, offset, own)
        terms += [(1.0, mat), *mean_shift(interpreter, weight, mat)]
        terms += reaction(interpreter, equation, weight, direction, mat)
        start += n
    node = terms[0][1] if len(terms) == 1 else Sum(terms)
    node, axis = _arranged(node, weight, len(kept), free, finite_free, weight_last, len(batch_v))
    if not (isinstance(weight.scale, float) and weight.scale == 1.0):
        node = Sum([(weight.scale, node)])
    return Field(((node, n_out),), axis)


def _apply_reversed(interpreter, equation, value, weight, position, contract, batch):
    """A parameter whose axes are reversed: what meets them, or comes out along them, is reversed in their place."""
    flipped = {i for i, a in enumerate(weight.axes) if a in weight.flips}
    for v, w in [*zip(*contract, strict=True), *zip(*batch, strict=True)]:
        value = reversed_along(value, v) if w in flipped else value
    plain = dataclasses.replace(weight, flips=frozenset())
    out = _apply_weight(interpreter, equation, value, plain, position, contract, batch)
    (batch_v, batch_w), free = batch, [i for i in range(len(weight.axes)) if i not in (*contract[1], *batch[1])]
    before = len(batch_v) + (len(equation.in_shapes[0][0]) - len(contract[0]) - len(batch_v)) * (position == 0)
    turned = [i for i, w in enumerate(batch_w) if w in flipped]
    for axis in turned + [before + i for i, w in enumerate(free) if w in flipped]:
        out = reversed_along(out, axis)
    return out


def _constant_blocks(interpreter, equation, value, position, wide_pairs):
    array = jnp.asarray(value.array).astype(interpreter.dtype)
    shape = equation.in_shapes[position][0]
    wide = equation.wide_in(position)
    array = jnp.broadcast_to(array, tuple(1 if w else n for w, n in zip(wide, shape, strict=True)))
    if not wide_pairs:
        return [(Const(array), 1)]
    axis = wide_pairs[0][1]
    return [(Const(jnp.squeeze(array, axis)), shape[axis])]


def _arranged(node, weight, kept, free, finite_free, weight_last, batch):
    """Axes of the Mat (kept, then the weight's free ones by index) put in the order of the output array."""
    kept_axes = list(range(kept))
    free_axes = [None if weight.wide[a] else kept + finite_free.index(a) for a in free]
    out = kept_axes + free_axes if weight_last else kept_axes[:batch] + free_axes + kept_axes[batch:]
    axis = next((i for i, j in enumerate(out) if j is None), None)
    source = [j for j in out if j is not None]
    if source != list(range(len(source))):
        node = Axes(node, tuple(source), tuple(node.shape[j] for j in source))
    return node, axis


def _mix(equation, field, array, contract, batch, *, det):
    """A field contracted with a constant matrix or vector along one finite axis; batch: axes on which it depends."""
    (contract_f, contract_d), (batch_f, batch_d) = contract, batch
    if len(contract_f) > 1 and field.wide_axis not in contract_f and not batch_f:
        return _mix_several(equation, field, array, contract, det=det)
    free = [a for a in range(jnp.ndim(array)) if a not in (*contract_d, *batch_d)]
    if len(contract_f) != 1 or len(free) > 1 or field.wide_axis in (*contract_f, *batch_f):
        raise equation.refuse("only matrices and vectors may act on a field, along one finite axis.")
    if any(equation.wide_in(det)):
        raise equation.refuse("a constant matrix has a wide axis.")
    array = jnp.asarray(array)
    matrix = jnp.transpose(array, [*batch_d, *free, *contract_d])
    matrix = matrix if free else jnp.expand_dims(matrix, -2)
    rank = len(field.shape) + (field.wide_axis is not None)
    finite = [i for i in range(rank) if i != field.wide_axis]
    axis, along = finite.index(contract_f[0]), tuple(finite.index(a) for a in batch_f)
    out = field.map(lambda x: Linear(x, axis, matrix, along))
    rest = [i for i in range(rank) if i not in (*contract_f, *batch_f)]
    new = [contract_f[0]] * bool(free)
    order = [*batch_f, *rest, *new] if det == 1 else [*batch_f, *new, *rest]
    if not free:
        out = without_axis(out, axis, contract_f[0])
        order = [i - (i > contract_f[0]) for i in order]
    return permuted(out, order)


def _mix_several(equation, field, array, contract, *, det):
    """The same along several axes, merged into one."""
    contract_f, contract_d = contract
    rank = len(field.shape) + (field.wide_axis is not None)
    rest = [i for i in range(rank) if i not in contract_f]
    free = [a for a in range(jnp.ndim(array)) if a not in contract_d]
    if any(equation.wide_in(det)) or len(free) > 1:
        raise equation.refuse("only matrices and vectors may act on a field, along finite axes.")
    field = permuted(field, [*contract_f, *rest])
    merged = field.map(lambda x: Merge(x, 0, len(contract_f)))
    merged = Field(merged.blocks, None if field.wide_axis is None else field.wide_axis - len(contract_f) + 1)
    array = jnp.transpose(jnp.asarray(array), [*contract_d, *free])
    array = array.reshape(-1, *array.shape[len(contract_d) :])
    shapes = [equation.in_shapes[0], equation.in_shapes[1]]
    shapes[det] = (array.shape, array.shape)
    equation = dataclasses.replace(equation, in_shapes=shapes)
    return _mix(equation, merged, array, ((0,), (0,)), ((), ()), det=det)


def _moment(interpreter, equation, a, b, contract, batch):
    """Inner product of two fields over the width (and positions): ``n sum_p E[X_p Y_p]``, which is deterministic."""
    pairs, tied = list(zip(*contract, strict=True)), list(zip(*batch, strict=True))
    if a.wide_axis is not None and (a.wide_axis, b.wide_axis) in tied:
        return channel_by_channel(equation, a, b)
    if (a.wide_axis, b.wide_axis) not in pairs or a.wide_axis is None:
        raise equation.refuse("two fields are contracted along axes of which none is the width of both.")

    def place(field, axis):
        return axis - (axis > field.wide_axis)

    same = [(place(a, i), place(b, j)) for i, j in tied]
    summed = [(place(a, i), place(b, j)) for i, j in pairs if i != a.wide_axis]
    at: list[int | None] = [None] * len(b.shape)
    for i, j in same + summed:
        at[j] = i
    nx, free = len(a.shape), [j for j, i in enumerate(at) if i is None]
    total: Any = 0.0
    for (x, y), n in aligned([a, b]):
        value = interpreter.covariance.K(x, y, tuple(at))
        if value is not None:
            total = total + float(n) * value
    total = jnp.broadcast_to(jnp.asarray(total, interpreter.dtype), (*a.shape, *(b.shape[j] for j in free)))
    total = total.sum(axis=tuple(i for i, _ in summed))
    kept = [i for i in range(nx) if i not in {i for i, _ in summed}]
    first = [kept.index(i) for i, _ in same]
    return Det(jnp.moveaxis(total, first, range(len(first))))
