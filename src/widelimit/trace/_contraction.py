"""Contractions: a value with a weight (`Mat`), with a constant (`Linear`), of two fields over the width (a moment)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from widelimit.fields import Axes, Const, Linear, Mat, Node, Sum
from widelimit.trace._interpreter import rule
from widelimit.trace._uses import mean_shift, reaction
from widelimit.trace._values import BOTH_USES, Det, Field, Flat, Weight, aligned, as_field

__all__: list[str] = []


@rule("dot_general", takes_flat=True)
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
    if isinstance(b, Weight):
        return _apply_weight(interpreter, equation, a, b, 0, (contract_a, contract_b), (batch_a, batch_b))
    if isinstance(a, Weight):
        return _apply_weight(interpreter, equation, b, a, 1, (contract_b, contract_a), (batch_b, batch_a))
    if isinstance(a, Det) and isinstance(b, Det):
        return _constants(interpreter, equation, a, b)
    if isinstance(a, Field) and isinstance(b, Field):
        return _moment(interpreter, equation, a, b, contract_a, contract_b, batch_a)
    if not batch_a:
        if isinstance(b, Det):
            return _mix(equation, a, b.array, contract_a, contract_b, field_first=True, det=1)
        if isinstance(a, Det):
            return _mix(equation, b, a.array, contract_b, contract_a, field_first=False, det=0)
    raise equation.refuse("a contraction with batch axes between these operands has no rule.")


def _flat_dot(interpreter, equation, values):
    """A merged axis contracted with a parameter's, which is then seen as several too."""
    i = 0 if isinstance(values[0], Flat) else 1
    flat, weight = values[i], values[1 - i]
    contract, batch = equation.params["dimension_numbers"]
    if not isinstance(weight, Weight) or flat.axis not in contract[i] or batch[0]:
        raise equation.refuse("an axis merged with the width can only be contracted with a parameter.")
    w = contract[1 - i][list(contract[i]).index(flat.axis)]
    wide = tuple(a != b for a, b in zip(flat.sizes, flat.sizes2, strict=True))
    axes, shapes = [], []
    for side, j in ((0, flat.axis if i == 0 else w), (1, flat.axis if i == 1 else w)):
        new: list[int] = []
        for a in contract[side]:
            new += range(j, j + len(wide)) if a == j else [a + (len(wide) - 1) * (a > j)]
        axes.append(tuple(new))
        pair = zip(equation.in_shapes[side], (flat.sizes, flat.sizes2), strict=True)
        shapes.append(tuple((*s[:j], *parts, *s[j + 1 :]) for s, parts in pair))
    params = {**equation.params, "dimension_numbers": (tuple(axes), batch)}
    parts = [flat.field, weight.split(w, flat.sizes, wide)]
    equation = dataclasses.replace(equation, params=params, in_shapes=shapes)
    return _dot_general(interpreter, equation, parts if i == 0 else parts[::-1])


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
    if wide_pairs and weight.uses.vector:
        raise equation.refuse(BOTH_USES, " ")
    for node, n in blocks:
        if order != list(range(len(order))):
            node = (
                Const(jnp.transpose(node.array, order))
                if isinstance(node, Const)
                else Axes(node, tuple(order), tuple(node.shape[i] for i in order))
            )
        free_sizes = tuple(weight.size[a] for a in finite_free)
        key = (weight.taken_key(), direction)
        mat = Mat(key, weight.prior, node, n, len(finite_pairs), free_sizes, start, offset, own)
        terms += [(1.0, mat), *mean_shift(interpreter, weight, mat)]
        terms += reaction(interpreter, equation, weight, direction, mat)
        start += n
    node = terms[0][1] if len(terms) == 1 else Sum(terms)
    node, axis = _arranged(node, weight, len(kept), free, finite_free, weight_last, len(batch_v))
    if not (isinstance(weight.scale, float) and weight.scale == 1.0):
        node = Sum([(weight.scale, node)])
    return Field(((node, n_out),), axis)


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


def _mix(equation, field, array, contract_f, contract_d, *, field_first, det):
    """A field contracted with a constant matrix or vector along one finite axis."""
    if len(contract_f) != 1 or jnp.ndim(array) not in (1, 2) or contract_f[0] == field.wide_axis:
        raise equation.refuse("only matrices and vectors may act on a field, along one finite axis.")
    if any(equation.wide_in(det)):
        raise equation.refuse("a constant matrix has a wide axis.")
    vector = jnp.ndim(array) == 1
    matrix = array[None] if vector else jnp.moveaxis(array, contract_d[0], 1)  # (out, in)
    rank = len(field.shape) + (field.wide_axis is not None)
    finite = [i for i in range(rank) if i != field.wide_axis]
    axis = finite.index(contract_f[0])
    out = field.map(lambda x: Linear(x, axis, matrix))
    if vector:
        return without_axis(out, axis, contract_f[0])
    # the new axis is last (field first) or first in the output
    position = rank - 1 if field_first else 0
    order = [i for i in range(rank) if i != contract_f[0]]
    order.insert(position, contract_f[0])
    return permuted(out, order)


def without_axis(field: Field, index: int, position: int) -> Field:
    """A finite axis of size 1 dropped: the node's axis `index`, the array's axis `position`."""

    def dropped(x):
        keep = tuple(i for i in range(len(x.shape)) if i != index)
        return Axes(x, keep, tuple(x.shape[i] for i in keep))

    wide = field.wide_axis
    return Field(field.map(dropped).blocks, wide if wide is None or wide < position else wide - 1)


def permuted(field: Field, order) -> Field:
    """``transpose(order)`` of a field."""
    axis = None if field.wide_axis is None else list(order).index(field.wide_axis)
    rank = len(order)
    finite = [i for i in range(rank) if i != field.wide_axis]
    source = tuple(finite.index(i) for i in order if i != field.wide_axis)
    if source == tuple(range(len(source))):
        return Field(field.blocks, axis)
    return Field(tuple((Axes(x, source, tuple(x.shape[j] for j in source)), n) for x, n in field.blocks), axis)


def _moment(interpreter, equation, a, b, contract_a, contract_b, batch):
    """Inner product of two fields over the width: ``n E[X Y]``, deterministic in the limit."""
    if batch or list(contract_a) != [a.wide_axis] or list(contract_b) != [b.wide_axis]:
        raise equation.refuse("two fields are contracted along axes other than their width alone.")
    total: Any = 0.0
    for (x, y), n in aligned([a, b]):
        value = interpreter.covariance.K(x, y, (None,) * len(y.shape))
        if value is not None:
            total = total + float(n) * value
    shape = a.shape + b.shape
    return Det(jnp.broadcast_to(jnp.asarray(total, interpreter.dtype), shape))
