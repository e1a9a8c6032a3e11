"""ATen operations that put entries in order: sorting, extrema with their places, running extrema, bins.

Where PyTorch returns values and their places, a rule returns the places as a function, called only if they are asked
for. At ties the gradient goes where PyTorch sends it: to the entry at the place that is returned, or evenly to all.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from widelimit._extrema import amax as shared_max
from widelimit._extrema import amin as shared_min
from widelimit._extrema import first_max, first_min
from widelimit.trace._aten import ATEN, aten

__all__ = ["amax", "largest", "ranks"]


def _selection(select, place):
    """The extremum over one axis, whose gradient goes to its first place, and that place."""

    def both(x, axis, keepdim=False):
        if x.ndim == 0:
            return x, lambda: jnp.zeros((), int)
        value = select(x, axis)
        return value if keepdim else jnp.squeeze(value, axis), lambda: place(x, axis, keepdims=keepdim)

    return both


largest, _smallest = _selection(first_max, jnp.argmax), _selection(first_min, jnp.argmin)
ATEN |= {"max.dim": largest, "min.dim": _smallest}


def _place(place):
    def rule(x, axis=None, keepdim=False):
        return place(x, axis, keepdims=keepdim)

    return rule


ATEN |= {"argmax": _place(jnp.argmax), "argmin": _place(jnp.argmin)}


def _over_axes(select):
    def over(x, axes=None, keepdim=False):
        axes = tuple(range(x.ndim)) if axes is None or axes == [] else [axes] if isinstance(axes, int) else axes
        axes = tuple(a % x.ndim for a in axes) if x.ndim else ()
        value = select(x, axes) if axes else x
        return value if keepdim else jnp.squeeze(value, axes)

    return over


amax, _amin = _over_axes(shared_max), _over_axes(shared_min)
ATEN |= {"amax": amax, "amin": _amin, "max.default": amax, "min.default": _amin}


def ranks(x):
    """The place of each entry among all of x, equal ones at one: comparisons that no rounding can change."""
    values, order = jax.lax.sort((jax.lax.stop_gradient(x).ravel(), jnp.arange(x.size)), num_keys=1)
    place = jnp.concatenate([jnp.zeros(1, int), jnp.cumsum(values[1:] != values[:-1])])
    return jnp.zeros(x.size, place.dtype).at[order].set(place).reshape(x.shape)


@aten("sort")
def _sort(x, axis=-1, descending=False, *, stable=True, dim=None):
    axis = axis if dim is None else dim
    if x.ndim == 0:
        return x, lambda: jnp.zeros((), int)
    order = functools.partial(jnp.argsort, x, axis, stable=True, descending=descending)
    if descending:  # equal entries stay in their order
        return jnp.flip(jnp.sort(jnp.flip(x, axis), axis), axis), order
    return jnp.sort(x, axis), order


ATEN["sort.stable"] = lambda x, stable=True, dim=-1, descending=False: _sort(x, dim, descending)
ATEN["argsort"] = lambda x, axis=-1, descending=False, **_: _sort(x, axis, descending)[1]()


def _ranked(x, axis: int, start: int, end: int, descending=False):
    """Those from one rank to another, with their places."""
    values, order = _sort(x, axis, descending)
    part = functools.partial(jax.lax.slice_in_dim, start_index=start, limit_index=end, axis=axis % x.ndim)
    return part(values), lambda: part(order())


def _one_ranked(x, axis: int, rank: int, keepdim: bool):
    if x.ndim == 0:
        return x, lambda: jnp.zeros((), int)
    values, order = _ranked(x, axis, rank, rank + 1)
    return (values, order) if keepdim else (jnp.squeeze(values, axis), lambda: jnp.squeeze(order(), axis))


@aten("topk")
def _topk(x, k, axis=-1, largest=True, ordered=True):
    return _sort(x) if x.ndim == 0 else _ranked(x, axis, 0, k, largest)


@aten("kthvalue")
def _kthvalue(x, k, axis=-1, keepdim=False):
    return _one_ranked(x, axis, k - 1, keepdim)


@aten("median.dim")
def _median(x, axis, keepdim=False):
    """The lower one of two."""
    return _one_ranked(x, axis, (x.shape[axis] - 1) // 2 if x.ndim else 0, keepdim)


@aten("median.default")
def _median_of_all(x):
    place = ranks(x)
    same = place == jnp.sort(place.ravel())[(x.size - 1) // 2]
    return jnp.where(same, x, 0).sum() / same.sum().astype(x.dtype)


# Along an axis


ATEN |= {
    "cumprod": lambda x, axis, dtype=None: jnp.cumprod(x, axis),
    "logcumsumexp": lambda x, axis: jax.lax.cumlogsumexp(x, axis % x.ndim),
}


def _running(later_wins):
    """Running extrema, and the last of the places that have them."""

    def rule(x, axis):
        fixed = jax.lax.stop_gradient(x)

        def later(a, b):
            wins = later_wins(b[0], a[0])
            return jnp.where(wins, b[0], a[0]), jnp.where(wins, b[1], a[1])

        own = jax.lax.broadcasted_iota(jnp.result_type(int), x.shape, axis % x.ndim)
        _, places = jax.lax.associative_scan(later, (fixed, own), axis=axis % x.ndim)
        return jnp.take_along_axis(x, places, axis), places

    return rule


ATEN |= {"cummax": _running(jnp.greater_equal), "cummin": _running(jnp.less_equal)}


# Bins


def _found(ordered, values, side: str):
    """A few comparisons are steps, which have limits; more are searched by halves."""
    return jnp.searchsorted(ordered, values, side, method="compare_all" if ordered.size <= 256 else "scan")


@aten("bucketize.Tensor")
def _bucketize(x, boundaries, *, out_int32=False, right=False):
    """``boundaries[i - 1] < x <= boundaries[i]``; `right` moves the equality to the other side."""
    return _found(boundaries, x, "right" if right else "left")


@aten("searchsorted")
def _searchsorted(ordered, values, *, out_int32=False, right=False, side=None, sorter=None):
    if sorter is not None:
        ordered = jnp.take_along_axis(ordered, sorter, -1)
    find = functools.partial(_found, side="right" if right or side == "right" else "left")
    if ordered.ndim == 1:
        return find(ordered, values)
    rows = jax.vmap(find)(ordered.reshape(-1, ordered.shape[-1]), values.reshape(-1, values.shape[-1]))
    return rows.reshape(values.shape)
