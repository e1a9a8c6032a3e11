"""A node written out as one function of all the Gaussian fields in it, at other positions too.

What is summed or picked over positions after a nonlinearity (pooling, a maximum, the statistics of a batch) and then
goes through another is a function of the Gaussian fields at each of those positions: ``phi(sum_j A_ij psi(u_j))`` is
one of `Take`s of u, one for each term of the sum.
"""

from __future__ import annotations

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from widelimit._precision import is_traced
from widelimit.fields._composition import applied, combined, constant_expression, substitute
from widelimit.fields._expression import Literal, Parameter, Variable
from widelimit.fields._linear import moved
from widelimit.fields._node import (
    Axes,
    Const,
    Copies,
    Ew,
    Frozen,
    Joint,
    Linear,
    Mat,
    Merge,
    Node,
    Prod,
    Split,
    Sum,
    Take,
    Windows,
)
from widelimit.fields._taking import picked

__all__ = ["LARGEST", "as_joint", "crowded", "expanded", "is_shifted", "same_field"]

LARGEST = 96  # Gaussian fields in one function: more take too many points


def expanded(node: Node, leaves: list[Node]):
    """The node as a function of Gaussian fields, which are added to `leaves`; None where it is not one."""
    if isinstance(node, Const):
        return constant_expression(node.array)
    if node.gaussian and not is_shifted(node):
        return _variable(node, leaves)
    if isinstance(node, Ew | Joint):
        own = node.leaves if isinstance(node, Joint) else [node.leaf]
        return substitute(node.expression, [expanded(u, leaves) for u in own])
    if isinstance(node, Sum):
        parts = _centred(node) if node.gaussian else node.terms
        terms = [expanded(child, leaves) for _, child in parts]
        return None if any(t is None for t in terms) else combined([c for c, _ in parts], terms)
    if isinstance(node, Prod):
        factors = [expanded(factor, leaves) for factor in node.factors]
        return None if any(f is None for f in factors) else functools.reduce(_product, factors)
    if isinstance(node, Linear | Frozen | Axes | Take | Windows | Merge | Split):
        inner = as_joint(node)
        return None if inner is None else substitute(inner.expression, [expanded(u, leaves) for u in inner.leaves])
    return None


def is_shifted(node: Node) -> bool:
    """Whether constants are added to a field: they belong to the function (the ``-inf`` of a mask has no moments)."""
    if isinstance(node, Sum):
        return any(is_shifted(child) for _, child in node.terms)
    moves = isinstance(node, Linear | Frozen | Axes | Take | Windows | Merge | Split)
    return isinstance(node, Const) or (moves and is_shifted(node.child))


def _centred(node: Sum) -> list[tuple[Any, Node]]:
    """The terms of a shifted Gaussian field: those without a constant as one field, the same each time."""
    known = node.__dict__
    if "centred" not in known:
        rest = [(c, x) for c, x in node.terms if is_shifted(x)]
        centred = [(c, x) for c, x in node.terms if not is_shifted(x)]
        known["centred"] = ([(1.0, Sum(centred))] if centred else []) + rest
    return known["centred"]


def as_joint(node: Node) -> Joint | None:
    """The node as one function of all the Gaussian fields in it; None where it is not one (dropout), or of too many."""
    if isinstance(node, Joint):
        return node
    if isinstance(node, Ew):  # also of derivatives, which are not merged
        return Joint(node.expression, [node.leaf])
    known = node.__dict__
    if "joint" not in known:  # once: fields are told apart by identity
        leaves: list[Node] = []
        over_positions = isinstance(node, Linear | Frozen | Axes | Take | Windows | Merge | Split)
        expression = (_over_positions if over_positions else expanded)(node, leaves)
        fits = expression is not None and 0 < len(leaves) <= LARGEST
        known["crowded"] = known.get("crowded", False) or (expression is not None and len(leaves) > LARGEST)
        known["joint"] = Joint(expression, leaves) if fits else None
    return known["joint"]


def crowded(node: Node) -> bool:
    """Whether `expanded` has met a function of more than `LARGEST` fields in the node."""
    if node.__dict__.get("crowded"):
        return True
    parts = [x for _, x in node.terms] if isinstance(node, Sum) else node.factors if isinstance(node, Prod) else []
    child = getattr(node, "child", None)
    return any(map(crowded, parts)) or (child is not None and not isinstance(node, Mat) and crowded(child))


