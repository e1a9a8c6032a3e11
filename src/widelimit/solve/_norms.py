"""Trace, Frobenius norm and effective rank of a matrix that is not held."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from widelimit.solve._estimate import Estimate, Matrix, averaged, check_count, key_needed
from widelimit.solve._quadrature import quadrature

__all__ = ["effective_rank", "frobenius_norm", "operator_trace"]


def operator_trace(A: Any, *, key: Any = None, probes: int = 32) -> Estimate:
    """Trace of a matrix that is not held.

    ``tr A = sum_i A_ii,    or    E z^T A z  for random signs z (Hutchinson's estimator).``

    A: what `wl.operator` gives, another operator of lineax, or a matrix; square.  key: None takes the diagonal, which
    is exact and costs n kernels, not n^2; a key of `jax.random`, the mean over `probes` random vectors.
    Raises ValueError for an A without a diagonal where no key is given, or fewer than 2 probes.
    Source: Hutchinson 1990.
    """
    matrix = Matrix("operator_trace", A, symmetric=False)
    if key is None:
        found = _exact_trace(matrix)
        if found is None:
            raise key_needed("operator_trace")
        return Estimate(found, 0.0)
    z = matrix.signs(key, check_count("operator_trace", "probes", probes, 2))
    return averaged(np.sum(z * matrix.times(z), axis=0))


def frobenius_norm(A: Any, *, key: Any = None, probes: int = 32) -> Estimate:
    """Frobenius norm of a matrix that is not held, ``||A||_F = sqrt(sum_ij A_ij^2) = sqrt(E |A z|^2)``, z random signs.

    A: as in `operator_trace`, of any shape.  key: None computes it exactly, at the cost of one product, which operators
    of kernels without a Jacobian, and matrices, allow; a key, estimates it from `probes` random vectors, with the
    standard error of the square over ``2 ||A||_F``.  Raises ValueError where a key is needed and none given.
    """
    matrix = Matrix("frobenius_norm", A, symmetric=False)
    squared = _squared_norm("frobenius_norm", matrix, key, probes)
    value = max(squared.value, 0.0) ** 0.5
    return Estimate(value, squared.standard_error / (2 * value) if value else 0.0)


def effective_rank(
    A: Any, *, kind: str = "participation", key: Any = None, probes: int = 32, steps: int = 40
) -> Estimate:
    """Number of eigenvalues that count, for a positive semidefinite matrix that is not held.

    ``(tr A)^2 / ||A||_F^2``  ("participation") or  ``exp(-sum_i p_i log p_i),  p = lambda / tr A``  ("entropy").

    A: as in `operator_trace`, symmetric.  The trace is exact where A has a diagonal; the Frobenius norm exact or
    estimated as in `frobenius_norm`; the entropy always estimated, by `steps` steps of Lanczos from each of `probes`
    random vectors, as in `spectral_density`.
    Raises ValueError for an unknown kind, an A that is not symmetric, or no key where one is needed.
    Source: Roy & Vetterli 2007 (entropy).
    """
    if kind not in ("participation", "entropy"):
        raise ValueError(f"effective_rank: kind must be participation or entropy, not {kind!r}.")
    matrix = Matrix("effective_rank", A)
    if kind == "entropy":
        return _entropy_rank(matrix, key, probes, steps)
    trace = _exact_trace(matrix)
    if trace is not None:
        squared = _squared_norm("effective_rank", matrix, key, probes)
        value = trace**2 / squared.value
        return Estimate(value, value * squared.standard_error / squared.value)
    if key is None:
        raise key_needed("effective_rank")
    z = matrix.signs(key, check_count("effective_rank", "probes", probes, 2))
    image = matrix.times(z)
    traces, squares = np.sum(z * image, axis=0), np.sum(image**2, axis=0)
    t, s = traces.mean(), squares.mean()
    influence = 2 * t / s * traces - t**2 / s**2 * squares  # of each probe on the ratio, to first order
    return Estimate(float(t**2 / s), float(np.std(influence, ddof=1) / len(influence) ** 0.5))


def _entropy_rank(matrix: Matrix, key, probes: int, steps: int) -> Estimate:
    if key is None:
        raise key_needed("effective_rank")
    found = quadrature(matrix, key, probes, steps)
    traces = found.sums(lambda lam: lam)[0]
    exact = _exact_trace(matrix)
    trace = traces.mean() if exact is None else exact

    def term(lam):
        p = np.maximum(lam, 0) / trace
        return -p * np.log(np.where(p > 0, p, 1.0))

    entropies, truncated = found.sums(term)
    entropy = entropies.mean()
    influence = entropies
    if exact is None:  # the trace is random, too, and H = sum(lam log(trace / lam)) / trace
        influence = entropies + traces / trace * (1 - entropy)
    error = np.std(influence, ddof=1) / len(influence) ** 0.5
    value = float(np.exp(entropy))
    return Estimate(value, float(value * error), float(abs(value - np.exp(truncated.mean()))))


def _exact_trace(matrix: Matrix) -> float | None:
    if matrix.dense is not None:
        if matrix.dense.shape[0] != matrix.dense.shape[1]:
            raise ValueError(f"{matrix.where}: A must be square, and has shape {matrix.dense.shape}.")
        return float(np.trace(matrix.dense))
    if hasattr(matrix.operator, "products"):
        return float(np.sum(np.asarray(matrix.operator.diag, np.float64)))
    return None


@dataclasses.dataclass(frozen=True)
class _Squared:
    """``sum_ab k(x, x')_ab^2``, a kernel of one pair."""

    k: Callable

    def __call__(self, x1, x2):
        return jnp.sum(self.k(x1, x2) ** 2)


def _squared_norm(where: str, matrix: Matrix, key, probes: int) -> Estimate:
    """``||A||_F^2``."""
    A = matrix.operator
    if key is None and matrix.dense is not None:
        return Estimate(float(np.sum(matrix.dense**2)), 0.0)
    if key is None and hasattr(getattr(A, "products", None), "tile") and not hasattr(A.products.k, "all_pairs"):
        return Estimate(_squared_by_tiles(A), 0.0)
    if key is None:
        raise key_needed(where)
    z = matrix.signs(key, check_count(where, "probes", probes, 2))
    return averaged(np.sum(matrix.times(z) ** 2, axis=0))


def _squared_by_tiles(A: Any) -> float:
    """One product of the squared kernel with ones; the ridge changes the diagonal only."""
    own = A.products.diagonal
    with A.in_own_precision():
        square = None if own is None else jnp.sum(own.reshape(len(own), -1) ** 2, axis=1)
        products = dataclasses.replace(A.products, k=_Squared(A.products.k), diagonal=square)
        plain = dataclasses.replace(A, products=products, cells=((), ()), ridge=None)
        ones = jnp.ones(plain.in_structure().shape, plain.in_structure().dtype)
        total = float(np.sum(np.asarray(plain.mv(ones), np.float64)))
        if A.ridge is None:
            return total
        diagonal = np.asarray(A.diag, np.float64) - float(A.ridge)
        return total + float(np.sum(2 * float(A.ridge) * diagonal + float(A.ridge) ** 2))
