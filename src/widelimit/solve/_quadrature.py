"""Stochastic Lanczos quadrature: sums over eigenvalues, log-determinant and spectral density without the matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from widelimit.solve._estimate import Estimate, Matrix, averaged, check_count
from widelimit.solve._operator import optional

if TYPE_CHECKING:
    from jaxtyping import Float

__all__ = ["Quadrature", "SpectralDensity", "log_determinant", "quadrature", "spectral_density"]


class Quadrature(NamedTuple):
    """Nodes and weights (probes, steps) with ``tr f(A) ~ mean over probes of size sum_j weights_j f(nodes_j)``.

    half: the same from half the steps.
    """

    nodes: Float[np.ndarray, "probes steps"]
    weights: Float[np.ndarray, "probes steps"]
    size: int
    half: Any = None

    def sums(self, function: Callable) -> tuple[np.ndarray, np.ndarray]:
        """``tr f(A)`` as each probe has it, (probes,), and from half the steps."""
        half = self if self.half is None else self.half
        return self._sums(function), half._sums(function)

    def _sums(self, function):
        # where the Krylov space is exhausted, nodes have weight 0, and f need not be defined
        values = np.where(self.weights > 0, function(np.where(self.weights > 0, self.nodes, 1.0)), 0.0)
        return self.size * np.sum(self.weights * values, axis=1)


def quadrature(matrix: Matrix, key: Any, probes: int, steps: int) -> Quadrature:
    """By Lanczos from random signs, with full reorthogonalisation."""
    optional(matrix.where, "matfree")
    probes = check_count(matrix.where, "probes", probes, 2)
    steps = min(check_count(matrix.where, "steps", steps), matrix.size)
    tridiagonalised = optional(matrix.where, "widelimit.solve._lineax").tridiagonalised
    V = matrix.signs(key, probes).T
    with matrix.precision():
        T = tridiagonalised(matrix.operator, jnp.asarray(V, matrix.dtype), steps, matrix.shares_work)
    T = np.asarray(T, np.float64)
    eps = float(np.finfo(matrix.dtype).eps)
    whole, part = ([_rule(t[:s, :s], eps) for t in T] for s in (steps, max(1, steps // 2)))
    return Quadrature(*_stacked(whole), matrix.size, Quadrature(*_stacked(part), matrix.size))


def _stacked(rules) -> tuple[np.ndarray, np.ndarray]:
    return np.stack([nodes for nodes, _ in rules]), np.stack([weights for _, weights in rules])


def _rule(T: np.ndarray, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """Gauss' nodes and weights of a tridiagonal matrix, up to where the Krylov space is exhausted."""
    size, off = len(T), np.append(np.diagonal(T, -1), 0.0)
    scale = np.max(np.abs(np.diagonal(T)), where=np.isfinite(np.diagonal(T)), initial=0.0)
    ends = np.flatnonzero(~(off > 10 * eps * scale))  # rounding, zero or not a number: what follows is noise
    end = int(ends[0]) + 1
    diagonal, off = np.diagonal(T)[:end], off[: end - 1]
    lam, S = np.linalg.eigh(np.diag(diagonal) + np.diag(off, 1) + np.diag(off, -1))
    pad = (0, size - end)
    return np.pad(lam, pad), np.pad(S[0] ** 2, pad)


def log_determinant(A: Any, *, key: Any, ridge: float = 0.0, probes: int = 32, steps: int = 40) -> Estimate:
    """Log-determinant of a positive definite matrix that is not held, ``log det(A + ridge I) = tr log(A + ridge I)``.

    By stochastic Lanczos quadrature: `steps` steps of Lanczos from each of `probes` random vectors of signs.  With
    ``lineax.linear_solve`` for the quadratic term it gives the log marginal likelihood of a Gaussian process.
    A: as in `operator_trace`, symmetric.  key: of `jax.random`.
    Returns an `Estimate`; its `truncation` tells whether there are enough steps, of which badly conditioned matrices
    need more (about the root of the condition number).  Raises ValueError for an A that is not positive definite where
    that shows.  Source: Ubaru, Chen & Saad 2017.
    """
    if not np.isfinite(ridge) or ridge < 0:
        raise ValueError(f"log_determinant: ridge must be a finite number >= 0, not {ridge!r}.")
    found = quadrature(Matrix("log_determinant", A), key, probes, steps)
    smallest = float(np.min(np.where(found.weights > 0, found.nodes, np.inf))) + ridge
    if smallest <= 0:
        raise ValueError(
            f"log_determinant: A + ridge I has an eigenvalue of at most {smallest:.3g}, so it is not positive "
            "definite. Remedy: a larger ridge."
        )
    return averaged(*found.sums(lambda lam: np.log(lam + ridge)))