def same_field(a: Node, b: Node) -> bool:
    """Whether two nodes are one field at the same positions."""
    if a is b:
        return True
    if type(a) is not type(b) or a.shape != b.shape:
        return False
    if isinstance(a, Take) and isinstance(b, Take):
        return a.axis == b.axis and np.array_equal(a.index, b.index) and same_field(a.child, b.child)
    if isinstance(a, Axes) and isinstance(b, Axes):
        return a.source == b.source and same_field(a.child, b.child)
    if isinstance(a, Windows) and isinstance(b, Windows):
        return a.axis == b.axis and a.window == b.window and same_field(a.child, b.child)
    if isinstance(a, Mat) and isinstance(b, Mat):
        same = (a.key, a.n, a.contracted, a.free, a.rows, a.offset, a.own)
        same = same == (b.key, b.n, b.contracted, b.free, b.rows, b.offset, b.own)
        # one of two uses may be behind stop_gradient: of the same values, but not of the same tangent
        return same and a.prior is b.prior and same_field(a.child, b.child)
    if isinstance(a, Copies) and isinstance(b, Copies):
        return a.count == b.count and same_field(a.child, b.child)
    if isinstance(a, Merge | Split) and isinstance(b, Merge | Split):
        return a.axis == b.axis and a.sizes == b.sizes and same_field(a.child, b.child)
    return isinstance(a, Frozen) and isinstance(b, Frozen) and same_field(a.child, b.child)


def _product(a, b):
    return applied(lax.mul_p, a, b)


def _variable(node: Node, leaves: list[Node]) -> Variable:
    for i, leaf in enumerate(leaves):
        if same_field(leaf, node):
            return Variable(i)
    leaves.append(node)
    return Variable(len(leaves) - 1)


def _over_positions(node, leaves: list[Node]):
    """Expressions of nodes that move or sum the positions of functions."""
    inner = as_joint(node.child)
    if inner is None:
        return None
    if isinstance(node, Frozen):
        return substitute(inner.expression, [_variable(Frozen(u), leaves) for u in inner.leaves])
    if not isinstance(node, Linear):
        return _moved(inner, node, leaves)
    terms = _taps(node)
    if len(terms) * len(inner.leaves) > LARGEST:
        node.__dict__["crowded"] = True
        return None
    total = None
    for coefficient, index in terms:
        term = _moved(inner, Take(node.child, node.axis, index), leaves)
        if term is None:
            return None
        term = term if coefficient == Literal(1.0) else _product(coefficient, term)
        total = term if total is None else applied(lax.add_p, total, term)
    return total


def _moved(inner: Joint, node, leaves: list[Node]):
    """The function at the positions that the node picks, 0 where it picks none."""
    variables = [_variable(_again(node, u), leaves) for u in inner.leaves]
    expression = substitute(inner.expression, variables, move=lambda a: _array_moved(a, node))
    if expression is None or not isinstance(node, Take | Windows):
        return expression
    index = node.index if isinstance(node, Take) else node.window.index(node.child.shape[node.axis])
    if np.min(index, initial=0) >= 0:
        return expression
    seen = picked(jnp.ones((1,) * node.axis + (node.child.shape[node.axis],) + (1,) * _after(node)), node)
    return _product(Parameter(seen), expression)


def _after(node) -> int:
    return len(node.child.shape) - node.axis - 1


def _again(node, child: Node) -> Node:
    """The same positions of another field."""
    if isinstance(node, Axes):
        return Axes(child, node.source, node.shape)
    if isinstance(node, Take):
        return Take(child, node.axis, node.index)
    if isinstance(node, Windows):
        return Windows(child, node.axis, node.window)
    return Merge(child, node.axis, node.count) if isinstance(node, Merge) else Split(child, node.axis, node.sizes)


def _array_moved(value, node):
    if not jnp.ndim(value):
        return value
    value = jnp.asarray(value)
    return moved(value, node) if isinstance(node, Axes) else picked(value, node)


def _taps(node: Linear) -> list[tuple[Any, np.ndarray]]:
    """``sum_j A_ij x_j`` as terms ``c_i x_index(i)``: as many as a row of A has entries, where A is known."""
    rows, columns = node.matrix.shape[-2:]
    if node.along or is_traced(node.matrix):
        return [(_coefficient(node, node.matrix[..., j]), np.full(rows, j)) for j in range(columns)]
    matrix = np.asarray(node.matrix)
    count = int(np.max(np.count_nonzero(matrix, axis=-1), initial=1))
    order = np.argsort(matrix == 0, axis=-1, kind="stable")[:, :count]
    out = []
    for index in order.T:
        entries = matrix[np.arange(rows), index]
        same = np.all(entries == entries[0])
        out.append((Literal(float(entries[0])) if same else _coefficient(node, jnp.asarray(entries)), index))
    return out


def _coefficient(node: Linear, entries) -> Parameter:
    """An array over (the axes on which A depends, i) put along the node's own axes."""
    shape = [1] * len(node.shape)
    axes = [*node.along, node.axis]
    order = sorted(range(len(axes)), key=lambda k: axes[k])
    for k in order:
        shape[axes[k]] = entries.shape[k]
    return Parameter(jnp.transpose(entries, order).reshape(shape))
