"""Extreme eigenvalues of matrices that are known by their products with vectors (Lanczos)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

__all__ = ["extreme_eigenvalues", "largest_eigenvalue"]

_DENSE = 24  # up to this size the matrix is made


def extreme_eigenvalues(product: Callable, size: int, *, precision: float = 1e-4) -> tuple[float, float]:
    """Smallest and largest eigenvalue of a symmetric matrix (size, size), to a relative `precision` of the larger one.

    product: the matrix times a vector (size,).  The operator norm is the larger of their magnitudes.  (nan, nan)
    where a product is not finite.  Source: Lanczos 1950; Lehoucq, Sorensen and Yang 1998.
    """
    low, high = _eigenvalues(product, size, 2, "BE", precision)[[0, -1]]
    return float(low), float(high)


def largest_eigenvalue(product: Callable, size: int, *, precision: float = 1e-4) -> float:
    """Largest eigenvalue of a symmetric matrix; arguments as in `extreme_eigenvalues`."""
    return float(_eigenvalues(product, size, 1, "LA", precision)[-1])


class _NotFinite(Exception):
    """A product overflowed: there are no eigenvalues to find."""


def _eigenvalues(product, size, k, which, precision) -> np.ndarray:
    def times(v):
        out = np.asarray(product(v), np.float64).ravel()
        if not np.isfinite(out).all():
            raise _NotFinite
        return out

    try:
        if size <= _DENSE:
            return np.linalg.eigvalsh(np.stack([times(e) for e in np.eye(size)]))
        return _by_lanczos(times, size, k, which, precision)
    except _NotFinite:
        return np.full(2, np.nan)


def _by_lanczos(times, size, k, which, precision) -> np.ndarray:
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    start = np.random.default_rng(0).standard_normal(size)  # any fixed vector: the same result in each run
    if not times(start).any():
        return np.zeros(2)
    operator = LinearOperator((size, size), matvec=times, dtype=np.float64)  # type: ignore[call-arg]
    for vectors in (20, 60):
        try:
            found = eigsh(
                operator, k, which=which, v0=start, tol=precision, ncv=min(size, vectors), maxiter=40,
                return_eigenvectors=False,
            )  # fmt: skip
            return np.sort(np.asarray(found))
        except ArpackNoConvergence:
            continue
    raise RuntimeError(f"the extreme eigenvalues of a matrix of size {size} were not found to {precision:g}.")
