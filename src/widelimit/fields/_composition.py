"""Functions of functions: a node written out as one function of Gaussian fields."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import lax

from widelimit._precision import at_once, is_traced
from widelimit.duals import Series
from widelimit.fields._expression import Apply, Derivative, Literal, Parameter, Variable, dual_of, has_parameters
from widelimit.fields._node import Const, Ew, Joint, Node, Sum

__all__ = [
    "affine",
    "applied",
    "combined",
    "constant_expression",
    "is_number",
    "one_closed_form",
    "substitute",
    "unshifted",
]


def is_number(value) -> bool:
    """A scalar known while tracing."""
    return isinstance(value, float | int) or (jnp.ndim(value) == 0 and not is_traced(value))


def constant_expression(array):
    """A literal where the number is known, else a parameter."""
    if is_number(array):
        return Literal(array if isinstance(array, float | int | bool) else array.item())
    if array.size == 1 and array.ndim:
        with at_once(array):
            return constant_expression(array.reshape(()))
    return Parameter(array)


def applied(primitive, *arguments) -> Apply:
    """A primitive without parameters, applied."""
    return Apply(primitive, (), arguments)


def substitute(expression, inner: list, memo: dict | None = None, move: Callable | None = None):
    """The function with its variables replaced by functions; None if it holds a derivative.  Shared parts stay so.

    move: what becomes of the arrays that it depends on, where its positions move.
    """
    memo = {} if memo is None else memo
    if isinstance(expression, Variable):
        return inner[expression.index]
    if isinstance(expression, Derivative):
        return None  # the derivative is with respect to its own variable: leave it unmerged
    if isinstance(expression, Parameter) and move is not None:
        return Parameter(move(expression.value))
    if not isinstance(expression, Apply):
        return expression
    if id(expression) not in memo:
        arguments = tuple(substitute(a, inner, memo, move) for a in expression.arguments)
        missing = any(a is None for a in arguments)
        memo[id(expression)] = None if missing else dataclasses.replace(expression, arguments=arguments)
    return memo[id(expression)]


def combined(coefficients, expressions):
    """``sum_i c_i e_i``."""
    total = None
    for c, e in zip(coefficients, expressions, strict=True):
        one = is_number(c) and float(c) == 1
        term = e if one else applied(lax.mul_p, constant_expression(c), e)
        total = term if total is None else applied(lax.add_p, total, term)
    return total


def affine(node: Node):
    """``(c, u, d)`` of a field ``c u + d`` with numbers c, d that are known; else None."""
    if not isinstance(node, Sum):
        return None
    varying = [(c, n) for c, n in node.terms if not isinstance(n, Const)]
    constants = [(c, n.array) for c, n in node.terms if isinstance(n, Const)]
    if len(varying) != 1 or not all(is_number(c) for c, _ in varying + constants):
        return None
    if any(jnp.size(a) != 1 or is_traced(a) for _, a in constants):
        return None
    (c, u), d = varying[0], sum((float(c) * np.asarray(a, float).item() for c, a in constants), 0.0)
    return float(c), u, d


def unshifted(node: Node) -> Node:
    """``phi(c u + d)`` as a function of u where that has a closed form: those are of centred Gaussians.

    A series or a kink off 0 stays as it is: what is known of the shifted one then decides.
    """
    if not isinstance(node, Ew) or has_parameters(node.expression):
        return node
    found = affine(node.leaf)
    if found is None or found[2] == 0:
        return node
    c, u, d = found
    inner = Variable() if c == 1 else applied(lax.mul_p, Literal(c), Variable())
    expression = substitute(node.expression, [applied(lax.add_p, inner, Literal(d))])
    if expression is None or isinstance(dual_of(expression), Series):
        return node
    return Ew(expression, u)


def one_closed_form(cov, node: Sum) -> Ew | None:
    """The sum as one function of one field, where that has a closed form and a term has not: celu is written so."""
    if node.gaussian or not any(map(_has_series, node.terms)):
        return None
    joint = cov.joint(node)
    if not isinstance(joint, Joint) or len(joint.leaves) > 1 or has_parameters(joint.expression):
        return None
    leaf = joint.leaves[0]
    if cov.mean(leaf) is not None or isinstance(dual_of(joint.expression), Series):
        return None
    return Ew(joint.expression, leaf)


def _has_series(term) -> bool:
    node = term[1]
    if isinstance(node, Sum):
        return any(map(_has_series, node.terms))
    return isinstance(node, Ew) and not has_parameters(node.expression) and isinstance(dual_of(node.expression), Series)
