"""Extreme eigenvalues of a symmetric matrix that is not held, by block Lanczos with full reorthogonalisation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from widelimit.solve._estimate import Matrix, check_count

if TYPE_CHECKING:
    from jaxtyping import Float

__all__ = ["ConditionNumber", "Eigenpairs", "condition_number", "top_eigenpairs"]


class Eigenpairs(NamedTuple):
    """The largest eigenvalues (k,), descending, and their vectors (n, k).

    residuals: (k,) norms ``|A u - lambda u|``: within each of the eigenvalues lies one of A, and each eigenvalue is a
    lower bound of the one of A of the same rank.  converged: all are within the tolerance.  products: with vectors.
    """

    values: Float[np.ndarray, " k"]
    vectors: Float[np.ndarray, "n k"]
    residuals: Float[np.ndarray, " k"]
    converged: bool
    products: int


class ConditionNumber(NamedTuple):
    """``value = largest / smallest`` eigenvalue of A + ridge I as found: a lower bound of the condition number.

    upper: an upper bound, infinity where there is none: that by the ridge, for a positive semidefinite A.  It and
    `converged` take the largest Ritz value to be within its residual of the largest eigenvalue.
    converged: both residuals are within the tolerance, so that `value` is the condition number to that.
    """

    value: float
    upper: float
    largest: float
    smallest: float
    converged: bool
    products: int


class _Space:
    """An orthonormal basis that grows by Krylov blocks, what A makes of it, and Ritz pairs."""

    def __init__(self, matrix: Matrix, key: Any, block: int):
        self.matrix, self.key, self.block = matrix, key, min(block, matrix.size)
        self.Q = np.zeros((matrix.size, 0))
        self.AQ = np.zeros((matrix.size, 0))
        self.eps = float(np.finfo(matrix.dtype).eps)
        self.next = self._fresh()

    @property
    def full(self) -> bool:
        return self.Q.shape[1] >= self.matrix.size

    def _fresh(self) -> np.ndarray:
        """Random directions orthogonal to the basis: at first, and where it is closed under A but lacks copies."""
        self.key, now = jax.random.split(self.key)
        start = np.asarray(jax.random.normal(now, (self.matrix.size, self.block)), np.float64)
        return self._orthonormal(start, 0.0)

    def _orthonormal(self, W: np.ndarray, least: float) -> np.ndarray:
        """Orthonormal columns that span W less the basis, without directions of length `least` or below."""
        for _ in range(2):
            W = W - self.Q @ (self.Q.T @ W)
        U, s, _ = np.linalg.svd(W, full_matrices=False)
        U = U[:, s > max(least, 1e-300)][:, : self.matrix.size - self.Q.shape[1]]
        U = U - self.Q @ (self.Q.T @ U)
        return np.linalg.qr(U)[0] if U.shape[1] else U

    def grow(self) -> None:
        new = self.next if self.next.shape[1] else self._fresh()
        image = self.matrix.times(new)
        self.Q, self.AQ = np.hstack([self.Q, new]), np.hstack([self.AQ, image])
        if not self.full:
            self.next = self._orthonormal(image, 10 * self.eps * float(np.linalg.norm(image)))

    def ritz(self) -> tuple[np.ndarray, np.ndarray]:
        """Ritz values, ascending, and coordinates of their vectors."""
        T = self.Q.T @ self.AQ
        return np.linalg.eigh((T + T.T) / 2)

    def residuals(self, lam: np.ndarray, S: np.ndarray) -> np.ndarray:
        return np.linalg.norm(self.AQ @ S - (self.Q @ S) * lam, axis=0)


def _block(matrix: Matrix, wanted: int, block: int | None) -> int:
    if block is not None:
        return check_count(matrix.where, "block", block)
    # a product of a kernel with many vectors takes hardly longer than with one, of a Jacobian as many times as long
    return min(wanted + 4, 32) if matrix.shares_work else 4


def top_eigenpairs(
    A: Any,
    count: int = 10,
    *,
    tolerance: float = 1e-6,
    steps: int = 50,
    block: int | None = None,
    key: Any = None,
) -> Eigenpairs:
    """Largest eigenvalues of a symmetric matrix that is not held, and their vectors.

    ``A u_i = lambda_i u_i,    lambda_1 >= ... >= lambda_count``

    by block Lanczos from random vectors, with full reorthogonalisation.  A: as in `operator_trace`, symmetric.
    tolerance: of the residuals, relative to lambda_1; steps: blocks at most; block: vectors at once (None: count + 4,
    at most 32, or 4 for empirical NTKs), which finds eigenvalues repeated up to that often.  key: of `jax.random`, of
    the start.  Memory: two float64 vectors for each product.
    Returns `Eigenpairs`: residuals that bound the errors, and whether all converged, which is not an error otherwise.
    Raises ValueError for a count beyond the size of A or an A that is not symmetric.
    Source: Golub & Underwood 1977; Musco & Musco 2015 (random start).
    """
    matrix = Matrix("top_eigenpairs", A)
    count = check_count("top_eigenpairs", "count", count)
    if count > matrix.size:
        raise ValueError(f"top_eigenpairs: count is {count}, and A has {matrix.size} eigenvalues.")
    space = _Space(matrix, jax.random.key(0) if key is None else key, _block(matrix, count, block))
    limit = check_count("top_eigenpairs", "steps", steps)
    for step in range(matrix.size):
        space.grow()
        lam, S = space.ritz()
        lam, S = lam[::-1][:count], S[:, ::-1][:, :count]
        residuals = space.residuals(lam, S)
        enough = len(lam) == count
        converged = enough and bool(np.all(residuals <= tolerance * max(abs(lam[0]), 1e-300)))
        if enough and (converged or space.full or step + 1 >= limit):
            break
    return Eigenpairs(lam, space.Q @ S, residuals, converged or space.full, space.Q.shape[1])


def condition_number(
    A: Any,
    *,
    ridge: float = 0.0,
    tolerance: float = 1e-3,
    steps: int = 50,
    block: int | None = None,
    key: Any = None,
) -> ConditionNumber:
    """Condition number ``lambda_max / lambda_min`` of ``A + ridge I`` for a symmetric matrix that is not held.

    By block Lanczos as in `top_eigenpairs`, whose arguments these are.  Ritz values lie within the spectrum, so that
    `value` is a lower bound whatever the number of steps; the smallest eigenvalue converges late where A has many small
    ones, and the ridge then gives the upper bound ``(lambda_max + ridge) / ridge``.  tolerance: of both residuals,
    relative to their eigenvalues.  Infinity where the smallest is not positive.
    Returns a `ConditionNumber`, which says whether it converged.
    """
    matrix = Matrix("condition_number", A)
    if not np.isfinite(ridge) or ridge < 0:
        raise ValueError(f"condition_number: ridge must be a finite number >= 0, not {ridge!r}.")
    space = _Space(matrix, jax.random.key(0) if key is None else key, _block(matrix, 4, block))
    limit = check_count("condition_number", "steps", steps)
    while True:
        space.grow()
        lam, S = space.ritz()
        ends = [0, -1]
        residuals = space.residuals(lam[ends], S[:, ends])
        smallest, largest = (float(a) + ridge for a in lam[ends])
        converged = bool(np.all(residuals <= tolerance * np.abs([smallest, largest]))) or space.full
        if converged or space.Q.shape[1] >= limit * space.block:
            break
    own = getattr(A, "ridge", None)
    floor = ridge + (0.0 if own is None else float(own))
    known = matrix.positive_semidefinite and floor > 0
    upper = (largest + float(residuals[1])) / floor if known else float("inf")
    value = largest / smallest if smallest > 0 else float("inf")
    return ConditionNumber(value, max(value, upper), largest, smallest, converged, space.Q.shape[1])
