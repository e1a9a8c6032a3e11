"""Linear combinations and linear maps on finite axes: bilinear for K and T alike, ``A K A^T``."""

from __future__ import annotations

import string

import jax.numpy as jnp

from widelimit.fields._node import Axes, Frozen, Linear
from widelimit.fields._placing import place_x, place_y, untied

__all__ = ["add", "mean_of_sum", "mean_of_unary", "mixed", "moved", "sum_on_the_left", "sum_rule", "unary_rule"]


def add(a, b):
    """Sum in which None is a structural zero."""
    if a is None:
        return b
    return a if b is None else a + b


def sum_rule(cov, kind, X, Y, tie):
    """``E[X sum_i c_i Y_i] = sum_i c_i E[X Y_i]``."""
    total = None
    for coefficient, node in Y.terms:
        value = cov.pair(kind, X, node, tie)
        if value is not None:
            total = add(total, place_y(coefficient, tie, len(X.shape)) * value)
    return total


def sum_on_the_left(cov, kind, X, Y, tie):
    """``E[sum_i c_i X_i Y]``, the two in their order: averages over points then stay the same points."""
    total = None
    for coefficient, node in X.terms:
        value = cov.pair(kind, node, Y, tie)
        if value is not None:
            total = add(total, (place_x(coefficient, tie) if jnp.ndim(coefficient) else coefficient) * value)
    return total


def mean_of_sum(cov, X):
    """``E[sum_i c_i X_i]``."""
    total = None
    for coefficient, node in X.terms:
        value = cov.mean(node)
        if value is not None:
            total = add(total, coefficient * value)
    return total


def unary_rule(cov, kind, X, Y, tie):
    """Rules for an Axes, Linear or Frozen node on the right."""
    if isinstance(Y, Frozen):
        return None if kind == "T" else cov.pair(kind, X, Y.child, tie)
    if isinstance(Y, Axes):
        return _axes_rule(cov, kind, X, Y, tie)
    return _matrix_rule(cov, kind, X, Y, tie)


def _axes_rule(cov, kind, X, Y, tie):
    nx, child = len(X.shape), Y.child
    child_tie = [None] * len(child.shape)
    for i, j in enumerate(Y.source):
        if j is not None:
            child_tie[j] = tie[i]
    value = cov.pair(kind, X, child, tuple(child_tie))
    if value is None or not jnp.ndim(value):
        return value
    # dims now: X's axes, then the child's untied axes; wanted: X's axes, then Y's untied axes
    child_free = untied(tuple(child_tie))
    kept = {j for j in Y.source if j is not None}
    dropped = [nx + k for k, j in enumerate(child_free) if j not in kept]
    value = jnp.squeeze(value, axis=tuple(dropped))
    child_free = [j for j in child_free if j in kept]
    order = list(range(nx))
    new = []
    for position, i in enumerate(untied(tie)):
        if Y.source[i] is None:
            new.append(nx + position)
        else:
            order.append(nx + child_free.index(Y.source[i]))
    return jnp.expand_dims(jnp.transpose(value, order), tuple(new)) if new else jnp.transpose(value, order)


def _matrix_rule(cov, kind, X, Y, tie):
    nx, a = len(X.shape), Y.axis
    child_tie = tuple(None if i == a else j for i, j in enumerate(tie))
    value = cov.pair(kind, X, Y.child, child_tie)
    if value is None:
        return None
    free = untied(child_tie)
    if not jnp.ndim(value):  # the same at every position
        value = jnp.reshape(value, (1,) * (nx + len(free)))
    places = [nx + free.index(b) if child_tie[b] is None else child_tie[b] for b in Y.along]
    return mixed(value, Y, nx + free.index(a), places, tie[a])


def mixed(value, Y: Linear, position: int, places, target: int | None = None):
    """``sum_j A_ij value_j`` along one axis of an array, A depending on the axes at `places`.

    target: the axis that i is tied to, of which the diagonal is taken; None: i takes the place of j.
    """
    sizes = dict(zip(places, (Y.child.shape[b] for b in Y.along), strict=True))
    sizes[position] = Y.child.shape[Y.axis]
    if target is not None:
        sizes[target] = Y.matrix.shape[-2]
    for axis, size in sizes.items():
        if value.shape[axis] != size:
            value = jnp.repeat(value, size, axis=axis)
    names = string.ascii_letters[: value.ndim]
    new = string.ascii_letters[value.ndim] if target is None else names[target]
    matrix = "".join(names[p] for p in places) + new + names[position]
    out = names.replace(names[position], new if target is None else "")
    return jnp.einsum(f"{names},{matrix}->{out}", value, Y.matrix.astype(value.dtype), precision="highest")


def mean_of_unary(cov, X):
    """Means of Axes, Linear and Frozen nodes."""
    value = cov.mean(X.child)
    if value is None or isinstance(X, Frozen) or not jnp.ndim(value):
        return value
    if isinstance(X, Linear):
        return mixed(jnp.broadcast_to(value, X.child.shape), X, X.axis, X.along)
    return moved(value, X)


def moved(value, X: Axes):
    """The node's array from one over its child's axes."""
    kept = [j for j in X.source if j is not None]
    dropped = [j for j in range(len(X.child.shape)) if j not in kept]
    value = jnp.squeeze(value, axis=tuple(dropped))
    remaining = sorted(kept)
    value = jnp.transpose(value, [remaining.index(j) for j in kept])
    new = tuple(i for i, j in enumerate(X.source) if j is None)
    return jnp.expand_dims(value, new) if new else value
