"""The class of `wl.operator`.  Imported when an operator is made: lineax, whose class it extends, is optional."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np

from widelimit._precision import enable_x64, is_traced
from widelimit.gram import diagonals, gram, gram_product

__all__ = ["GramOperator", "Jacobians", "Tiles"]


class Tiles(eqx.Module):
    """Products by tiles of kernels, computed anew each time.

    k: kernel of one pair; tile: rows and columns; diagonal: (n1, ...) kernels of each x1_i with itself where the Gram
    is symmetric, else None.
    """

    diagonal: Any
    k: Callable = eqx.field(static=True)
    tile: int = eqx.field(static=True)
    shares_work: bool = eqx.field(static=True, default=True)  # several vectors take hardly longer than one

    def product(self, x1, x2, v, transposed: bool):
        diagonal = None if self.diagonal is None else self.diagonal.astype(v.dtype)
        return gram_product(self.k, x1, x2, v, tile=self.tile, diagonal=diagonal, transposed=transposed)

    def own(self, x1):
        """Kernels of each example with itself, (n1, ...)."""
        return diagonals(self.k, x1, self.tile) if self.diagonal is None else self.diagonal

    def block(self, x1, x2, rows, columns):
        """(rows, columns, ...)."""
        other = x1 if x2 is None else x2
        whole = rows is None and columns is None
        if whole and self.diagonal is not None:
            return gram(self.k, x1, batch_size=self.tile)
        found = gram(self.k, _taken(x1, rows), _taken(other, columns), batch_size=self.tile)
        if self.diagonal is None:
            return found
        index = [jnp.arange(len(self.diagonal)) if i is None else jnp.asarray(i) for i in (rows, columns)]
        same = (index[0][:, None] == index[1]).reshape(*found.shape[:2], *(1,) * (found.ndim - 2))
        return jnp.where(same, _taken(self.diagonal, rows)[:, None].astype(found.dtype), found)


class Jacobians(eqx.Module):
    """Products by one pass of a network each way.  applied: as `EmpiricalKernel.applied` gives it; batch: examples."""

    leaves: list
    rates: list
    applied: Any = eqx.field(static=True)
    batch: int = eqx.field(static=True)
    shares_work: bool = eqx.field(static=True, default=False)

    def product(self, x1, x2, v, transposed: bool):
        one, two = x1, x1 if x2 is None else x2
        applied = self.applied
        if transposed:
            one, two, applied = two, one, applied._replace(f=applied.other, other=applied.f)
        leaves, rates = _cast(self.leaves, v.dtype), _cast(self.rates, v.dtype)
        return applied.product(leaves, rates, one, two, v, self.batch)

    def own(self, x1):
        dtype = jnp.result_type(*self.leaves)
        return self.applied.diagonal(_cast(self.leaves, dtype), _cast(self.rates, dtype), x1, self.batch)

    def block(self, x1, x2, rows, columns):
        one, two = _taken(x1, rows), _taken(x1 if x2 is None else x2, columns)
        n = len(jax.tree.leaves(two)[0])
        cells = self._cells_of(two)
        size = n * math.prod(cells)
        unit = jnp.eye(size, dtype=jnp.result_type(*self.leaves)).reshape(n, *cells, size)
        found = self.product(one, two, unit, False)
        return jnp.moveaxis(found.reshape(*found.shape[: 1 + len(cells)], n, *cells), 1 + len(cells), 1)

    def _cells_of(self, x):
        if self.applied.output not in ("full", "diag"):
            return ()
        one = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), x)
        return jax.eval_shape(self.applied.other, self.leaves, one).shape


def _taken(x, index):
    return x if index is None else jax.tree.map(lambda a: jnp.asarray(a)[jnp.asarray(index)], x)


def _cast(tree, dtype):
    def cast(a):
        return a.astype(dtype) if eqx.is_array(a) and jnp.issubdtype(a.dtype, jnp.floating) else a

    return jax.tree.map(cast, tree)


class GramOperator(lx.AbstractLinearOperator):
    """``G + ridge I`` of ``G_ij = k(x1_i, x2_j)`` as a linear operator; made by `wl.operator`.

    cells: what one example is in a vector of either side, () or (O,).  from_numpy: made from NumPy, so that NumPy
    vectors give NumPy in float64.  bytes: what a product holds at once beside examples, parameters and vectors.
    """

    products: Tiles | Jacobians
    x1: Any
    x2: Any
    ridge: Any
    cells: tuple[tuple[int, ...], tuple[int, ...]] = eqx.field(static=True)
    dtype: Any = eqx.field(static=True)
    from_numpy: bool = eqx.field(static=True)
    symmetric: bool = eqx.field(static=True)
    positive_semidefinite: bool = eqx.field(static=True)
    bytes: int = eqx.field(static=True)
    transposed: bool = eqx.field(static=True, default=False)

    def mv(self, vector):
        """``(G + ridge I) v``: v of `in_structure`, or with one more axis of several vectors."""
        wanted = self.in_structure().shape
        if np.shape(vector)[: len(wanted)] != wanted or np.ndim(vector) > len(wanted) + 1:
            many = f"({', '.join(map(str, wanted))}, C)"
            raise ValueError(f"operator: the vector must have shape {wanted} or {many}, not {np.shape(vector)}.")
        if self.from_numpy and not isinstance(vector, jax.Array):
            with enable_x64():
                return np.asarray(_product(self, jnp.asarray(vector, jnp.float64)))
        return _product(self, jnp.asarray(vector, self.in_structure().dtype))

    def transpose(self):
        """The operator of ``G^T``."""
        if self.symmetric:
            return self
        return dataclasses.replace(self, transposed=not self.transposed)

    def as_matrix(self):
        """The matrix, (rows, columns) of vectors flattened; this holds it."""
        return self.block()

    def block(self, rows: Any = None, columns: Any = None):
        """Entries of the examples `rows` (n,) and `columns` (m,), indices, as a matrix; None: all."""
        if self.transposed:
            return self.transpose().block(columns, rows).T
        with self.in_own_precision():
            found = self.products.block(self.x1, self.x2, rows, columns)
            matrix = self._flat(found)
            if self.ridge is not None:
                same = self._same(rows, columns).astype(matrix.dtype)
                matrix = matrix + self.ridge * same
        return np.asarray(matrix) if self.from_numpy and not is_traced(matrix) else matrix

    def _same(self, rows, columns):
        """Which entries of a block are on the diagonal of the matrix."""
        every = jnp.arange(self._count(0))
        one, two = (every if i is None else jnp.asarray(i) for i in (rows, columns))
        return jnp.kron((one[:, None] == two).astype(jnp.int32), jnp.eye(math.prod(self.cells[0]), dtype=jnp.int32))

    def _flat(self, found):
        """(n, m), (n, m, O) or (n, m, O, O) as a matrix of flattened vectors."""
        if found.ndim == 2:
            return found
        if found.ndim == 3:
            found = found[..., None] * jnp.eye(found.shape[-1], dtype=found.dtype)
        n, m, a, b = found.shape
        return found.transpose(0, 2, 1, 3).reshape(n * a, m * b)

    @property
    def diag(self):
        """Diagonal of the matrix, at the cost of n kernels.  Raises ValueError where G is not square."""
        if self.x2 is not None:
            raise ValueError("operator: the Gram of x1 with x2 has no diagonal. Remedy: give x1 alone.")
        with self.in_own_precision():
            own = self.products.own(self.x1)
            own = jnp.diagonal(own, axis1=1, axis2=2) if own.ndim == 3 else own
            own = own.reshape(-1) + (0 if self.ridge is None else self.ridge)
        return np.asarray(own) if self.from_numpy and not is_traced(own) else own

    def in_structure(self):
        return self._structure(0 if self.transposed else 1)

    def out_structure(self):
        return self._structure(1 if self.transposed else 0)

    def in_own_precision(self):
        """A context in which arrays of the operator's precision can be made."""
        return enable_x64() if self.from_numpy else contextlib.nullcontext()

    def _count(self, side: int) -> int:
        return len(jax.tree.leaves(self.x1 if side == 0 or self.x2 is None else self.x2)[0])

    def _structure(self, side: int):
        # of NumPy's float64 what JAX has: float32 unless 64-bit types are on
        dtype = jnp.result_type(float) if self.dtype == np.float64 else self.dtype
        return jax.ShapeDtypeStruct((self._count(side), *self.cells[side]), dtype)

    def __str__(self) -> str:
        known = ["symmetric"] * self.symmetric + ["positive semidefinite"] * self.positive_semidefinite
        p = self.products
        how = f"tiles of {p.tile}" if isinstance(p, Tiles) else f"batches of {p.batch}"
        described = ", ".join([np.dtype(self.dtype).name, *known])
        return (
            f"operator from {self.in_structure().shape} to {self.out_structure().shape}, {described}: {how} examples, "
            f"{self.bytes / 2**20:.1f} MiB at once"
        )