class SpectralDensity(NamedTuple):
    """Density of eigenvalues, smoothed: ``density(s) = 1/size sum_i N(s; s(lambda_i), bandwidth^2)``.

    grid: (points,) eigenvalues; density: per unit of the eigenvalue, or of its natural logarithm if `log`;
    standard_error: of each, over probes; bandwidth: in the same unit.
    """

    grid: Float[np.ndarray, " points"]
    density: Float[np.ndarray, " points"]
    standard_error: Float[np.ndarray, " points"]
    bandwidth: float
    log: bool
    quadrature: Quadrature

    def sum(self, function: Callable) -> Estimate:
        """``sum_i f(lambda_i) = tr f(A)`` for a NumPy function of eigenvalues."""
        return averaged(*self.quadrature.sums(function))


def spectral_density(
    A: Any,
    *,
    key: Any,
    grid: Any = None,
    bandwidth: float | None = None,
    log: bool = False,
    probes: int = 32,
    steps: int = 40,
) -> SpectralDensity:
    """Density of the eigenvalues of a symmetric matrix that is not held, by stochastic Lanczos quadrature.

    ``1/n tr delta(s - A) ~ mean_z sum_j tau_j^2 N(s; theta_j, bandwidth^2)``

    with the Ritz values theta of `steps` steps of Lanczos from random signs z and the first entries tau of their
    vectors.  A: as in `operator_trace`, symmetric.  key: of `jax.random`.  grid: eigenvalues at which the density is
    wanted (None: 200 over the Ritz values).  log: of the logarithm of eigenvalues, those above rounding: spectra of
    kernels fall over decades.  bandwidth: of the Gaussian, in the unit of the density (None: 1/50 of the range).
    Returns a `SpectralDensity`, whose ``sum(f)`` is ``tr f(A)`` for any f.  Products: `steps` times; memory: that of
    `steps` times `probes` vectors (of one probe for empirical NTKs).
    Raises ValueError for a grid that is not increasing or a bandwidth <= 0.
    Source: Lin, Saad & Yang 2016; Ghorbani, Krishnan & Xiao 2019.
    """
    matrix = Matrix("spectral_density", A)
    found = quadrature(matrix, key, probes, steps)
    least = matrix.size * float(np.finfo(matrix.dtype).eps) * np.abs(found.nodes).max() if log else -np.inf
    counts = (found.weights > 0) & (found.nodes > least)  # those at rounding level have no logarithm
    if not counts.any():
        raise ValueError("spectral_density: A has no positive eigenvalues. Remedy: log=False.")
    place = np.log if log else np.asarray
    if grid is None:
        low, high = (float(f(place(found.nodes[counts]))) for f in (np.min, np.max))
        margin = 0.1 * (high - low) or 0.5 * max(abs(low), 1.0)
        points = np.linspace(low - margin, high + margin, 200)
        grid = np.exp(points) if log else points
    grid = np.asarray(grid, np.float64)
    if grid.ndim != 1 or len(grid) < 1 or np.any(np.diff(grid) <= 0) or (log and grid[0] <= 0):
        raise ValueError("spectral_density: grid must be increasing numbers, positive ones with log=True.")
    points = place(grid)
    width = (points[-1] - points[0]) / 50 if bandwidth is None else float(bandwidth)
    if not width > 0:
        raise ValueError(f"spectral_density: bandwidth must be a number > 0, not {bandwidth!r}.")
    at = place(np.where(counts, found.nodes, 1.0))
    weights = np.where(counts, found.weights, 0.0)
    each = np.stack([_smoothed(points, a, w, width) for a, w in zip(at, weights, strict=True)])
    error = each.std(0, ddof=1) / len(each) ** 0.5
    return SpectralDensity(grid, each.mean(0), error, width, log, found)


def _smoothed(points, at, weights, width):
    return np.exp(-((points[:, None] - at) ** 2) / (2 * width**2)) @ weights / (width * (2 * np.pi) ** 0.5)
