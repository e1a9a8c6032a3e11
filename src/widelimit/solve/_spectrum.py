"""Symmetric eigendecomposition of a Gram matrix, with a verdict on its rank and positivity."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:  # shapes in signatures, for readers and type checkers: nothing is loaded
    from jaxtyping import Bool, Float
    from numpy.typing import ArrayLike

__all__ = ["SingularGramWarning", "Spectrum", "checked_gram", "spectrum"]


class SingularGramWarning(UserWarning):
    """The Gram matrix is singular or not positive semidefinite: the pseudo-inverse limit is used."""


class Spectrum(NamedTuple):
    """Eigendecomposition ``K = V diag(lam) V^T`` of a Gram matrix (n, n).

    lam: (n,), ascending; V: (n, n), orthogonal; kept: (n,), which eigenvalues are above rounding (the rest count as 0).
    """

    lam: Float[np.ndarray, " n"]
    V: Float[np.ndarray, "n n"]
    kept: Bool[np.ndarray, " n"]

    @property
    def condition_number(self) -> float:
        """Largest over smallest eigenvalue; infinity for a singular matrix."""
        low = self.lam[0]
        return float(self.lam[-1] / low) if low > 0 else float("inf")

    def apply(self, function: Callable, B: Float[np.ndarray, "n m"]) -> Float[np.ndarray, "n m"]:
        """``V diag(function(lam)) V^T B``, with eigenvalues at rounding level set to exactly 0 before."""
        lam = np.where(self.kept, self.lam, 0.0)
        return self.V @ (function(lam)[:, None] * (self.V.T @ B))


def checked_gram(K: Float[ArrayLike, "n n"], name: str = "K", *, symmetric: bool = True) -> Float[np.ndarray, "n n"]:
    """A square, symmetric (unless `symmetric` is False), finite matrix in float64, or a ValueError: what is wrong."""
    K = np.asarray(K, np.float64)
    if K.ndim != 2 or K.shape[0] != K.shape[1] or K.shape[0] == 0:
        raise ValueError(f"{name} must be a square matrix (n, n) with n >= 1, and has shape {K.shape}.")
    if not np.all(np.isfinite(K)):
        raise ValueError(f"{name} holds NaN or infinity; check the inputs that it was computed from.")
    if not symmetric:
        return K
    asymmetry = np.abs(K - K.T).max()
    if asymmetry > 1e-5 * max(np.abs(K).max(), np.finfo(float).tiny):
        raise ValueError(f"{name} must be symmetric; it differs from its transpose by up to {asymmetry:.3g}.")
    return (K + K.T) / 2


def spectrum(
    K: Float[ArrayLike, "n n"],
    *,
    name: str = "K",
    ridge: float = 0.0,
    precision: float | None = None,
    warn: bool = True,
) -> Spectrum:
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