@eqx.filter_jit
def _product(operator: GramOperator, v):
    x1, x2 = (_cast(x, v.dtype) for x in (operator.x1, operator.x2))
    out = operator.products.product(x1, x2, v, operator.transposed)
    return out if operator.ridge is None else out + operator.ridge.astype(v.dtype) * v


def _never(operator) -> bool:
    return False


for _query in (
    lx.is_diagonal, lx.is_tridiagonal, lx.has_unit_diagonal, lx.is_lower_triangular, lx.is_upper_triangular,
    lx.is_negative_semidefinite,
):  # fmt: skip
    _query.register(GramOperator)(_never)


@lx.is_symmetric.register(GramOperator)
def _(operator):
    return operator.symmetric


@lx.is_positive_semidefinite.register(GramOperator)
def _(operator):
    return operator.positive_semidefinite


@lx.linearise.register(GramOperator)
@lx.conj.register(GramOperator)
def _(operator):
    return operator


@lx.diagonal.register(GramOperator)
def _(operator):
    return jnp.asarray(operator.diag, operator.in_structure().dtype)


@lx.materialise.register(GramOperator)
def _(operator):
    matrix = jnp.asarray(operator.as_matrix(), operator.in_structure().dtype)
    to, of = operator.out_structure(), operator.in_structure()
    tags = [lx.positive_semidefinite_tag] * operator.positive_semidefinite + [lx.symmetric_tag] * operator.symmetric
    if len(to.shape) == 1:
        return lx.MatrixLinearOperator(matrix, tags)
    return lx.PyTreeLinearOperator(matrix.reshape(*to.shape, *of.shape), to, tags)
