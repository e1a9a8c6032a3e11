"""The gap of two input vectors, exact to rounding at every angle and as fast as a matrix product over a Gram.

With ``c = x.x'/x.x`` and ``r = x' - c x``, which is orthogonal to x,

    s - |k| = |x|^2 |r|^2 / (s + |k|),   s = |x||x'|,   k = x.x',

without cancellation, provided that r itself has none.  c is therefore subtracted in three parts of half the digits
each: a product of two numbers of half the digits is exact, and so is the difference that it cancels in.  Where the
angle is not small, ``s - k`` is as good, and k of all pairs is one matrix product; pairs are then singled out.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

__all__ = ["vector_gap"]

# (s - |k|) / s below which the difference is not good enough: its error is that of k, a rounding or two, over this.
_NEAR = {"float64": 2.0**-5, "float32": 2.0**-4}
_FEW = 2**20  # entries of pairs times dimension up to which singling out costs more than it saves


def vector_gap(x, y):
    """``(s - k, s + k, |x| - |y|)`` of vectors x, y (d,), where ``k = x.y``, ``s = |x||y|``; three scalars.

    Under `vmap` over x and y (a Gram) the cost is one matrix product and O(d) for each pair at a small angle.  Not
    differentiated: the tangents of its results are 0.
    """
    return _pair(jax.lax.stop_gradient(x), jax.lax.stop_gradient(y))


def _half_digits(x):
    double = x.dtype == jnp.float64
    return jax.lax.reduce_precision(x, 11 if double else 8, 25 if double else 11)


def _over(a, b):
    positive = b > 0
    return jnp.where(positive, a / jnp.where(positive, b, 1), 0)


@jax.jit  # one operation, not forty
def _exact(x, y):
    # products of single entries and halves of a coefficient are exact, so fused multiply-adds change nothing here
    xx, yy = jnp.sum(x * x), jnp.sum(y * y)
    high = _half_digits(x)
    low = x - high
    r = y
    for _ in range(2):
        c = _half_digits(_over(jnp.sum(r * x), xx))
        r = (r - c * high) - c * low
    r = r - _over(jnp.sum(r * x), xx) * x
    sine2 = _over(jnp.sum(r * r), yy)
    # what is left of a multiple of x is the rounding of its coefficient's last digits
    sine2 = jnp.where(sine2 > (4 * jnp.finfo(x.dtype).eps ** 2) ** 2, sine2, 0)
    k = jnp.sum(x * y)
    s = jnp.sqrt(xx) * jnp.sqrt(yy)
    size = jnp.minimum(_over(jnp.abs(k), s), 1)
    small = s * sine2 / (1 + size)
    below, above = jnp.where(k >= 0, small, s - k), jnp.where(k >= 0, s + k, small)
    total = jnp.sqrt(xx) + jnp.sqrt(yy)
    return below, above, _over(jnp.sum((x - y) * (x + y)), total)


@custom_vmap
def _pair(x, y):
    return _exact(x, y)


@_pair.def_vmap
def _pair_batched(size, batched, x, y):
    if batched == [False, True]:
        return _row(x, y), (True, True, True)
    if batched == [True, False]:
        m, p, r = _row(y, x)
        return (m, p, -r), (True, True, True)
    return jax.vmap(_exact)(x, y), (True, True, True)


@custom_vmap
def _row(x, Y):
    return jax.vmap(_exact, (None, 0))(x, Y)


@_row.def_vmap
def _row_batched(size, batched, x, Y):
    if batched == [True, False]:
        return _table(x, Y), (True, True, True)
    out = jax.vmap(jax.vmap(_exact, (None, 0)), tuple(0 if b else None for b in batched))(x, Y)
    return out, (True, True, True)


@custom_vmap
def _table(X, Y):
    if X.shape[0] * Y.shape[0] * X.shape[1] <= _FEW:
        return jax.vmap(jax.vmap(_exact, (None, 0)), (0, None))(X, Y)
    return _singled_out(X, Y)


@_table.def_vmap
def _table_batched(size, batched, X, Y):
    if batched == [True, False]:
        flat = _table(X.reshape(-1, X.shape[-1]), Y)
        return tuple(a.reshape(*X.shape[:2], -1) for a in flat), (True, True, True)
    if batched == [False, True]:
        flat = _table(X, Y.reshape(-1, Y.shape[-1]))
        out = tuple(jnp.moveaxis(a.reshape(-1, *Y.shape[:2]), 1, 0) for a in flat)
        return out, (True, True, True)
    return jax.lax.map(lambda xy: _table(*xy), (X, Y)), (True, True, True)


@jax.jit
def _singled_out(X, Y):
    """One matrix product; then, one in each row at a time, the pairs at a small angle."""
    k = jnp.einsum("id,jd->ij", X, Y, precision="highest")
    one, two = (jnp.sqrt(jnp.sum(Z * Z, axis=1)) for Z in (X, Y))
    s = one[:, None] * two
    below, above = s - k, s + k
    near = jnp.minimum(below, above) < _NEAR[str(X.dtype)] * s
    rows = jnp.arange(X.shape[0])

    def unfinished(state):
        return jnp.any(state[0])

    def advance(state):
        near, *table = state
        column = jnp.argmax(near, axis=1)
        found = near[rows, column]
        exact = jax.vmap(_exact)(X, Y[column])
        for i, value in enumerate(exact):
            table[i] = table[i].at[rows, column].set(jnp.where(found, value, table[i][rows, column]))
        return near.at[rows, column].set(False), *table

    start = (near, below, above, one[:, None] - two)
    return jax.lax.while_loop(unfinished, advance, start)[1:]
