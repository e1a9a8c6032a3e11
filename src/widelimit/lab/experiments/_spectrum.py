"""Figure F12: eigenvalues of the kernels, finite and infinite, and of the Laplace kernel for comparison."""

from __future__ import annotations

from typing import Any

import numpy as np

from widelimit.diagnostics import fit_points
from widelimit.lab import _limit
from widelimit.lab._context import Context
from widelimit.lab._finite import at_start
from widelimit.lab.experiments._base import Experiment

POINTS = 128


def _eigenvalues(K: np.ndarray) -> np.ndarray:
    """In decreasing order."""
    return np.linalg.eigvalsh(K)[::-1]


def run(context: Context) -> dict[str, Any]:
    """Eigenvalues and condition numbers; the exponent of lambda_i ~ i^-a in the middle of the spectrum."""
    rng = np.random.default_rng(context.seed("spectrum"))
    X = context.data.X[rng.permutation(context.data.n)[:POINTS]]
    nngp, ntk = _limit.limit_kernels(context.shape(4), X)
    # exp(-|x - x'| / |x|): the Laplace kernel, whose space of functions equals that of ReLU networks on a
    # sphere.
    radius = np.sqrt(X.shape[1])
    squares = np.maximum(2 * radius**2 - 2 * X @ X.T, 0.0)
    laplace = np.exp(-np.sqrt(squares) / radius)
    kernels = {"NTK": ntk, "NNGP": nngp, "Laplace": laplace}
    out: dict[str, Any] = {"points": len(X), "limits": {}, "widths": list(context.widths), "finite": []}
    out["finite_condition"] = []
    middle = slice(len(X) // 16, len(X) // 2)
    index = np.arange(1, len(X) + 1)
    for name, K in kernels.items():
        values = _eigenvalues(K)
        fit = fit_points(index[middle], np.maximum(values[middle], 1e-12))
        out["limits"][name] = {
            "eigenvalues": values,
            "condition": values[0] / values[-1] if values[-1] > 0 else None,
            "exponent": fit["slope"],
            "exponent_ci": fit["ci"],
        }

    def one_width(width: int) -> np.ndarray:
        draws = [at_start(context.shape(width), context.seed("spectrum", width, i), X).ntk for i in range(3)]
        return np.array([_eigenvalues(K) for K in draws])

    for values in context.map(one_width, context.widths):
        out["finite"].append(values[0])
        out["finite_condition"].append([v[0] / v[-1] if v[-1] > 0 else None for v in values])
    return out


EXPERIMENT = Experiment("spectrum", "Spectra of the kernels", run, (5, 6, 20))
