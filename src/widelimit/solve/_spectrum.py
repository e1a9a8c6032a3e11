"""Symmetric eigendecomposition of a Gram matrix, with a verdict on its rank and positivity."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np

__all__ = ["SingularGramWarning", "Spectrum", "spectrum"]


class SingularGramWarning(UserWarning):
    """The Gram matrix is singular or not positive semidefinite: the pseudo-inverse limit is used."""


class Spectrum(NamedTuple):
    """``K = V diag(lam) V^T``, ascending; ``kept`` marks eigenvalues above rounding (the rest count as 0)."""

    lam: np.ndarray
    V: np.ndarray
    kept: np.ndarray

    @property
    def condition_number(self) -> float:
        """Largest over smallest eigenvalue; infinity for a singular matrix."""
        low = self.lam[0]
        return float(self.lam[-1] / low) if low > 0 else float("inf")

    def apply(self, function, B: np.ndarray) -> np.ndarray:
        """``V diag(function(lam)) V^T B``, with eigenvalues at rounding level set to exactly 0 before."""
        lam = np.where(self.kept, self.lam, 0.0)
        return self.V @ (function(lam)[:, None] * (self.V.T @ B))


def checked_gram(K, name: str = "K") -> np.ndarray:
    """A square, symmetric, finite matrix in float64, or a ValueError that says what is wrong."""
    K = np.asarray(K, np.float64)
    if K.ndim != 2 or K.shape[0] != K.shape[1] or K.shape[0] == 0:
        raise ValueError(f"{name} must be a square matrix (n, n) with n >= 1, and has shape {K.shape}.")
    if not np.all(np.isfinite(K)):
        raise ValueError(f"{name} holds NaN or infinity; check the inputs that it was computed from.")
    asymmetry = np.abs(K - K.T).max()
    if asymmetry > 1e-5 * max(np.abs(K).max(), np.finfo(float).tiny):
        raise ValueError(f"{name} must be symmetric; it differs from its transpose by up to {asymmetry:.3g}.")
    return (K + K.T) / 2


def spectrum(K, *, name: str = "K", ridge: float = 0.0, precision: float | None = None, warn: bool = True) -> Spectrum:
    """Eigendecomposition of ``K + ridge I`` in float64.

    precision: relative precision of K's entries (None: that of its dtype, at least float64's); eigenvalues within
    ``n precision lam_max`` of 0 are taken as 0.  A SingularGramWarning gives lam_min and the condition number
    where some are, or where some are negative beyond it.  Raises ValueError for matrices that are no Gram.
    """
    dtype = getattr(K, "dtype", np.dtype(np.float64))
    if precision is None:
        precision = float(np.finfo(np.float32 if str(dtype) in ("float32", "bfloat16", "float16") else np.float64).eps)
    matrix = checked_gram(K, name)
    n = len(matrix)
    import scipy.linalg  # here: `import widelimit` must stay quick

    lam, V = scipy.linalg.eigh(matrix)
    lam = lam + ridge
    cut = n * precision * max(lam[-1], 0.0)
    out = Spectrum(lam, V, lam > cut)
    if warn and not out.kept.all():
        kind = "not positive semidefinite" if lam[0] < -cut else "singular to rounding"
        warnings.warn(
            f"{name} is {kind}: lambda_min = {lam[0]:.3g}, lambda_max = {lam[-1]:.3g}, condition number "
            f"{out.condition_number:.3g}, rank {int(out.kept.sum())} of {n}. The limit of the pseudo-inverse is used: "
            "targets are not fitted along the null directions. Remedies: remove duplicate inputs, use float64, or "
            "give a ridge.",
            SingularGramWarning,
            stacklevel=3,
        )
    return out
