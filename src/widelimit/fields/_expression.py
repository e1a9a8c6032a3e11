"""Scalar functions of preactivations, as trees: what a nonlinearity in the user's code amounts to."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from widelimit.duals import Dual, Series, recognise
from widelimit.fields._errors import UnknownLimitError

__all__ = ["Apply", "Derivative", "Literal", "Parameter", "Variable", "dual_of", "evaluate", "has_parameters"]


# their parameters differ from one JAX to the next
_BY_FUNCTION = {"mul": jax.lax.mul, "add": jax.lax.add, "sub": jax.lax.sub, "div": jax.lax.div}


@dataclasses.dataclass(frozen=True)
class Variable:
    """A preactivation itself; functions of one have index 0 only.

    Like the other parts of a function no tuple: ``Variable(0)`` and ``Literal(0)`` would be equal, and the duals that
    are kept of `x sigmoid(x)` and `0 sigmoid(x)` the same.
    """

    index: int = 0


@dataclasses.dataclass(frozen=True)
class Literal:
    """A number."""

    value: Any


class Parameter:
    """A deterministic array, one entry per finite position; compared by identity."""

    def __init__(self, value):
        self.value = value


@dataclasses.dataclass(frozen=True)
class Derivative:
    """The derivative of a function with respect to one of its variables."""

    of: Any
    index: int = 0


@dataclasses.dataclass(frozen=True)
class Apply:
    """A JAX primitive applied to expressions; params is a sorted tuple of its (hashable) parameters."""

    primitive: Any
    params: tuple
    arguments: tuple


def has_parameters(expression) -> bool:
    """Whether the function depends on arrays (and so cannot be recognised before they are known)."""
    if isinstance(expression, Parameter):
        return True
    if isinstance(expression, Derivative):
        return has_parameters(expression.of)
    return isinstance(expression, Apply) and any(map(has_parameters, expression.arguments))


def evaluate(expression, z, place=None, memo: dict | None = None):
    """Value of the function at `z`, an array or a tuple of them (one for each variable).

    `place` maps each Parameter's array to one that broadcasts with `z`; `memo` holds the values of shared parts.
    """
    memo = {} if memo is None else memo
    if isinstance(expression, Variable):
        return z[expression.index] if isinstance(z, tuple) else z
    if isinstance(expression, Literal):
        return expression.value
    if isinstance(expression, Parameter):
        return expression.value if place is None else place(expression.value)
    if isinstance(expression, Derivative):
        tangents = _direction(z, expression.index)
        return jax.jvp(lambda *zs: evaluate(expression.of, _like(z, zs), place), _tuple(z), tangents)[1]
    if id(expression) not in memo:
        memo[id(expression)] = _applied(expression, [evaluate(a, z, place, memo) for a in expression.arguments], z)
    return memo[id(expression)]


def _applied(expression, values, z):
    dtype = jnp.result_type(*_tuple(z))
    arrays = [_cast(v, dtype) for v in values]
    if expression.primitive.name == "integer_pow":
        return arrays[0] ** dict(expression.params)["y"]
    if expression.primitive.name == "convert_element_type":
        return _converted(arrays[0], dict(expression.params)["new_dtype"], dtype)
    if expression.primitive.name == "select_n" and len(arrays) == 3:
        return jnp.where(arrays[0].astype(bool), arrays[2], arrays[1])
    arrays = jnp.broadcast_arrays(*arrays)
    if expression.primitive.name in _BY_FUNCTION:
        return _BY_FUNCTION[expression.primitive.name](*arrays)
    return expression.primitive.bind(*arrays, **dict(expression.params))


def _tuple(z) -> tuple:
    return z if isinstance(z, tuple) else (z,)


def _like(z, zs: tuple):
    return zs if isinstance(z, tuple) else zs[0]


def _direction(z, index: int) -> tuple:
    return tuple(jnp.ones_like(a) if i == index else jnp.zeros_like(a) for i, a in enumerate(_tuple(z)))


def _cast(value, dtype):
    array = jnp.asarray(value)
    return array.astype(dtype) if jnp.issubdtype(array.dtype, jnp.floating) else array


def _converted(array, new_dtype, dtype):
    if jnp.issubdtype(new_dtype, jnp.floating):
        return array.astype(dtype)
    return array.astype(new_dtype)


_KINKED = {
    "max",
    "min",
    "abs",
    "sign",
    "select_n",
    "clamp",
    "floor",
    "ceil",
    "round",
    "gt",
    "ge",
    "lt",
    "le",
    "eq",
    "ne",
}


def _may_have_kinks(expression) -> bool:
    if isinstance(expression, Derivative):
        return _may_have_kinks(expression.of)
    if not isinstance(expression, Apply):
        return False
    return expression.primitive.name in _KINKED or any(map(_may_have_kinks, expression.arguments))


@functools.lru_cache(maxsize=512)
def _recognised(expression) -> Dual:
    from widelimit._precision import enable_x64

    with enable_x64():
        return recognise(functools.partial(evaluate, expression))


def dual_of(expression, place=None) -> Dual:
    """The dual of the function; one with parameters gets a Hermite series, its arrays put in place by `place`.

    Raises UnknownLimitError for one with parameters that may have kinks: the series would be off by some 1e-3.
    """
    if not has_parameters(expression):
        return _recognised(expression)
    if _may_have_kinks(expression):
        raise UnknownLimitError(
            "a function with a possible kink (max, abs, where, ...) depends on the input, or on a traced number, in "
            "other ways than through its preactivation: its kinks are not known and no series is accurate. Remedy: "
            "use numbers that are not traced, a smooth function, or wl.monte_carlo for an estimate."
        )
    return Series(functools.partial(evaluate, expression, place=lambda a: (place(a) if place else a)[..., None]))
