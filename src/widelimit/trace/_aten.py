"""ATen operations in JAX: runs the graph of a PyTorch module on JAX arrays.

A rule is a function of JAX arrays with the arguments of the ATen operation; operations without one are decomposed by
PyTorch into simpler ones as far as it can, and what is then left over is refused.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from widelimit.fields import UnknownLimitError
from widelimit.trace._torch_graph import Graph, Ref

__all__ = ["ATEN", "RefusedOperation", "aten", "dtype_of", "run"]

ATEN: dict[str, Callable] = {}


class RefusedOperation(Exception):
    """Raised by a rule: why, and what can be done."""


def aten(*names: str):
    """Register the rule of ATen operations: of all overloads (``"linear"``), or of one (``"mean.dim"``)."""

    def register(function):
        for name in names:
            ATEN[name] = function
        return function

    return register


def dtype_of(name: str | None, default: Any = None):
    """JAX's type for "float", "complex", "int", "short" or "bool"; all floating-point types are of one precision."""
    if name is None:
        return default
    return {"float": jnp.result_type(float), "int": jnp.result_type(int), "short": jnp.result_type(int),
            "bool": jnp.bool_, "complex": jnp.result_type(complex)}[name]  # fmt: skip


def run(graph: Graph, tensor_of: Callable[[str], Any], x):
    """Output of the graph for one example: ``module(x[None])[0]``.

    tensor_of: the array of a parameter, buffer or constant, by name, asked only for those that are used.
    Raises UnknownLimitError for an operation without a rule.
    """
    nodes = {node.name: node for node in graph.nodes}
    values = {graph.x: x[None]}

    def value_of(argument) -> Any:
        if isinstance(argument, Ref):
            if argument.name not in values:
                name = graph.inputs.get(argument.name)  # None: no tensor, but a random generator, say
                values[argument.name] = None if name is None else tensor_of(name)
            return values[argument.name]
        if isinstance(argument, tuple):
            return [value_of(a) for a in argument]
        if isinstance(argument, dict):
            return {k: value_of(a) for k, a in argument.items()}
        return argument

    needed = _needed(graph, nodes)
    for node in graph.nodes:
        if node.name not in needed:
            continue
        rule = ATEN.get(node.op) or ATEN.get(node.op.partition(".")[0])
        if rule is None:
            raise UnknownLimitError(
                f"{node.place}: this operation of PyTorch has no counterpart here. Remedy: write it with others (see "
                "docs/extend.md to add it), or write the network in JAX."
            )
        with jax.named_scope(f"[torch {node.place}]"):
            try:
                values[node.name] = rule(*value_of(node.args), **value_of(node.kwargs))
            except RefusedOperation as refusal:
                why, remedy = refusal.args
                raise UnknownLimitError(f"{node.place}: {why} {remedy}") from refusal
    out = value_of(Ref(graph.output))
    if jnp.ndim(out) == 0 or out.shape[0] != 1:
        raise ValueError(f"the module must return a batch of one output for a batch of one, not {jnp.shape(out)}.")
    return out[0]


def _needed(graph: Graph, nodes) -> set[str]:
    needed, queue = set(), [graph.output]
    while queue:
        name = queue.pop()
        if name in nodes and name not in needed:
            needed.add(name)
            queue += _refs((nodes[name].args, nodes[name].kwargs))
    return needed


def _refs(argument) -> list[str]:
    if isinstance(argument, Ref):
        return [argument.name]
    if isinstance(argument, dict):
        argument = tuple(argument.values())
    return [name for a in argument for name in _refs(a)] if isinstance(argument, tuple) else []


@aten("getitem")
def _getitem(values, i):
    """One of several results; a rule may give one as a function, and leave one out that it has no way to give."""
    value = values[i] if i < len(values) else None
    if value is None:
        raise RefusedOperation("this output of the operation has no rule.", "Remedy: write it with other operations.")
    return value() if callable(value) else value


# Entry by entry


_SAME_NAME = [
    "exp", "exp2", "expm1", "log", "log1p", "log2", "log10", "sin", "cos", "tan", "sinh", "cosh", "tanh", "asin",
    "acos", "atan", "asinh", "acosh", "atanh", "sign", "floor", "ceil", "round", "trunc", "square", "sqrt", "maximum",
    "minimum", "logical_and", "logical_or", "logical_not", "logical_xor", "isnan", "isinf", "atan2",
]  # fmt: skip
for _name in _SAME_NAME:
    ATEN[_name] = getattr(jnp, _name)

