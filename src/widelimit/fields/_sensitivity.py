"""``E[dY/dM]``: how a field depends, in the mean, on one application of a weight at the same channel."""

from __future__ import annotations

import math

import jax.numpy as jnp

from widelimit.fields._errors import UnknownLimitError
from widelimit.fields._joint import partials
from widelimit.fields._linear import add, mixed
from widelimit.fields._node import (
    Axes,
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

__all__ = ["is_elementwise", "sensitivity"]


def sensitivity(cov, Y: Node, M: Mat):
    """``E[dY/dM]``, (axes of Y, axes of M); None where Y does not depend on M but through other weights."""
    Y = cov.merged(Y)
    if Y is M:
        return jnp.eye(math.prod(M.shape)).reshape(M.shape * 2)
    if isinstance(Y, Sum):
        total = None
        for c, node in Y.terms:
            value = sensitivity(cov, node, M)
            if value is not None:
                total = add(total, _scaled(jnp.asarray(c), value, Y))
        return total
    if isinstance(Y, Ew | Joint):
        total = None
        for leaf, partial in partials(Y):
            value = sensitivity(cov, leaf, M)
            slope = None if value is None or partial is None else cov.mean(partial)
            if slope is not None:
                total = add(total, _scaled(slope, value, Y))
        return total
    if isinstance(Y, Prod):
        return _of_product(cov, Y, M)
    if isinstance(Y, Axes | Linear | Take | Windows | Merge | Split | Frozen):
        return _of_moved(cov, Y, M)
    if isinstance(Y, Copies) and _holds(Y, M):
        raise UnknownLimitError(
            "a weight is used in both directions (W and W.T) with its channels seen as groups of a fixed size between "
            "the two; no rule covers this. Remedy: two parameters, or wl.monte_carlo for an estimate."
        )
    return None


def is_elementwise(Y: Node, M: Mat) -> bool:
    """Whether Y depends on M at its own position only, as far as the graph shows it."""
    if isinstance(Y, Axes | Copies | Linear | Take | Windows | Merge | Split | Frozen):
        return not _holds(Y.child, M)
    return all(is_elementwise(node, M) for node in _parts(Y))


def _parts(Y: Node) -> list[Node]:
    if isinstance(Y, Sum):
        return [node for _, node in Y.terms]
    if isinstance(Y, Prod):
        return Y.factors
    return Y.leaves if isinstance(Y, Joint) else [Y.leaf] if isinstance(Y, Ew) else []


def _holds(Y: Node, M: Mat) -> bool:
    moves = isinstance(Y, Axes | Copies | Linear | Take | Windows | Merge | Split | Frozen)
    below = [Y.child] if moves else _parts(Y)  # type: ignore[attr-defined]
    return Y is M or any(_holds(node, M) for node in below)


def _scaled(c, value, Y):
    """An array over Y's axes times one over Y's and M's."""
    return c.reshape(c.shape + (1,) * (value.ndim - len(Y.shape))) * value if jnp.ndim(c) else c * value


def _of_product(cov, Y, M):
    total = None
    for i, factor in enumerate(Y.factors):
        others = [f for n, f in enumerate(Y.factors) if n != i]
        for leaf, partial in partials(factor):
            value = sensitivity(cov, leaf, M)
            if value is None:
                continue
            rest = others if partial is None else [*others, partial]
            slope = cov.mean(rest[0] if len(rest) == 1 else Prod(rest))
            if slope is not None:
                total = add(total, _scaled(slope, value, Y))
    return total


def _of_moved(cov, Y, M):
    value = sensitivity(cov, Y.child, M)
    if value is None:
        return None
    if isinstance(Y, Frozen):
        raise UnknownLimitError(
            "a weight is used in both directions (W and W.T) with a stop_gradient between the two; the NTK of that has "
            "no rule here. Remedy: stop the gradient outside, or compare finite networks with wl.monte_carlo."
        )
    if isinstance(Y, Linear):
        return mixed(value, Y, Y.axis, Y.along)
    if isinstance(Y, Take | Windows | Merge | Split):
        return picked(value, Y)
    rank, own = len(Y.child.shape), [j for j in Y.source if j is not None]
    dropped = tuple(j for j in range(rank) if j not in own)  # of size 1
    order = [*own, *range(rank, value.ndim), *dropped]
    value = jnp.transpose(value, order).reshape([value.shape[j] for j in order[: len(order) - len(dropped)]])
    new = tuple(i for i, j in enumerate(Y.source) if j is None)
    value = jnp.expand_dims(value, new)
    return jnp.broadcast_to(value, Y.shape + value.shape[len(Y.shape) :])
