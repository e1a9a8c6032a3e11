"""Primitives that act entry by entry: linear ones give sums, others nonlinearities and products."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from widelimit._precision import at_once, is_traced
from widelimit.fields import LARGEST, Apply, Axes, Const, Ew, Frozen, Literal, Node, Sum, crowded, is_number
from widelimit.trace._interpreter import as_arrays, available
from widelimit.trace._merging import function_of, multiply_nodes
from widelimit.trace._rules import rule
from widelimit.trace._values import Det, Field, Weight, aligned, as_field, known

__all__ = ["fields_of"]

_NONLINEAR = [
    "exp",
    "exp2",
    "log",
    "log1p",
    "expm1",
    "tanh",
    "sin",
    "cos",
    "tan",
    "sinh",
    "cosh",
    "asin",
    "acos",
    "atan",
    "asinh",
    "acosh",
    "atanh",
    "logistic",
    "erf",
    "erfc",
    "erf_inv",
    "lgamma",
    "digamma",
    "sqrt",
    "rsqrt",
    "cbrt",
    "abs",
    "sign",
    "floor",
    "ceil",
    "round",
    "is_finite",
    "square",
    "one_minus_square",
    "integer_pow",
    "pow",
    "max",
    "min",
    "rem",
    "atan2",
    "nextafter",
    "gt",
    "ge",
    "lt",
    "le",
    "eq",
    "ne",
    "not",
    "and",
    "or",
    "xor",
    "clamp",
    "bessel_i0e",
    "bessel_i1e",
]


def _drop_wide(array, equation, i):
    """An operand's array without the (size 1) wide axes; scalars stay scalars."""
    if jnp.ndim(array) == 0:
        return array
    wide = equation.wide_out()
    axes = tuple(a for a, w in enumerate(wide) if w)
    if not axes or jnp.ndim(array) != len(wide):
        return array
    with at_once(array):
        return jnp.squeeze(array, axis=axes)


def fields_of(equation, values):
    """Operands as fields or constants aligned with the output's axes; every Weight becomes a field."""
    return [
        v if isinstance(v, Det) else _repeated(equation, as_field(v) if isinstance(v, Weight) else v) for v in values
    ]


def _repeated(equation, field: Field) -> Field:
    """The field repeated along axes where it has size 1 and the output more (newer JAX leaves that implicit)."""
    shape = tuple(n for i, n in enumerate(equation.out_shapes[0][0]) if i != field.wide_axis)
    if field.shape == shape or len(field.shape) != len(shape):
        return field
    source = tuple(i if a == b else None for i, (a, b) in enumerate(zip(field.shape, shape, strict=True)))
    return field.map(lambda x: Axes(x, source, shape))


def _blocks(equation, values, function):
    """Apply a function of nodes to aligned blocks; deterministic operands become Const nodes of the finite shape."""
    values = fields_of(equation, values)
    fields = [v for v in values if isinstance(v, Field)]
    shape = fields[0].shape
    axis = next((f.wide_axis for f in fields if f.wide_axis is not None), None)
    if any(f.wide_axis != axis for f in fields):
        raise equation.refuse("its operands have different wide axes, or one is wide and the other is not.")
    constants = {}
    for i, v in enumerate(values):
        if isinstance(v, Det):
            array = _drop_wide(v.array, equation, i)
            with at_once(array):
                constants[i] = Const(jnp.asarray(array)) if jnp.ndim(array) else _Scalar(array, shape)
    out = []
    for nodes, n in aligned(fields):
        queue = iter(nodes)
        arguments = [constants[i] if i in constants else next(queue) for i in range(len(values))]
        out.append((function(arguments), n))
    return Field(tuple(out), axis)


class _Scalar(Const):
    """A number, kept as it is until it is applied."""

    def __init__(self, number, shape):
        self.number, self.shape = number, shape

    @property
    def array(self):
        return self.number if is_number(self.number) else jnp.asarray(self.number)


def _as_node(node):
    if isinstance(node, _Scalar):
        with at_once(node.number):
            return Const(jnp.broadcast_to(jnp.asarray(node.number), node.shape))
    return node


