"""Positions along finite axes: `Take` picks them, filters see `Windows`, `Merge` and `Split` regroup axes; their rules.

Where both fields pick the same positions of tied axes, only the diagonal of the child is asked for.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import lax

from widelimit.fields._node import Merge, Node, Split, Take, Window, Windows
from widelimit.fields._placing import untied

__all__ = ["picked", "picked_along", "sum_over_windows", "taking_rule"]


def picked(value, node: Take | Windows | Merge | Split):
    """The node's array from an array over its child's axes (then any others): ``x[index]``, 0 where there is none."""
    if isinstance(node, Merge):
        return _merged(value, node.axis, node)
    if isinstance(node, Split):
        return _split(value, node.axis, node)
    size, axis = node.child.shape[node.axis], node.axis
    if isinstance(node, Take):
        return _picked(value, axis, node.index, size)
    index = node.window.index(size)
    out = _picked(value, axis, index.ravel(), size)
    if out.shape[axis] == 1:
        return jnp.expand_dims(out, len(node.child.shape))
    out = out.reshape(*out.shape[:axis], *index.shape, *out.shape[axis + 1 :])
    return jnp.moveaxis(out, axis + 1, len(node.child.shape))


def _merged(value, position: int, node: Merge):
    """Neighbouring axes of an array made one; 1 where nothing varies along any of them."""
    shape = value.shape[position : position + node.count]
    if any(n != 1 for n in shape):
        full = (*value.shape[:position], *node.sizes, *value.shape[position + node.count :])
        value = jnp.broadcast_to(value, full)
    return value.reshape(*value.shape[:position], -1, *value.shape[position + node.count :])


def _split(value, position: int, node: Split):
    """An axis of an array seen as several; of size 1 where nothing varies along it."""
    sizes = node.sizes if value.shape[position] != 1 else (1,) * len(node.sizes)
    return value.reshape(*value.shape[:position], *sizes, *value.shape[position + 1 :])


def picked_along(value, position: int, node: Take):
    """Positions picked along one axis of an array."""
    return _picked(value, position, node.index, node.child.shape[node.axis])


def _picked(value, axis: int, index: np.ndarray, size: int):
    if value.shape[axis] == 1 and size != 1:  # constant along the axis
        if index.min(initial=0) >= 0:
            return value
        value = jnp.repeat(value, size, axis=axis)
    run = _as_slice(index)
    out = lax.slice_in_dim(value, *run, axis=axis) if run else jnp.take(value, np.maximum(index, 0), axis=axis)
    if index.min(initial=0) >= 0:
        return out
    shape = [1] * out.ndim
    shape[axis] = len(index)
    return jnp.where((index >= 0).reshape(shape), out, 0)


def _as_slice(index: np.ndarray) -> tuple[int, int, int] | None:
    """``(start, limit, stride)`` of an index that is one."""
    if len(index) == 0 or index[0] < 0:
        return None
    step = int(index[1] - index[0]) if len(index) > 1 else 1
    if step < 1 or np.any(np.diff(index) != step):
        return None
    return int(index[0]), int(index[-1]) + 1, step


def taking_rule(cov, kind, X: Node, Y: Take | Windows | Merge | Split, tie):
    """K or T of a field and one that picks positions of another."""
    if isinstance(X, Take) and isinstance(Y, Take) and tie[Y.axis] == X.axis:
        if np.array_equal(X.index, Y.index) and X.child.shape[X.axis] == Y.child.shape[Y.axis]:
            value = cov.pair(kind, X.child, Y.child, tie)
            return None if value is None else _along_x(value, X)
        if not np.any((X.index >= 0) & (Y.index >= 0)):
            return None  # placed beside each other
    if isinstance(X, Windows) and isinstance(Y, Windows) and _same_windows(X, Y, tie):
        value = cov.pair(kind, X.child, Y.child, tie[:-1])
        return None if value is None else _along_x(value, X)
    if isinstance(Y, Merge):
        return _merging_rule(cov, kind, X, Y, tie)
    if isinstance(Y, Split):
        return _splitting_rule(cov, kind, X, Y, tie)
    return _one_sided(cov, kind, X, Y, tie)


def _merging_rule(cov, kind, X, Y: Merge, tie):
    nx, a, own, more = len(X.shape), Y.axis, tie[Y.axis], Y.count - 1
    if isinstance(X, Merge) and own == X.axis and X.sizes == Y.sizes and X.count == Y.count:
        inner = [j if j is None or j < own else j + more for j in tie]
        inner[a : a + 1] = range(own, own + Y.count)
        value = cov.pair(kind, X.child, Y.child, tuple(inner))
        return None if value is None else _along_x(value, X)
    inner = (*tie[:a], *(None,) * Y.count, *tie[a + 1 :])
    value = cov.pair(kind, X, Y.child, inner)
    if value is None:
        return None
    if not jnp.ndim(value):
        value = jnp.full((1,) * (nx + len(untied(inner))), value)
    position = nx + untied(inner).index(a)
    value = _merged(value, position, Y)
    if own is None:
        return value
    return _diagonal(value, own, position, Y.shape[a])


def _splitting_rule(cov, kind, X, Y: Split, tie):
    nx, a, count = len(X.shape), Y.axis, len(Y.sizes)
    own = tie[a : a + count]
    if isinstance(X, Split) and X.sizes == Y.sizes and own == tuple(range(X.axis, X.axis + count)):
        inner = [j if j is None or j < X.axis else j - count + 1 for j in tie]
        inner[a : a + count] = [X.axis]
        value = cov.pair(kind, X.child, Y.child, tuple(inner))
        return None if value is None else _along_x(value, X)
    inner = (*tie[:a], None, *tie[a + count :])
    value = cov.pair(kind, X, Y.child, inner)
    if value is None:
        return None
    if not jnp.ndim(value):
        value = jnp.full((1,) * (nx + len(untied(inner))), value)
    position = nx + untied(inner).index(a)
    value = _split(value, position, Y)
    for i in reversed(range(count)):
        target = own[i]
        if target is not None:
            value = _diagonal(value, target, position + i, Y.sizes[i])
    return value


def _diagonal(value, own: int, position: int, size: int):
    """Where two axes of an array are at the same position, along the first of them."""
    for axis in (own, position):
        value = value if value.shape[axis] == size else jnp.repeat(value, size, axis=axis)
    return jnp.moveaxis(jnp.diagonal(value, axis1=own, axis2=position), -1, own)


def _same_windows(X: Windows, Y: Windows, tie) -> bool:
    same = X.window == Y.window and X.child.shape[X.axis] == Y.child.shape[Y.axis]
    last = len(X.shape) - 1
    return same and tie[Y.axis] == X.axis and tie[-1] == last and last not in tie[:-1]


def _along_x(value, X):
    """Positions picked along X's axis of an array over X's axes, then Y's untied ones."""
    return picked(value, X) if jnp.ndim(value) else _masked_number(value, X)


