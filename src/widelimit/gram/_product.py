"""Products of a Gram matrix with vectors, tile by tile inside a traced program: the matrix is never held."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from widelimit._examples import described, signature
from widelimit._precision import exact_products
from widelimit._segments import fenced
from widelimit.gram._gram import _diagonal, _numbers_per_pair, _one_of, _pairs, _rows, _tile

__all__ = ["diagonals", "gram_product", "tile_of"]

# of a tile and its transpose with a vector, by the number of axes of a kernel's values
_SUMS = {
    0: ("ij,jc->ic", "ij,ic->jc"),
    1: ("ijo,joc->ioc", "ijo,ioc->joc"),
    2: ("ijop,jpc->ioc", "ijop,ioc->jpc"),
}


def tile_of(k: Callable, x1: Any, x2: Any, batch_size: int | None, memory: float | None) -> tuple[int, int]:
    """Rows and columns of a tile, at most `batch_size`, that takes at most `memory` bytes (default 512 MB), and these.

    Bytes of a kernel with a plan are measured, those of others an estimate.
    """
    if hasattr(k, "plan"):
        plan = k.plan(x1, x2, memory=memory, largest=batch_size)
        return plan.tile, int(plan.bytes)
    other = x1 if x2 is None else x2
    tile = _tile(batch_size, memory, k, x1, other)
    rows, columns = (_rows(len(jax.tree.leaves(x)[0]), tile) for x in (x1, other))
    return tile, rows * columns * 8 * _numbers_per_pair(k, *(signature(_one_of(x)) for x in (x1, other)))


def diagonals(k: Callable, x: Any, size: int) -> jax.Array:
    """``k(x_i, x_i)``, (n, ...), `size` examples at once, in a traced program."""
    n = len(jax.tree.leaves(x)[0])
    parts = _in_tiles(x, n, min(size, n))
    each = fenced(jax.vmap(_diagonal(k)), described(jax.tree.map(lambda a: a[0], parts)))
    found = jax.lax.map(each, parts)
    return found.reshape(-1, *found.shape[2:])[:n]


def gram_product(
    k: Callable,
    x1: Any,
    x2: Any,
    v: jax.Array,
    *,
    tile: int,
    diagonal: jax.Array | None = None,
    transposed: bool = False,
) -> jax.Array:
    """``G v`` of ``G_ij = k(x1_i, x2_j)``, or ``G^T v`` if `transposed`.

    x1: (n1, ...), x2: (n2, ...) or None: x1 with itself.  v: (n2, ...) for a k with values () and (n2, O, ...) for
    (O,) or (O, O), with any further axes.  diagonal: (n1, ...) the values ``k(x1_i, x1_i)``, with which only tiles on
    and above the diagonal are computed: give it for symmetric kernels and x2 None only.
    Held at once: one tile of `tile` x `tile` pairs and its intermediate values, beside x, v and the result.
    """
    other = x1 if x2 is None else x2
    n1, n2 = (len(jax.tree.leaves(x)[0]) for x in (x1, other))
    tiles = [_rows(n, tile) for n in (n1, n2)]
    rows, columns = _in_tiles(x1, n1, tiles[0]), _in_tiles(other, n2, tiles[1])
    inner = len(jax.eval_shape(k, _one_of(x1), _one_of(other)).shape)
    from_side, to_side = (1, 0) if not transposed else (0, 1)
    count = -(-n1 // tiles[0]), -(-n2 // tiles[1])
    cells, trailing = v.shape[1 : 1 + (inner > 0)], v.shape[1 + (inner > 0) :]
    size = count[from_side] * tiles[from_side]
    V = jnp.concatenate([v, jnp.zeros((size - len(v), *v.shape[1:]), v.dtype)])
    V = V.reshape(count[from_side], tiles[from_side], *cells, -1)
    block = _block(k, jax.tree.map(lambda a: a[0], rows), jax.tree.map(lambda a: a[0], columns))
    # derivatives compute tiles again instead of holding all of them
    product = jax.checkpoint(lambda *arguments: _products(block, inner, diagonal is not None, transposed, *arguments))
    D = None if diagonal is None else _in_tiles(diagonal, n1, tiles[0])

    def step(out, job):
        i, j = job
        vectors = _at(V, (i, j)[from_side]), None if D is None else _at(V, i)
        part, mirrored = product(_at(rows, i), _at(columns, j), *vectors, _at(D, i), i == j)
        out = out.at[(i, j)[to_side]].add(part)
        return (out if mirrored is None else out.at[j].add(mirrored)), None

    jobs = [(i, j) for i in range(count[0]) for j in range(count[1]) if diagonal is None or j >= i]
    index = np.asarray(jobs, np.int32).T
    start = jnp.zeros((count[to_side], tiles[to_side], *V.shape[2:]), v.dtype)
    with exact_products():
        out = jax.lax.scan(step, start, tuple(map(jnp.asarray, index)))[0]
    n = (n1, n2)[to_side]
    return out.reshape(-1, *out.shape[2:])[:n].reshape(n, *cells, *trailing)


def _in_tiles(x, n: int, tile: int):
    """(tiles, tile, ...), filled up with copies of the last example."""
    index = jnp.minimum(jnp.arange(-(-n // tile) * tile), n - 1)
    return jax.tree.map(lambda a: jnp.asarray(a)[index].reshape(-1, tile, *a.shape[1:]), x)


def _at(x, i):
    return jax.tree.map(lambda a: jax.lax.dynamic_index_in_dim(a, i, 0, keepdims=False), x)


def _block(k, a, b) -> Callable:
    """Kernels of all pairs of two tiles; the program of a deep network fenced, lest XLA fuse across its layers."""
    return k.all_pairs if hasattr(k, "all_pairs") else fenced(_pairs(k), described(a), described(b))


def _products(block, inner: int, symmetric: bool, transposed: bool, a, b, v, v_mirrored, diagonal, same):
    """A tile times its part of the vector and, for symmetric ones off the diagonal, its transpose times the other."""
    T = block(a, b)
    if symmetric:
        eye = jnp.eye(len(T), dtype=bool).reshape(len(T), len(T), *(1,) * inner)
        T = jnp.where(same & eye, diagonal[:, None].astype(T.dtype), T)
    once, back = _SUMS[inner]
    part = jnp.einsum(back if transposed else once, T, v).astype(v.dtype)
    if not symmetric:
        return part, None
    mirrored = jnp.einsum(back, T, v_mirrored).astype(v.dtype)
    return part, jnp.where(same, 0, mirrored)
