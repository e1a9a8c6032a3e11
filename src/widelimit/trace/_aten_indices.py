"""ATen operations that pick entries by indices, or put them there."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from widelimit._precision import is_traced
from widelimit.trace._aten import ATEN, RefusedOperation, aten
from widelimit.trace._aten_axes import _slice
from widelimit.trace._aten_order import largest, ranks

__all__ = ["places"]

_LONGEST = 2**24  # positions of an axis that are written out


def places(n: int) -> np.ndarray:
    """Every position of an axis, known while tracing; refused for a width, which has no end."""
    if n > _LONGEST:
        raise RefusedOperation(
            "entries along an axis as long as the width are addressed one by one.",
            "Remedy: address positions, or give the part of the channels its own layer.",
        )
    return np.arange(n)


def _grid(index, axis: int) -> tuple:
    """The entry of each element of `index` along `axis`, and its own place along the others."""
    own = [jax.lax.broadcasted_iota(index.dtype, index.shape, a) for a in range(index.ndim)]
    return tuple(index if a == axis else at for a, at in enumerate(own))


def _source(values, index):
    """As much of the values as there are indices."""
    if jnp.ndim(values) == 0:
        return values
    return jax.lax.slice(values, (0,) * index.ndim, index.shape)


@aten("embedding")
def _embedding(weight, indices, padding=-1, by_frequency=False, sparse=False):
    """Rows by their numbers; that of `padding` does not train."""
    if by_frequency:
        raise RefusedOperation(
            "scale_grad_by_freq=True divides gradients by how often a row is read, so that they are of no function.",
            "Remedy: scale_grad_by_freq=False.",
        )
    rows = jnp.take(weight, indices, axis=0)
    return rows if padding < 0 else jnp.where((indices == padding)[..., None], jax.lax.stop_gradient(rows), rows)


@aten("_embedding_bag", "_embedding_bag_forward_only")
def _embedding_bag(
    weight, indices, starts, by_frequency=False, mode=0, sparse=False, factors=None, last=False, padding=-1
):
    """Sum (mode 0), mean (1) or maximum (2) of the rows of each bag, which begins at its entry of `starts`."""
    rows = _embedding(weight, indices, padding, by_frequency)
    bags = starts[:-1] if last else starts
    bag = jnp.sum(bags[:, None] <= jnp.arange(indices.shape[0]), 0) - 1
    inside = (bag == jnp.arange(bags.shape[0])[:, None]) & (indices != padding)  # (bags, rows)
    if mode == 2:
        held = jnp.where(inside[..., None], rows, -jnp.inf)
        return (jnp.where(inside.any(1)[:, None], largest(held, 1)[0], 0),)
    weights = inside.astype(rows.dtype) if factors is None else inside * factors
    total = weights @ rows
    return (total / jnp.maximum(inside.sum(1), 1)[:, None].astype(rows.dtype) if mode == 1 else total,)


@aten("put")
def _put(x, index, values, accumulate=False):
    flat = x.ravel().at[index.ravel()]
    return (flat.add if accumulate else flat.set)(values.ravel()).reshape(x.shape)


@aten("gather")
def _gather(x, axis, index, sparse_grad=False):
    """``out[i, j] = x[index[i, j], j]`` along the axis 0."""
    if x.ndim == 0:
        return jnp.broadcast_to(x, index.shape)
    axis %= x.ndim
    sizes = [n if a == axis else index.shape[a] for a, n in enumerate(x.shape)]
    x = x if tuple(sizes) == x.shape else jax.lax.slice(x, (0,) * x.ndim, sizes)
    return jnp.take_along_axis(x, index, axis)


@aten("scatter.src", "scatter.value")
def _scatter(x, axis, index, values):
    return x.at[_grid(index, axis % x.ndim)].set(_source(values, index))


@aten("scatter_add")
def _scatter_add(x, axis, index, values):
    return x.at[_grid(index, axis % x.ndim)].add(_source(values, index))


@aten("scatter_reduce.two", "scatter.reduce", "scatter.value_reduce")
def _scatter_reduce(x, axis, index, values, reduce="sum", include_self=True):
    """Entries that fall on one place are reduced, with what is there if `include_self`; extrema share the gradient."""
    axis %= x.ndim
    grid, values = _grid(index, axis), jnp.broadcast_to(_source(values, index), index.shape)
    count = jnp.zeros(x.shape, x.dtype).at[grid].add(1)
    kept = (count == 0) | include_self  # where the entry of x itself takes part
    if reduce in ("sum", "add", "mean"):
        total = jnp.where(kept, x, 0).at[grid].add(values)
        return total if reduce != "mean" else total / jnp.maximum(count + include_self, 1)
    if reduce in ("prod", "multiply"):
        x = jnp.where(kept, x, 1)
        for i in range(index.shape[axis]):  # one after another: within one the places differ
            at = tuple(jax.lax.index_in_dim(g, i, axis) for g in grid)
            x = x.at[at].set(x[at] * jax.lax.index_in_dim(values, i, axis))
        return x
    if reduce not in ("amax", "amin"):
        raise RefusedOperation(f"the reduction {reduce!r} has no rule.", "Remedy: sum, mean, prod, amax or amin.")
    return _scattered_extremum(x, grid, values, kept, reduce == "amax")


def _scattered_extremum(x, grid, values, kept, largest: bool):
    place = ranks(jnp.concatenate([x.ravel(), values.ravel()])) * (1 if largest else -1)
    own, theirs = place[: x.size].reshape(x.shape), place[x.size :].reshape(values.shape)
    extremum = jnp.where(kept, own, -x.size - values.size).at[grid].max(theirs)
    own, theirs = kept & (own == extremum), theirs == extremum[grid]
    total = jnp.where(own, x, 0).at[grid].add(jnp.where(theirs, values, 0))
    return total / own.astype(x.dtype).at[grid].add(theirs.astype(x.dtype))


# x[i, :, j] and x[i, :, j] = values


def _as_slices(indices) -> tuple:
    return tuple(slice(None) if i is None else i for i in indices)


def _mask(indices):
    """A mask among the indices, if there is one."""
    return next((i for i in indices if i is not None and i.dtype == jnp.bool_), None)


@aten("index", "_unsafe_index")
def _index(x, indices):
    mask = _mask(indices)
    if mask is not None and is_traced(mask):
        raise RefusedOperation(
            "the size of the result depends on the values of a mask.", "Remedy: torch.where(mask, a, b)."
        )
    return x[_as_slices(indices)]


@aten("index_put", "_unsafe_index_put")
def _index_put(x, indices, values, accumulate=False):
    mask = _mask(indices)
    if mask is not None and is_traced(mask):
        return _put_by_mask(x, indices, mask, values, accumulate)
    named = [(axis, i) for axis, i in enumerate(indices) if i is not None]
    if len(named) == 1 and mask is None and named[0][1].ndim == 1:
        return _put_along(x, *named[0], values, accumulate)
    at = x.at[_as_slices(indices)]
    return at.add(values) if accumulate else at.set(values)


def _put_by_mask(x, indices, mask, values, accumulate: bool):
    first = next(axis for axis, i in enumerate(indices) if i is not None)
    if np.prod(values.shape) != 1 or sum(i is not None for i in indices) > 1:
        raise RefusedOperation(
            "values are put where a mask is, whose number depends on the data.", "Remedy: torch.where(mask, a, b)."
        )
    mask = mask.reshape(mask.shape + (1,) * (x.ndim - first - mask.ndim))
    value = values.reshape(())
    return jnp.where(mask, x + value if accumulate else value, x)


def _put_along(x, axis: int, index, values, accumulate: bool):
    """Values at positions of one axis: joined to x and picked, or added as a matrix times them, both linear maps of
    positions; one by one where that matrix would be large.
    """
    n, count = x.shape[axis], index.shape[0]
    values = jnp.broadcast_to(values, (*x.shape[:axis], count, *x.shape[axis + 1 :]))
    index = jnp.where(index < 0, index + n, index)
    if not accumulate:
        picked = jnp.asarray(places(n)).at[index].set(jnp.asarray(n + places(count)))
        return jnp.take(jnp.concatenate([x, values], axis), picked, axis=axis, mode="clip")
    if n * count > 2**16 or not jnp.issubdtype(x.dtype, jnp.inexact):
        return x.at[(slice(None),) * axis + (index,)].add(values)
    matrix = (jnp.asarray(places(n))[:, None] == index).astype(x.dtype)
    return x + jnp.moveaxis(jnp.tensordot(values, matrix, ((axis,), (1,))), -1, axis)


@aten("slice_scatter")
def _slice_scatter(x, source, axis=0, start=None, end=None, step=1):
    axis %= x.ndim
    start, end, step = slice(start, end, step).indices(x.shape[axis])
    if step != 1:
        index = jnp.asarray(start + step * places(source.shape[axis]))
        return _put_along(x, axis, index, source, False)
    parts = [_slice(x, axis, 0, start), source, _slice(x, axis, max(start, end), x.shape[axis])]
    return jnp.concatenate([part for part in parts if part.shape[axis]], axis)


@aten("select_scatter")
def _select_scatter(x, source, axis, index):
    index %= x.shape[axis]
    return _slice_scatter(x, jnp.expand_dims(source, axis % x.ndim), axis, index, index + 1)


@aten("masked_scatter")
def _masked_scatter(x, mask, source):
    """Entries of the source, one after another, where the mask is."""
    shape = jnp.broadcast_shapes(x.shape, mask.shape)
    mask, source = jnp.broadcast_to(mask, shape), source.ravel()
    nth = jnp.clip(jnp.cumsum(mask.ravel()) - 1, 0, source.size - 1).reshape(shape)
    return jnp.where(mask, source[nth], jnp.broadcast_to(x, shape))


def _diagonal_places(x, offset: int, a: int, b: int) -> np.ndarray:
    """Those of a diagonal, in the last two axes seen as one."""
    rows, columns = x.shape[a % x.ndim], x.shape[b % x.ndim]
    start, count = max(-offset, 0), min(rows - max(-offset, 0), columns - max(offset, 0))
    places(max(rows, columns))
    row = start + np.arange(max(count, 0))
    return row * columns + row + offset


def _side_by_side(x, a: int, b: int):
    x = jnp.moveaxis(x, (a, b), (-2, -1))
    return jnp.reshape(x, (*x.shape[:-2], x.shape[-2] * x.shape[-1]))


@aten("diagonal")
def _diagonal(x, offset=0, a=0, b=1):
    at = _diagonal_places(x, offset, a, b)
    return jnp.take(_side_by_side(x, a, b), at, axis=-1, mode="clip")


@aten("diagonal_scatter")
def _diagonal_scatter(x, source, offset=0, a=0, b=1):
    at = jnp.asarray(_diagonal_places(x, offset, a, b))
    rows, columns = x.shape[a], x.shape[b]
    flat = _side_by_side(x, a, b)
    flat = _put_along(flat, flat.ndim - 1, at, source, False)
    return jnp.moveaxis(flat.reshape(*flat.shape[:-1], rows, columns), (-2, -1), (a, b))


@aten("unfold")
def _unfold(x, axis, size, step):
    """Windows along an axis, their entries on a new last one."""
    axis %= x.ndim
    starts = places(x.shape[axis])[: x.shape[axis] - size + 1 : step]
    out = jnp.take(x, starts[:, None] + np.arange(size), axis=axis, mode="clip")
    return jnp.moveaxis(out, axis + 1, -1)


def _triangle(lower: bool):
    def rule(rows, columns, offset=0, dtype=None):
        return jnp.asarray(np.stack(np.tril_indices(rows, offset, columns) if lower else
                                    np.triu_indices(rows, offset, columns)))  # fmt: skip

    return rule


ATEN |= {"tril_indices": _triangle(True), "triu_indices": _triangle(False)}


@aten("_trilinear")
def _trilinear(a, b, c, new_a, new_b, new_c, summed, unroll=1):
    """The sum over some axes of a product of three, each without the axes that are new to it (`nn.Bilinear`)."""
    rank = a.ndim + len(new_a)
    letters = "abcdefghijklmnopqrstuvwxyz"[:rank]
    terms = ["".join(s for i, s in enumerate(letters) if i not in new) for new in (new_a, new_b, new_c)]
    out = "".join(s for i, s in enumerate(letters) if i not in [axis % rank for axis in summed])
    return jnp.einsum(f"{','.join(terms)}->{out}", a, b, c)