def _deterministic(interpreter, equation, values):
    """An elementwise primitive on constants with wide axes: computed once, kept at size 1."""
    arrays = as_arrays([v.array for v in values])
    rank = len(equation.out_shapes[0][0])
    shapes = [a.shape for a in arrays if a.ndim == rank]
    target = jnp.broadcast_shapes(*shapes) if shapes else ()
    arrays = [jnp.broadcast_to(a, target) for a in arrays]
    floats = [a for a in arrays if jnp.issubdtype(a.dtype, jnp.floating)]
    if floats:
        arrays = [a.astype(interpreter.dtype) if a.dtype.kind == "f" else a for a in arrays]
    return Det(interpreter.cast(equation.primitive.bind(*arrays, **equation.params)))


def _with_constants(interpreter, values):
    return [known(v, interpreter.dtype) for v in values]


def _all_det(values):
    return all(isinstance(v, Det) for v in values)


@rule("add", "add_any", "sub", elementwise=True)
def _add(interpreter, equation, values):
    values = _with_constants(interpreter, values)
    if _all_det(values):
        return _deterministic(interpreter, equation, values)
    sign = -1.0 if equation.name == "sub" else 1.0

    def combine(xs):
        both = ((1.0, xs[0]), (sign, xs[1]))
        terms: list[tuple[Any, Node]] = [(c, _as_node(x)) for c, x in both if not _known_zero(x)]
        return terms[0][1] if len(terms) == 1 and terms[0][0] == 1.0 else Sum(terms)

    return _blocks(equation, values, combine)


def _known_zero(node) -> bool:
    """A constant known to vanish: a mean of 0 must stay a structural zero, for closed forms are for centred fields."""
    if not isinstance(node, Const) or is_traced(node.array):
        return False
    return not np.any(np.asarray(node.array))


@rule("neg", elementwise=True)
def _negative(interpreter, equation, values):
    if _all_det(values):
        return _deterministic(interpreter, equation, values)
    return _scaled(interpreter, values[0], -1.0, equation)


def _scaled(interpreter, value, factor, equation):
    if isinstance(value, Weight) and (is_number(factor) or jnp.ndim(factor) == 0):
        return dataclasses.replace(value, scale=value.scale * factor)
    value = as_field(value) if isinstance(value, Weight) else value
    return value.map(lambda x: Sum([(factor, x)]))


@rule("mul", elementwise=True)
def _multiply(interpreter, equation, values):
    if _all_det(values):
        return _deterministic(interpreter, equation, values)
    for a, b in ((0, 1), (1, 0)):
        if isinstance(values[b], Det) and isinstance(values[a], Weight) and jnp.size(values[b].array) == 1:
            number = values[b].array
            return _scaled(interpreter, values[a], number if is_number(number) else jnp.reshape(number, ()), equation)
    values = _with_constants(interpreter, values)
    if _all_det(values):
        return _deterministic(interpreter, equation, values)

    def product(xs):
        for a, b in ((0, 1), (1, 0)):
            if isinstance(xs[b], Const):
                return Sum([(xs[b].array, _as_node(xs[a]))])
        return multiply_nodes(xs[0], xs[1])

    field = _blocks(equation, values, product)
    if field.wide_axis is None and not any(isinstance(v, Det) for v in values):
        raise equation.refuse(*_OF_AN_OUTPUT)
    return field


_OF_AN_OUTPUT = (
    (
        "it is a nonlinear function of a random value without a wide axis (an output, or a narrow layer), which stays "
        "random in the limit."
    ),
    "Remedy: apply it to the kernel's predictions instead, or make the layer before it wide.",
)


@rule("div", elementwise=True)
def _divide(interpreter, equation, values):
    if _all_det(values):
        return _deterministic(interpreter, equation, values)
    values = [values[0], known(values[1], interpreter.dtype)]
    if isinstance(values[1], Det):
        with at_once(values[1].array):
            factor = Det(1 / values[1].array)
        return _multiply(interpreter, equation, [values[0], factor])
    return _function(interpreter, equation, values)


@rule("copy", "copy_p", "reduce_precision", "optimization_barrier", elementwise=True)
def _identity(interpreter, equation, values):
    return values[0]


@rule("convert_element_type", elementwise=True)
def _convert(interpreter, equation, values):
    value = values[0]
    if isinstance(value, Det):
        if jnp.issubdtype(equation.params["new_dtype"], jnp.floating):
            return Det(jnp.asarray(value.array).astype(interpreter.dtype))
        return Det(jnp.asarray(value.array).astype(available(equation.params["new_dtype"])))
    if isinstance(value, Field) and isinstance(value.blocks[0][0], Ew):
        return _function(interpreter, equation, values)
    if not jnp.issubdtype(equation.params["new_dtype"], jnp.floating):
        raise equation.refuse("a wide field is rounded to integers.")
    return value


