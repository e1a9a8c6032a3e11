"""Numbers that say how far a kernel or a matrix is from another: plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["alignment", "centred", "effective_rank", "operator_norm", "relative_change"]


def relative_change(A: Any, B: Any) -> float:
    """``||A - B||_F / ||B||_F``; exactly 0 where the two are equal, 0 included."""
    A, B = np.asarray(A, np.float64), np.asarray(B, np.float64)
    change = float(np.linalg.norm(A - B))
    size = float(np.linalg.norm(B))
    return 0.0 if change == 0 else change / size if size > 0 else float("inf")


def alignment(K: np.ndarray, Y: np.ndarray) -> float:
    """Cosine between K and Y Y^T: ``y^T K y / (||K||_F |y|^2)`` for one target, (n,) or (n, O)."""
    Y = np.reshape(Y, (len(Y), -1))
    size = np.linalg.norm(K) * np.linalg.norm(Y.T @ Y)
    return float(np.sum(Y * (K @ Y)) / size) if size > 0 else float("nan")


def centred(A: np.ndarray) -> np.ndarray:
    """A matrix without its means over rows and columns, ``H A H``; the targets (n, O) without those over examples."""
    A = A - A.mean(0)
    return A - A.mean(1, keepdims=True) if A.shape[0] == A.shape[1] else A


def effective_rank(K: np.ndarray) -> float:
    """``exp(-sum_i p_i log p_i)`` with ``p_i = lambda_i / sum_j lambda_j``: n for equal eigenvalues, 1 for rank one.

    Source: Roy and Vetterli 2007.
    """
    lam = np.clip(np.linalg.eigvalsh(K), 0.0, None)
    if not lam.any():
        return 0.0
    p = lam[lam > 0] / lam.sum()
    return float(np.exp(-np.sum(p * np.log(p))))


def operator_norm(A: Any) -> float:
    """Largest singular value, to a thousandth."""
    A = np.asarray(A)
    if not np.isfinite(A).all() or min(A.shape) == 1 or not A.any():
        return float(np.linalg.norm(A))
    from scipy.sparse.linalg import svds

    start = np.cos(np.arange(min(A.shape), dtype=A.dtype))  # any fixed vector: the same result in each run
    values: Any = svds(A, k=1, tol=1e-3, v0=start, return_singular_vectors=False)  # type: ignore[arg-type]
    return float(values[0])
