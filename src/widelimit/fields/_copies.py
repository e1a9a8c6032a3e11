"""Neighbouring channels seen as groups of a fixed size: independent copies of one field, side by side.

A width n seen as (n/8, 8) is a width n/8 of groups whose 8 members are independent and of the law of a channel.  What
becomes of a group (its norm, its maximum) is a function of several fields, as of those at several positions.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from widelimit._precision import is_traced
from widelimit.fields._composition import substitute
from widelimit.fields._errors import UnknownLimitError
from widelimit.fields._expanding import is_shifted
from widelimit.fields._expression import Variable, has_parameters
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
    State,
    Sum,
    Take,
    Windows,
)
from widelimit.fields._placing import place_x, place_y, untied
from widelimit.fields._product import channel_sources
from widelimit.fields._recurrence import direct_sources

__all__ = ["are_different", "check_unrelated", "copied", "copies_rule", "group_stride", "without_copies"]


def copied(node: Node, count: int) -> Node:
    """The node of `count` independent channels, on a new last axis: a function of copies of its parameters."""
    known = node.__dict__.setdefault("copies", {})  # once: fields are told apart by identity
    if count not in known:
        known[count] = _copied(node, count)
        known[count].__dict__["one_of_copies"] = node
    return known[count]


def _copied(node: Node, count: int) -> Node:
    last, shape = len(node.shape), (*node.shape, count)

    def again(x: Node) -> Node:
        return copied(x, count)

    if isinstance(node, Const):
        return Const(jnp.broadcast_to(node.array[..., None], shape))
    if node.gaussian and not is_shifted(node):  # one field: fewer variables of functions of it than of its parts
        return Copies(node, count)
    if isinstance(node, Sum):
        return Sum([(c[..., None] if jnp.ndim(c) else c, again(x)) for c, x in node.terms])
    if isinstance(node, Prod):
        return Prod([again(x) for x in node.factors])
    if isinstance(node, Ew | Joint):
        return _function(node, again, lambda a: a[..., None] if jnp.ndim(a) else a)
    if isinstance(node, Frozen):
        return Frozen(again(node.child))
    if isinstance(node, Axes):
        return Axes(again(node.child), (*node.source, len(node.child.shape)), shape)
    if isinstance(node, Linear):
        return Linear(again(node.child), node.axis, node.matrix, node.along)
    if isinstance(node, Take):
        return Take(again(node.child), node.axis, node.index)
    if isinstance(node, Merge):
        return Merge(again(node.child), node.axis, node.count)
    if isinstance(node, Split):
        return Split(again(node.child), node.axis, node.sizes)
    if isinstance(node, Windows):  # the offsets of a filter are its last axis
        return Axes(Windows(again(node.child), node.axis, node.window), (*range(last - 1), last, last - 1), shape)
    return Copies(node, count)


def _function(node: Ew | Joint, leaf: Callable, move: Callable) -> Node:
    """The same function of other fields, its arrays moved."""
    expression = node.expression
    leaves = [leaf(u) for u in (node.leaves if isinstance(node, Joint) else [node.leaf])]
    if has_parameters(expression):
        expression = substitute(expression, [Variable(i) for i in range(len(leaves))], move=move)
    return Joint(expression, leaves) if isinstance(node, Joint) else Ew(expression, leaves[0])


def without_copies(node: Node, axis: int) -> Node | None:
    """The field of which the node is independent copies along a finite axis; None where its members have met."""
    if axis == len(node.shape) - 1 and "one_of_copies" in node.__dict__:
        return node.__dict__["one_of_copies"]
    if isinstance(node, Const):
        return _constant(node, axis)
    if isinstance(node, Sum):
        terms = [(_dropped(c, axis), without_copies(x, axis)) for c, x in node.terms]
        known = [(c, x) for c, x in terms if c is not None and x is not None]
        return Sum(known) if len(known) == len(terms) else None
    if isinstance(node, Prod):
        factors = [without_copies(x, axis) for x in node.factors]
        known = [x for x in factors if x is not None]
        return Prod(known) if len(known) == len(factors) else None
    if isinstance(node, Ew | Joint) and not has_parameters(node.expression):
        leaves = [without_copies(u, axis) for u in (node.leaves if isinstance(node, Joint) else [node.leaf])]
        known = iter([u for u in leaves if u is not None])
        return None if any(u is None for u in leaves) else _function(node, lambda _: next(known), lambda a: a)
    if isinstance(node, Axes):
        return _without_axis(node, axis)
    if isinstance(node, Linear | Take) and node.axis != axis:
        child = without_copies(node.child, axis)
        own = node.axis - (node.axis > axis)
        if child is None or (isinstance(node, Linear) and node.along):
            return None
        return Linear(child, own, node.matrix) if isinstance(node, Linear) else Take(child, own, node.index)
    return None


def _constant(node: Const, axis: int) -> Const | None:
    """A constant that is the same for all members."""
    array = node.array
    if array.shape[axis] > 1 and (is_traced(array) or np.any(np.ptp(np.asarray(array), axis=axis))):
        return None
    return Const(jnp.take(array, 0, axis=axis))


def _dropped(coefficient, axis: int):
    """A coefficient without an axis along which it does not vary; None where it may."""
    if not jnp.ndim(coefficient):
        return coefficient
    return jnp.squeeze(coefficient, axis) if coefficient.shape[axis] == 1 else None


def _without_axis(node: Axes, axis: int) -> Axes | None:
    below = node.source[axis]
    child = None if below is None else without_copies(node.child, below)
    if below is None or child is None:
        return None
    source = [j if j is None or j < below else j - 1 for i, j in enumerate(node.source) if i != axis]
    return Axes(child, tuple(source), tuple(n for i, n in enumerate(node.shape) if i != axis))


def copies_rule(cov, kind, X: Copies, Y: Copies, tie):
    """``K = E[x y]`` of one member, ``E[x] E[y]`` of two; ``T`` of one member."""
    if X.count != Y.count:
        check_unrelated(X, Y)
        return _means(cov, kind, X, Y, tie)
    last, inner = len(X.shape) - 1, tie[:-1]
    if last in inner or tie[-1] not in (None, last):
        raise UnknownLimitError(
            "members of a group of channels meet positions (a diagonal across the two); no rule covers this. Remedy: "
            "sum over the members, or over the positions, first."
        )
    value = cov.pair(kind, X.child, Y.child, inner)
    if value is not None and jnp.ndim(value):
        value = jnp.expand_dims(value, last)
    if tie[-1] == last:
        return value
    means = _means(cov, kind, X, Y, tie)
    if value is None:
        return means
    rank = len(X.shape) + len(untied(tie))
    value = jnp.expand_dims(value, -1) if jnp.ndim(value) else jnp.full((1,) * rank, value)
    shape = [1] * rank
    shape[last] = shape[-1] = X.count
    same = jnp.eye(X.count).reshape(shape)
    return value * same if means is None else means + (value - means) * same


def _means(cov, kind, X, Y, tie):
    mx, my = (None, None) if kind == "T" else (cov.mean(X), cov.mean(Y))
    return None if mx is None or my is None else place_x(mx, tie) * place_y(my, tie, len(X.shape))


def are_different(X: Node, Y: Node, tie) -> bool:
    """Whether two nodes pick different members of groups, which are independent."""
    if not (isinstance(X, Take) and isinstance(Y, Take)) or tie[Y.axis] not in (None, X.axis):
        return False
    counts = _group_size(X.child, X.axis), _group_size(Y.child, Y.axis)
    if None in counts or counts[0] != counts[1]:
        return False
    return not set(X.index[X.index >= 0].tolist()) & set(Y.index[Y.index >= 0].tolist())


def _group_size(node: Node, axis: int) -> int | None:
    """The number of members along an axis that is one of independent copies; None for another axis."""
    if isinstance(node, Copies):
        return node.count if axis == len(node.shape) - 1 else None
    if isinstance(node, Axes):
        below = node.source[axis]
        return None if below is None else _group_size(node.child, below)
    if isinstance(node, Sum):
        sizes = {_group_size(x, axis) for _, x in node.terms if not isinstance(x, Const)}
        return sizes.pop() if len(sizes) == 1 else None
    return _group_size(node.leaf, axis) if isinstance(node, Ew) else None


def group_stride(node: Node) -> int:
    """How many channels of its parameters one channel of the node stands for: the size of the groups it is made of."""
    if isinstance(node, Copies):
        return node.count * group_stride(node.child)
    if isinstance(node, Mat):
        return 1
    parts = [x for _, x in node.terms] if isinstance(node, Sum) else [*getattr(node, "factors", [])]
    parts += [*getattr(node, "leaves", []), *(getattr(node, k) for k in ("child", "leaf") if hasattr(node, k))]
    return max(map(group_stride, parts), default=1)


def check_unrelated(X: Node, Y: Node) -> None:
    """Raise UnknownLimitError for channels of one field, in groups of one size and of another, or of none."""
    if isinstance(X, State) or isinstance(Y, State) or _sources(X) & _sources(Y):
        raise UnknownLimitError(
            "channels of one parameter meet in groups of a fixed size and without groups, or in groups of another "
            "size; which of them are the same is not followed. Remedy: one reshape of the width into groups "
            "throughout, or parameters of their own."
        )


def _sources(node: Node) -> set:
    return direct_sources(node) | {key for _, key, _ in channel_sources(node)}