ATEN |= {
    "neg": lambda x: -x,
    "rsqrt": jax.lax.rsqrt,
    "reciprocal": lambda x: 1 / x,
    "erf": jax.scipy.special.erf,
    "erfc": jax.scipy.special.erfc,
    "special_erf": jax.scipy.special.erf,
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
    "selu": jax.nn.selu,
    "mish": lambda x: x * jnp.tanh(jax.nn.softplus(x)),
    "log_sigmoid": jax.nn.log_sigmoid,
    "gelu": lambda x, approximate="none": jax.nn.gelu(x, approximate=approximate == "tanh"),
    "celu": lambda x, alpha=1.0: jax.nn.celu(x, alpha),
    "threshold": lambda x, at, value: jnp.where(x > at, x, value),
    "hardshrink": lambda x, at=0.5: jnp.where(jnp.abs(x) > at, x, 0.0),
    "add": lambda a, b, alpha=1: a + _times(alpha, b),
    "sub": lambda a, b, alpha=1: a - _times(alpha, b),
    "rsub": lambda a, b, alpha=1: b - _times(alpha, a),
    "mul": lambda a, b: a * b,
    "pow": lambda a, b: a**b,
    "remainder": lambda a, b: a % b,
    "addcmul": lambda x, a, b, value=1: x + _times(value, a * b),
    "addcdiv": lambda x, a, b, value=1: x + _times(value, a / b),
    "lerp": lambda a, b, w: a + w * (b - a),
    "where": jnp.where,
    "masked_fill": lambda x, mask, value: jnp.where(mask, value, x),
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "bitwise_not": jnp.bitwise_not,
    "bitwise_and": jnp.bitwise_and,
    "bitwise_or": jnp.bitwise_or,
    "detach": jax.lax.stop_gradient,
    "clone": lambda x: x,
    "contiguous": lambda x: x,
    "alias": lambda x: x,
    "lift_fresh_copy": lambda x: x,
    "copy": lambda x, source: jnp.broadcast_to(source, x.shape),
    "glu": lambda x, dim=-1: functools.reduce(lambda a, b: a * jax.nn.sigmoid(b), jnp.split(x, 2, dim)),
}


def _times(number, x):
    return x if isinstance(number, int | float) and number == 1 else number * x


@aten("div")
def _div(a, b, rounding_mode=None):
    if rounding_mode is None:
        return a / b
    return jnp.floor(a / b) if rounding_mode == "floor" else jnp.trunc(a / b)


@aten("floor_divide")
def _floor_divide(a, b):
    return a // b


@aten("elu")
def _elu(x, alpha=1.0, scale=1.0, input_scale=1.0):
    if input_scale == 1:
        return _times(scale, jax.nn.elu(x, alpha))
    return scale * jnp.where(x > 0, x, alpha * jnp.expm1(jnp.minimum(x, 0) * input_scale))


@aten("_to_copy", "to", "type_as")
def _to(x, *others, dtype=None, **_):
    """To a type by its name, or to that of another array."""
    for other in others:
        if isinstance(other, jax.Array):
            kinds = {"float": jnp.floating, "complex": jnp.complexfloating, "bool": jnp.bool_, "int": jnp.integer}
            dtype = next(name for name, kind in kinds.items() if jnp.issubdtype(other.dtype, kind))
        elif other in ("float", "complex", "bool", "int", "short"):
            dtype = other
    if dtype == "short" and x.dtype != jnp.bool_:
        raise RefusedOperation("integers of 8 or 16 bits wrap around.", "Remedy: .long().")
    if not isinstance(dtype, str):
        return x
    same = dtype == "float" and jnp.issubdtype(x.dtype, jnp.floating)
    same |= dtype == "complex" and jnp.iscomplexobj(x)
    return x if same else x.astype(dtype_of(dtype))


# Constants


@aten("full")
def _full(shape, value, dtype=None):
    return jnp.full(tuple(shape), value, dtype_of(dtype))


@aten("full_like")
def _full_like(x, value, dtype=None):
    return jnp.full(x.shape, value, dtype_of(dtype, x.dtype))


@aten("new_full")
def _new_full(x, shape, value, dtype=None):
    return jnp.full(tuple(shape), value, dtype_of(dtype, x.dtype))


ATEN |= {
    "empty": lambda shape, dtype="float": _full(shape, 0, dtype),
    "empty_permuted": lambda shape, order, dtype="float": _full(shape, 0, dtype),
    "fill": lambda x, value: jnp.broadcast_to(jnp.asarray(value, x.dtype), x.shape),
    "zeros": lambda shape, dtype="float": _full(shape, 0, dtype),
    "ones": lambda shape, dtype="float": _full(shape, 1, dtype),
    "zeros_like": lambda x, dtype=None: _full_like(x, 0, dtype),
    "ones_like": lambda x, dtype=None: _full_like(x, 1, dtype),
    "new_zeros": lambda x, shape, dtype=None: _new_full(x, shape, 0, dtype),
    "new_ones": lambda x, shape, dtype=None: _new_full(x, shape, 1, dtype),
    "scalar_tensor": lambda value, dtype=None: jnp.asarray(value, dtype_of(dtype)),
    "eye": lambda n, m=None, dtype="float": jnp.eye(n, m if isinstance(m, int) else n, dtype=dtype_of(dtype)),
    "linspace": lambda a, b, steps, dtype="float": jnp.linspace(a, b, steps, dtype=dtype_of(dtype)),
    "tril": lambda x, k=0: jnp.tril(x, k),
    "triu": lambda x, k=0: jnp.triu(x, k),
}


@aten("arange")
def _arange(*numbers, dtype=None):
    return jnp.arange(*numbers, dtype=dtype_of(dtype))
