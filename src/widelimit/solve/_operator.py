"""The Gram matrix of a kernel as a linear operator."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from widelimit._precision import enable_x64, is_traced
from widelimit.gram import check_kernel, check_limits, checked_examples, diagonals, tile_of

if TYPE_CHECKING:
    from widelimit.solve._gram_operator import GramOperator

__all__ = ["operator", "optional"]

_DEFAULT_MEMORY = 2**29


def optional(where: str, module: str) -> Any:
    """The module of a package of the extra "operators", or an ImportError that tells how to install it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("lineax", "matfree", "equinox"):
            raise
        raise ImportError(
            f'{where}: {missing} is not installed. Remedy: pip install "widelimit[operators]".', name=missing
        ) from None


def operator(
    k: Callable,
    x1: Any,
    x2: Any = None,
    *,
    ridge: Any = None,
    batch_size: int | None = None,
    memory: float | None = None,
    positive_semidefinite: bool | None = None,
) -> GramOperator:
    """The Gram matrix as a linear operator of lineax, whose matrix is never held.

    ``A v = G v + ridge v,    G_ij = k(x1_i, x2_j).``

    k, x1, x2: as in `wl.gram`; x2 None: x1 with itself.  ridge: a number, only without x2.
    Empirical NTKs take one pass of the network backwards and one forwards, ``G v = J (lr J^T v)``, in batches of
    examples (as many passes as outputs, for "mean", "sum" and "diag"); all other kernels are computed anew in tiles
    for each product, half of them if k is symmetric.  memory: bytes that this may take beside examples, parameters
    and vectors (default 512 MB); batch_size: examples of a tile or batch, at most; ``print(A)`` tells the choice.
    positive_semidefinite: whether G is, where that is not known: of functions of your own.  Solvers such as `lineax.CG`
    ask.

    Returns an operator with ``mv(v)``, ``transpose()``, ``as_matrix()``, ``block(rows, columns)``, ``diag`` and all
    else that lineax gives its operators.  v: (n,), or (n, O) if k gives (O,) (each output with itself) or (O, O); one
    more axis of v is for several vectors.  NumPy x1 and v: NumPy float64.  Else the precision is that of x1, and of
    NumPy x1 float32 unless JAX's 64-bit types are on (``with jax.enable_x64(True):``), of which JAX may warn.  Works
    in `jax.jit`, `jax.vmap` and `jax.grad`.
    Raises ImportError without lineax, MemoryError where one example does not fit, TypeError for kernels that are
    several or complex, and ValueError and TypeError as `wl.gram`.
    """
    made = optional("operator", "widelimit.solve._gram_operator")
    check_kernel("operator", k)
    check_limits("operator", batch_size, memory)
    from_numpy = False
    if not any(map(is_traced, jax.tree.leaves((x1, x2)))):
        x1, x2, from_numpy = checked_examples("operator", k, x1=x1, x2=x2)
    if min(len(a) for a in jax.tree.leaves((x1, x2))) == 0:
        raise ValueError("operator: x1 and x2 must hold at least one example.")
    with enable_x64() if from_numpy else contextlib.nullcontext():
        x1, x2 = (jax.tree.map(jnp.asarray, x) for x in (x1, x2))
        pair = _pair("operator", k, x1, x1 if x2 is None else x2)
        symmetric = x2 is None and getattr(k, "symmetric", True)
        products, size = _products(made, k, x1, x2, pair, batch_size, memory, symmetric)
        shift = _ridge(ridge, x2, pair.dtype)
    if positive_semidefinite is None:
        positive_semidefinite = bool(getattr(k, "positive_semidefinite", False))
    cells = ((), ()) if not pair.shape else (pair.shape[:1], pair.shape[-1:])
    return made.GramOperator(
        products, x1, x2, shift, cells=cells, dtype=np.dtype(pair.dtype), from_numpy=from_numpy, symmetric=symmetric,
        positive_semidefinite=positive_semidefinite and symmetric, bytes=size,
    )  # fmt: skip


def _pair(where: str, k, x1, x2) -> jax.ShapeDtypeStruct:
    """Shape and type of the kernel of one pair."""
    one, two = (jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), x) for x in (x1, x2))
    pair = jax.eval_shape(k, one, two)
    if not isinstance(pair, jax.ShapeDtypeStruct):
        raise TypeError(
            f"{where}: k gives {len(jax.tree.leaves(pair))} kernels and must give one. Remedy: wl.ntk(net) or "
            "wl.nngp(net), or parameters= instead of by_parameter."
        )
    if jnp.issubdtype(pair.dtype, jnp.complexfloating):
        raise TypeError(f"{where}: k is complex. Remedy: wl.gram, or real and imaginary parts as outputs of f.")
    if len(pair.shape) > 2:
        raise TypeError(f"{where}: k must give a number, (O,) or (O, O) for one pair, not shape {pair.shape}.")
    return pair


def _products(made, k, x1, x2, pair, batch_size, memory, symmetric):
    """How products are computed, and the bytes that they hold."""
    found = k.applied() if hasattr(k, "applied") else None
    if found is None:
        tile, size = tile_of(k, x1, x2, batch_size, memory)
        own = diagonals(k, x1, tile) if symmetric else None
        return made.Tiles(own, k, tile), size
    program, (leaves, rates) = found
    if not pair.shape and program.output == "full":
        program = program._replace(output="sum")  # a function to one number
    limit = _DEFAULT_MEMORY if memory is None else memory
    batch, size = program.examples_at_once("operator", leaves, x1, x2, limit, batch_size)
    rates = [r if r is None else jnp.asarray(r, pair.dtype) for r in rates]
    return made.Jacobians(leaves, rates, program, batch), size


def _ridge(ridge, x2, dtype):
    if ridge is None:
        return None
    if x2 is not None:
        raise ValueError("operator: a ridge needs a square Gram. Remedy: leave out x2 or ridge.")
    if not is_traced(ridge) and (np.ndim(ridge) or not np.isfinite(ridge) or ridge < 0):
        raise ValueError(f"operator: ridge must be a finite number >= 0, not {ridge!r}.")
    return jnp.asarray(ridge, dtype)
