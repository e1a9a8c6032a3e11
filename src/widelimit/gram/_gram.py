"""Gram matrices: a kernel of one pair, batched in tiles, the symmetric half only."""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from widelimit._examples import as_example, floating, holds_jax, in_double, in_one_precision, signature
from widelimit._precision import enable_x64, is_traced
from widelimit._segments import segmented
from widelimit.gram._factored import factored_tiles, is_factored

__all__ = ["check_kernel", "check_limits", "checked_examples", "gram", "gram_diag"]

_DEFAULT_MEMORY = 2**29
_LARGEST_TILE = 256  # larger ones are no faster on a CPU, and less of the upper half is left out
_ARRAYS_OF_POSITIONS = 8
_ARRAYS_PER_PAIR = 24  # intermediate values held at once for one pair of a tile, by measurement


def gram(
    k: Callable,
    x1: Any,
    x2: Any = None,
    *,
    batch_size: int | None = None,
    memory: int | None = None,
    progress: bool | Callable[[int, int, float], None] = False,
) -> Any:
    """Gram matrix ``G_ij = k(x1_i, x2_j)`` of a kernel of one pair.

    k: a kernel such as ``wl.ntk(net)``, ``wl.kernels(net)`` (a named tuple of matrices comes back) or any JAX function
    of one pair.  x1: (n1, ...), x2: (n2, ...), or tuples or dicts of arrays with a leading axis (nodes and adjacency
    matrices of n1 graphs); None: x1 with itself, and then only tiles on and above the diagonal are computed and the
    diagonal comes from ``k.diag`` where there is one.
    batch_size: rows and columns of a tile; None: from `memory`, bytes that a tile may take (default 512 MB).
    progress: True prints a bar, or a function ``(tiles done, tiles, seconds left)``.

    Returns (n1, n2), or (n1, n2, O) and (n1, n2, O, O) for kernels with outputs, ``k(x', x) = k(x, x')^T``.
    NumPy (or lists) in: NumPy float64 out; JAX in: JAX out, in its precision.  While JAX traces (``jax.grad`` by
    hyperparameters of k, ``jax.jit``) everything is one tile, and out comes JAX, of NumPy in JAX's default precision.
    Raises ValueError for shapes that do not fit, TypeError or ValueError for data that are not finite numbers.
    """
    if any(map(is_traced, jax.tree.leaves((x1, x2)))):
        return _whole(k, x1, x2)
    given = x1, x2
    check_kernel("gram", k)
    x1, x2, to_numpy = checked_examples("gram", k, x1=x1, x2=x2)
    check_limits("gram", batch_size, memory)
    report = _reporter(progress)
    try:
        with enable_x64() if to_numpy else contextlib.nullcontext():
            found = _tiled(k, x1, x2, batch_size, memory, report)
    except _Traced:
        return _whole(k, *_as_jax(k, *given))
    return found if to_numpy else jax.tree.map(jnp.asarray, found)


def gram_diag(k: Callable, x: Any, *, batch_size: int | None = None, memory: int | None = None) -> Any:
    """Diagonal ``k(x_i, x_i)`` of the Gram matrix, (n,), at cost O(n); arguments as in `gram`."""
    if any(map(is_traced, jax.tree.leaves(x))):
        return jax.vmap(_diagonal(k))(x)
    given = x
    check_kernel("gram_diag", k)
    x, to_numpy = checked_examples("gram_diag", k, x=x)
    check_limits("gram_diag", batch_size, memory)
    try:
        with enable_x64() if to_numpy else contextlib.nullcontext():
            found = _diagonals(k, x, _tile(batch_size, memory, k, x, x) ** 2)
    except _Traced:
        return jax.vmap(_diagonal(k))(*_as_jax(k, given))
    return found if to_numpy else jax.tree.map(jnp.asarray, found)


class _Traced(Exception):
    """The kernel depends on what JAX is tracing, so that its values are not known and cannot be put into an array."""


