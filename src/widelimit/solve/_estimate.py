"""What the estimates without a matrix share: their result, and products with several vectors on the host."""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from widelimit._precision import enable_x64, is_traced
from widelimit.solve._operator import optional

__all__ = ["Estimate", "Matrix", "averaged", "check_count", "key_needed"]


class Estimate(NamedTuple):
    """A number with the standard error of its mean over random probes, 0 where it is exact.

    truncation: its difference from the same estimate with half the steps of Lanczos, where these are an approximation:
    an indication of the error that the standard error does not have.
    """

    value: float
    standard_error: float
    truncation: float = 0.0

    def __float__(self) -> float:
        return self.value


def averaged(samples: np.ndarray, truncated: np.ndarray | None = None) -> Estimate:
    """The mean of one number a probe."""
    error = float(np.std(samples, ddof=1) / len(samples) ** 0.5)
    value = float(np.mean(samples))
    return Estimate(value, error, 0.0 if truncated is None else abs(value - float(np.mean(truncated))))


def check_count(where: str, name: str, value: Any, least: int = 1) -> int:
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
        raise ValueError(f"{where}: {name} must be an integer of at least {least}, not {value!r}.")
    return int(value)


class Matrix:
    """A matrix or operator A of lineax as one on flat vectors: what `where` computes with, in A's own precision."""

    def __init__(self, where: str, A: Any, *, symmetric: bool = True):
        """Raises TypeError for what is neither, ValueError for a matrix that is not square, symmetric and finite."""
        lx = optional(where, "lineax")
        self.where, self.dense = where, None
        if isinstance(A, lx.AbstractLinearOperator):
            self.operator = A
        else:
            self.operator = self._of_array(lx, A)
        one, two = self.operator.in_structure(), self.operator.out_structure()
        dtypes = [a.dtype for a in jax.tree.leaves((one, two))]
        self.double = getattr(A, "from_numpy", False) or np.dtype(np.float64) in dtypes
        with self.precision():
            self.size = self.operator.in_size()
            self.dtype = jnp.result_type(*(a.dtype for a in jax.tree.leaves(self.operator.in_structure())))
        if any(jnp.issubdtype(d, jnp.complexfloating) for d in dtypes):
            raise TypeError(f"{where}: A must be real.")
        if symmetric and not lx.is_symmetric(self.operator):
            raise ValueError(
                f"{where}: A must be symmetric. Remedy: x1 alone, or "
                "lineax.TaggedLinearOperator(A, lineax.symmetric_tag) if it is."
            )
        self.positive_semidefinite = lx.is_positive_semidefinite(self.operator)
        self.shares_work = getattr(getattr(A, "products", None), "shares_work", True)

    def _of_array(self, lx, A):
        if not isinstance(A, jax.Array):
            try:
                A = np.asarray(A, np.float64)
            except (TypeError, ValueError):
                A = np.zeros(0)
        if is_traced(A) or A.ndim != 2:
            raise TypeError(f"{self.where}: A must be a matrix or an operator such as wl.operator(k, x) makes.")
        if not np.all(np.isfinite(A)):
            raise ValueError(f"{self.where}: A holds NaN or infinity.")
        self.dense = np.asarray(A, np.float64)
        scale = max(np.abs(self.dense).max(initial=0), np.finfo(float).tiny)
        square = len(set(A.shape)) == 1
        tags = [lx.symmetric_tag] if square and np.abs(self.dense - self.dense.T).max(initial=0) <= 1e-5 * scale else []
        with enable_x64() if A.dtype == np.float64 else contextlib.nullcontext():
            return lx.MatrixLinearOperator(jnp.asarray(A), tags)

    def precision(self):
        return enable_x64() if self.double else contextlib.nullcontext()

    def signs(self, key: Any, count: int) -> np.ndarray:
        """Random vectors of +1 and -1, (size, count)."""
        return 2.0 * np.asarray(jax.random.bernoulli(key, shape=(self.size, count))) - 1.0

    def times(self, V: np.ndarray) -> np.ndarray:
        """``A V``, V (size, C)."""
        with self.precision():
            multiplied = optional(self.where, "widelimit.solve._lineax").multiplied
            return np.asarray(multiplied(self.operator, jnp.asarray(V, self.dtype)), np.float64)


def key_needed(where: str) -> ValueError:
    return ValueError(f"{where}: of this operator only an estimate is known. Remedy: give key=jax.random.key(0).")