def _masked_number(value, X):
    # the same number everywhere but where nothing is picked
    return picked(jnp.full((1,) * len(X.child.shape), value), X)


def _one_sided(cov, kind, X, Y, tie):
    """Only Y's child is replaced: its axis is asked for at all positions, then picked from."""
    nx, ny, a = len(X.shape), len(Y.child.shape), Y.axis
    child_tie = tuple(None if i == a else j for i, j in enumerate(tie[:ny]))
    value = cov.pair(kind, X, Y.child, child_tie)
    if value is None:
        return None
    free, size = untied(child_tie), Y.child.shape[a]
    if not jnp.ndim(value):
        value = jnp.full((1,) * (nx + len(free)), value)
    position = nx + free.index(a)
    if isinstance(Y, Take) and Y.index[0] >= 0 and np.all(Y.index == Y.index[0]):  # one position: does not vary
        at = int(Y.index[0]) if value.shape[position] != 1 else 0
        value = lax.slice_in_dim(value, at, at + 1, axis=position)
        return value if tie[a] is None else jnp.squeeze(value, position)
    if value.shape[position] == 1 and size != 1:
        value = jnp.repeat(value, size, axis=position)
    value = jnp.moveaxis(value, position, -1)  # X's axes, Y's other untied axes, the axis picked from
    index = Y.index if isinstance(Y, Take) else Y.window.index(size)
    own = (a,) if isinstance(Y, Take) else (a, ny)
    # where the node's own axes sit in the result, which has X's axes, then Y's untied ones
    out_free = untied(tie)
    where = [tie[i] if tie[i] is not None else nx + out_free.index(i) for i in own]
    value = jnp.expand_dims(value, tuple(w for i, w in zip(own, where, strict=True) if tie[i] is None))
    shape = [1] * (value.ndim - 1)
    for n, w in zip(index.shape, where, strict=True):
        shape[w] = n
    order = np.argsort(where)
    index = np.transpose(index, order).reshape(shape)
    full = [max(n, m) for n, m in zip(value.shape[:-1], shape, strict=True)]
    value = jnp.broadcast_to(value, (*full, size))
    out = jnp.take_along_axis(value, np.maximum(index, 0)[..., None], axis=-1)[..., 0]
    return jnp.where(index >= 0, out, 0)


def sum_over_windows(value, axes: tuple[int, ...], window: Window, sizes: tuple[int, ...]):
    """``sum_k value[index(o, k), index(o', k)]`` along one axis, or a pair of axes, of the array.

    Along one axis a product with a matrix of zeros and ones, along two a sum of shifted slices: fused with what
    makes the values, XLA would compute these anew for every offset.  Axes of size 1 are spread first.
    """
    for axis, n in zip(axes, sizes, strict=True):
        if value.shape[axis] == 1 and n != 1:
            value = jnp.repeat(value, n, axis=axis)
    if len(axes) == 1:
        return _along_one(value, axes[0], window, sizes[0])
    total = jnp.zeros((), value.dtype)
    for k in range(window.taps):
        part = value
        for axis in axes:
            part = _shifted(part, axis, window, k)
        total = total + part
    return total


def _along_one(value, axis: int, window: Window, size: int):
    matrix = jnp.asarray(window.matrix(size), value.dtype)
    return jnp.moveaxis(jnp.tensordot(value, matrix, axes=([axis], [1]), precision="highest"), -1, axis)


def _shifted(value, axis: int, window: Window, k: int):
    """``value[index(:, k)]`` along an axis by padding and slicing."""
    n, start = value.shape[axis], k * window.dilation - window.low
    length = (n - 1) * window.spread + 1
    stop = start + (window.size - 1) * window.stride + 1
    config = [(0, 0, 0)] * value.ndim
    config[axis] = (max(0, -start), max(0, stop - length), window.spread - 1)
    padded = lax.pad(value, jnp.zeros((), value.dtype), config)
    first = start + max(0, -start)
    return lax.slice_in_dim(padded, first, first + stop - start, window.stride, axis)