def _known(block):
    """The block's arrays in NumPy."""
    if any(map(is_traced, jax.tree.leaves(block))):
        raise _Traced
    return jax.tree.map(np.asarray, block)


def _as_jax(k, *xs) -> list:
    """Examples as JAX arrays in its default precision, or in theirs if they are JAX's; None stays."""
    xs = [x if x is None else as_example(x) for x in xs]
    return in_one_precision(*(x if getattr(k, "keeps_integers", False) else floating(x) for x in xs))


def check_kernel(where, k):
    if hasattr(k, "init") and hasattr(k, "apply"):
        raise TypeError(f"{where}: k is a network; give one of its kernels, such as wl.ntk(net) or wl.nngp(net).")
    if not callable(k):
        raise TypeError(f"{where}: k must be a kernel of one pair, such as wl.ntk(net), not {k!r}.")


def checked_examples(where, k, **inputs):
    """The inputs as arrays of numbers, integers as they are if the kernel keeps them, and whether NumPy is wanted."""
    to_numpy = not holds_jax(*inputs.values())
    out = {}
    for name, x in inputs.items():
        if x is None and name == "x2":
            continue
        try:
            x = as_example(x)
        except ValueError:
            raise ValueError(f"{where}: the examples in {name} must all have one shape.") from None
        for array in jax.tree.leaves(x):
            _check_array(where, name, array)
        counts = {len(a) for a in jax.tree.leaves(x)}
        if len(counts) > 1:
            raise ValueError(f"{where}: the arrays of {name} hold {sorted(counts)} examples, not as many each.")
        out[name] = x if getattr(k, "keeps_integers", False) else floating(x)
    if "x2" in out:
        first, second = (jax.tree.map(jnp.ndim, x) for x in (out["x1"], out["x2"]))
        if first != second:
            shapes = [", ".join(str(a.shape[1:]) for a in jax.tree.leaves(x)) for x in out.values()]
            raise ValueError(f"{where}: examples of x1 have shape {shapes[0]}, those of x2 {shapes[1]}.")
    if to_numpy:
        with enable_x64(), jax.ensure_compile_time_eval():
            arrays = [jax.tree.map(np.asarray, in_double(x)) for x in out.values()]
    else:
        arrays = in_one_precision(*out.values())
    return *arrays, *([None] if "x2" in inputs and "x2" not in out else []), to_numpy


def _check_array(where, name, array) -> None:
    if array.dtype.kind not in "fiub" and not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{where}: {name} must hold numbers, not {array.dtype}.")
    if array.ndim == 0:
        raise ValueError(f"{where}: {name} must have a leading axis over examples, and is a scalar.")
    if 0 in array.shape[1:]:
        raise ValueError(f"{where}: examples of {name} have no entries (shape {array.shape[1:]}).")
    bad = ~np.isfinite(np.asarray(array)).all(axis=tuple(range(1, array.ndim)))
    if bad.any():
        raise ValueError(f"{where}: {name} holds NaN or infinity, first in example {int(np.argmax(bad))}.")


def _one_of(x):
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), x)


def _count(x) -> int:
    return len(jax.tree.leaves(x)[0])


def check_limits(where, batch_size, memory) -> None:
    for name, value, kinds in (
        ("batch_size", batch_size, int | np.integer),
        ("memory", memory, int | float | np.integer | np.floating),
    ):
        if value is not None and (not isinstance(value, kinds) or isinstance(value, bool) or not value >= 1):
            what = "a positive integer" if name == "batch_size" else "a positive number of bytes"
            raise ValueError(f"{where}: {name} must be {what}, not {value!r}.")


def _tile(batch_size, memory, k, x1, x2) -> int:
    if batch_size is not None:
        return int(batch_size)
    memory = _DEFAULT_MEMORY if memory is None else memory
    numbers = _numbers_per_pair(k, *(signature(_one_of(x)) for x in (x1, x2)))
    return max(1, min(_LARGEST_TILE, int(math.sqrt(memory / (numbers * 8)))))