@rule("stop_gradient", elementwise=True)
def _stop_gradient(interpreter, equation, values):
    value = values[0]
    if isinstance(value, Weight):
        return dataclasses.replace(value, prior=value.prior._replace(lr=0.0))
    return value.map(Frozen) if isinstance(value, Field) else value


_OF_TOO_MANY = (
    f"it is a nonlinear function of a sum over positions (or examples of a batch) of which more than {LARGEST} enter.",
    f"Remedy: at most {LARGEST} positions, of all examples together, LayerNorm, GroupNorm(1) or a dense layer before.",
)

_OF_A_MASK = (
    "it is a nonlinear function of a dropout mask, or of a sum over positions of nonlinear functions.",
    "Remedy: apply the nonlinearity before the mask or the sum, or put a dense layer in between.",
)


def _function(interpreter, equation, values):
    """Any other function: one preactivation is needed, of which all operands are functions."""
    values = _with_constants(interpreter, values)
    if _all_det(values):
        return _deterministic(interpreter, equation, values)
    params = tuple(sorted((k, v) for k, v in equation.params.items() if _hashable(v)))

    def nonlinearity(nodes):
        if equation.name == "square" or (equation.name == "integer_pow" and equation.params["y"] == 2):
            return multiply_nodes(nodes[0], nodes[0])
        node = function_of(equation.primitive, params, nodes)
        if node is None:
            raise equation.refuse(*(_OF_TOO_MANY if any(map(crowded, nodes)) else _OF_A_MASK))
        return node

    field = _blocks(equation, values, nonlinearity)
    if field.wide_axis is None:
        raise equation.refuse(*_OF_AN_OUTPUT)
    return field


def _hashable(value) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


rule(*_NONLINEAR, elementwise=True)(_function)


@rule("select_n", elementwise=True)
def _select(interpreter, equation, values):
    if _all_det(values):
        return _deterministic(interpreter, equation, values)
    if isinstance(values[0], Det):
        return _select_by_mask(interpreter, equation, values)
    values = fields_of(equation, values)

    def choose(nodes):
        mask = nodes[0]
        merged = function_of(equation.primitive, (), nodes)
        if isinstance(merged, Ew) or (merged is not None and not isinstance(mask, Ew)):
            return merged
        if not isinstance(mask, Ew):
            raise equation.refuse("its predicate is a function of a dropout mask or of a sum over positions.")
        # the predicate is independent of (or linear next to) the cases: sum of indicator times case
        one = Ew(Apply(lax.select_n_p, (), (mask.expression, Literal(0.0), Literal(1.0))), mask.leaf)
        zero = Ew(Apply(lax.select_n_p, (), (mask.expression, Literal(1.0), Literal(0.0))), mask.leaf)
        terms = [
            multiply_nodes(indicator, _as_node(case))
            for indicator, case in ((zero, nodes[1]), (one, nodes[2]))
            if not (isinstance(case, Const) and is_number(case.array) and float(case.array) == 0)
        ]
        return Sum([(1.0, t) for t in terms])

    return _blocks(equation, values, choose)


def _select_by_mask(interpreter, equation, values):
    mask = _drop_wide(jnp.asarray(values[0].array), equation, 0)
    values = fields_of(equation, values[1:])

    def choose(nodes):
        terms = [_where(mask == i, _as_node(x), interpreter.dtype) for i, x in enumerate(nodes)]
        return Sum([t for t in terms if t is not None and not _known_zero(t[1])] or [_zero(nodes)])

    return _blocks(equation, values, choose)


def _where(chosen, node: Node, dtype) -> tuple[Any, Node] | None:
    """A case of `where` and its coefficient; None if it is known never to be chosen (it may be infinite, or nan)."""
    if not is_traced(chosen) and not np.any(chosen):
        return None
    with at_once(chosen):
        if isinstance(node, Const):
            return 1.0, Const(jnp.broadcast_to(jnp.where(chosen, node.array, 0), node.shape))
        return jnp.where(chosen, 1.0, 0.0).astype(dtype), node


def _zero(nodes) -> tuple[Any, Node]:
    return 1.0, Const(jnp.zeros(nodes[0].shape))