def _from_signature(form):
    structure, arrays = form
    return jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in arrays])


def _numbers_per_pair(k, *examples) -> int:
    """How many numbers are held at once for one pair: of examples with positions, as many as pairs of these count."""
    if all(len(shape) < 2 for _, leaves in examples for shape, _ in leaves):
        return _ARRAYS_PER_PAIR
    try:
        largest = _largest_array(k, *examples)
    except _Traced as found:
        largest = found.args[0]
    return _ARRAYS_PER_PAIR + _ARRAYS_OF_POSITIONS * largest


@functools.lru_cache(maxsize=32)
def _largest_array(k, *examples) -> int:
    """Size of the largest array in the program of one pair; by an exception, which no cache keeps, if k is traced."""
    arrays = [a for _, leaves in examples for a in leaves]
    with enable_x64() if any(dtype == "float64" for _, dtype in arrays) else contextlib.nullcontext():
        closed = jax.make_jaxpr(k)(*map(_from_signature, examples))
    largest = max((math.prod(v.aval.shape) for eqn in closed.jaxpr.eqns for v in eqn.outvars), default=1)
    if any(map(is_traced, closed.consts)):
        raise _Traced(largest)
    return largest


def _rounded(n: int) -> int:
    """The next of 1, 2, 3, 4, 6, 8, 12, 16 ...: Grams of nearly as many examples share what was compiled."""
    power = 1 << max(n - 1, 0).bit_length()
    return 3 * power // 4 if n <= 3 * power // 4 else power


def _rows(n: int, tile: int) -> int:
    """Rows of a tile for n examples."""
    return min(tile, max(_rounded(n), 1))


# Up to this many pairs of vectors are computed operation by operation: compiling takes longer than running, and the
# next network finds the operations compiled.  With axes of positions every network has shapes of its own.
_UNCOMPILED = 64**2


@functools.lru_cache(maxsize=32)
def _compiled(k, diagonal: bool, forms: tuple):
    batched = _batched(k, diagonal)
    compiled = segmented(batched, *map(_from_signature, forms))
    if compiled is batched:
        raise _Traced
    return compiled


def _function(k, diagonal: bool, *arrays) -> Callable:
    """The batched kernel, compiled for arrays like these unless they are few."""
    count = math.prod(map(_count, arrays))
    if count <= _UNCOMPILED and all(a.ndim < 3 for a in jax.tree.leaves(arrays)):
        return _batched(k, diagonal)
    return _compiled(k, diagonal, tuple(map(signature, arrays)))


def _batched(k, diagonal: bool) -> Callable:
    return jax.vmap(_diagonal(k)) if diagonal else _pairs(k)


def _pairs(k):
    return jax.vmap(jax.vmap(k, (None, 0)), (0, None))


def _diagonal(k):
    return k.diag if hasattr(k, "diag") else lambda x: k(x, x)


def _whole(k, x1, x2):
    if hasattr(k, "all_pairs"):
        return k.all_pairs(x1, x2)
    if x2 is not None:
        return _pairs(k)(x1, x2)
    out = _pairs(k)(x1, x1)
    index = jnp.arange(_count(x1))
    return jax.tree.map(lambda a, d: a.at[index, index].set(d), out, jax.vmap(_diagonal(k))(x1))


def _diagonals(k, x, tile):
    parts = []
    size = _rows(_count(x), tile)
    for i in range(0, _count(x), size):
        rows, piece = min(size, _count(x) - i), _padded(x, i, size)
        parts.append(jax.tree.map(lambda v, rows=rows: v[:rows], _known(_function(k, True, piece)(piece))))
    if not parts:
        return np.zeros(0)
    return jax.tree.map(lambda *a: np.concatenate(a), *parts)


def _blocks(k, x1, x2, batch_size, memory) -> tuple[int, Callable]:
    """Examples of a tile, and a function from the numbers of two tiles and what makes them to their kernels."""
    if is_factored(k) and _count(x1) and (x2 is None or _count(x2)):
        return factored_tiles(k, x1, x2, batch_size, _DEFAULT_MEMORY if memory is None else memory)

    def block(i, j, rows, columns):
        a, b = rows(), columns()
        return _function(k, False, a, b)(a, b)

    return _tile(batch_size, memory, k, x1, x1 if x2 is None else x2), block


def _tiled(k, x1, x2, batch_size, memory, report):
    tile, block_of = _blocks(k, x1, x2, batch_size, memory)
    symmetric = x2 is None and getattr(k, "symmetric", True)
    other = x1 if x2 is None else x2
    n1, n2 = _count(x1), _count(other)
    tile1, tile2 = _rows(n1, tile), _rows(n2, tile)
    jobs = [(i, j) for i in range(0, n1, tile1) for j in range(0, n2, tile2) if not symmetric or j + tile2 > i]
    out = None
    start = time.monotonic()
    for done, (i, j) in enumerate(jobs):
        rows, columns = min(tile1, n1 - i), min(tile2, n2 - j)
        make = [functools.partial(_padded, x, at, size) for x, at, size in ((x1, i, tile1), (other, j, tile2))]
        block = _known(block_of(i, j, *make))
        if out is None:
            out = jax.tree.map(lambda v: np.empty((n1, n2, *v.shape[2:]), v.dtype), block)
        for whole, part in zip(jax.tree.leaves(out), jax.tree.leaves(block), strict=True):
            part = part[:rows, :columns]
            whole[i : i + rows, j : j + columns] = part
            if symmetric and j > i:
                whole[j : j + columns, i : i + rows] = _transposed(part)
        elapsed = time.monotonic() - start
        report(done + 1, len(jobs), elapsed / (done + 1) * (len(jobs) - done - 1))
    if out is None:
        shape = jax.eval_shape(k, *(_one_of(x) for x in (x1, other)))
        return jax.tree.map(lambda s: np.zeros((n1, n2, *s.shape), s.dtype), shape)
    if symmetric:
        _set_symmetric(out)
    if symmetric and not is_factored(k):
        _set_diagonal(out, k, x1, tile1**2)
    return out


def _transposed(part):
    """``k(x', x) = k(x, x')^H``: kernels with several outputs are matrices (O, O) for each pair."""
    part = np.swapaxes(part, 0, 1).conj()
    return np.swapaxes(part, -1, -2) if part.ndim == 4 else part


def _set_symmetric(out):
    """The two halves of a diagonal tile are computed separately: make them equal to the bit."""
    for whole in jax.tree.leaves(out):
        if whole.ndim == 2:
            within = np.triu_indices(len(whole), 1)
            whole.T[within] = whole[within].conj()


def _set_diagonal(out, k, x, tile):
    index = np.arange(_count(x))
    for whole, diagonal in zip(jax.tree.leaves(out), jax.tree.leaves(_diagonals(k, x, tile)), strict=True):
        whole[index, index] = diagonal


def _padded(x, start, size):
    """Examples from `start` on, `size` of them: the first repeated where there are fewer."""
    rows = min(size, _count(x) - start)

    def filled(a):
        piece = a[start : start + size]
        if rows < size:  # one compiled shape for every tile
            xp = jnp if isinstance(piece, jax.Array) else np
            piece = xp.concatenate([piece, xp.repeat(piece[:1], size - rows, axis=0)])
        return jnp.asarray(piece)

    return jax.tree.map(filled, x)


def _reporter(progress):
    if callable(progress):
        return progress
    if not progress:
        return lambda done, total, left: None
    from rich.progress import Progress

    bar = Progress()
    task = bar.add_task("Gram", total=None)
    bar.start()

    def report(done, total, left):
        bar.update(task, completed=done, total=total)
        if done == total:
            bar.stop()

    return report
