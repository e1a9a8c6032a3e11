"""Claim 5c: the mean of many trained networks against the closed form, and the bands of both."""

from __future__ import annotations

from typing import Any

import numpy as np

from widelimit import dynamics
from widelimit.lab._context import Context
from widelimit.lab._finite import Rule
from widelimit.lab.experiments._base import Experiment

WIDE = 256
# A common rate for all networks: half of 1/lambda_max of the limit leaves room for the scatter of narrow
# kernels.
RATE = 0.5


def run(context: Context) -> dict[str, Any]:
    """Mean, scatter and closed form of the trained outputs at a few times; sizes of the bias at narrow
    widths.
    """
    task, n = context.task, context.task.n
    K = context.ntk[:, :n]
    eta = RATE / context.lambda_max
    times = context.times(context.sizes.steps)[[0, 8, 16, -1]]
    wide = min(WIDE, max(context.widths))
    count = context.sizes.ensemble
    plan = [(w, 2 * count) for w in context.sizes.narrow if w < wide] + [(wide, count)]
    closed = np.asarray(dynamics.steps(K[:n], task.y, learning_rate=eta)(times[-1], K))

    def one_width(job: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, int]:
        width, networks = job
        runs = [
            context.train(width, context.seed("ensemble", width, i), times, Rule(fixed=eta)) for i in range(networks)
        ]
        outputs = np.array([r.record.f for r in runs])
        starts = np.array([r.f0 for r in runs])
        good = np.isfinite(outputs).all((1, 2)) & (np.abs(outputs[:, -1, :n] - task.y).max(1) < 10.0)
        # The same initial outputs under the infinite kernel have the closed form as their exact mean: the
        # mean of the difference is the bias, with much less scatter than the outputs themselves.
        paired = _linear_end(K, task.y, eta, times[-1], starts)
        return outputs[good], (outputs[:, -1] - paired)[good], int((~good).sum())

    cells = context.map(one_width, plan)
    bias = [_bias(difference[:, task.test]) for _, difference, _ in cells]
    outputs, difference, _ = cells[-1]
    at_test = outputs[:, -1, task.test]
    return {
        "bias_widths": [width for width, _ in plan],
        "bias": [b for b, _ in bias],
        "bias_se": [se for _, se in bias],
        "failed": [failed for _, _, failed in cells],
        "width": wide,
        "networks": len(outputs),
        "z": _scores(at_test - closed[task.test]),
        "z_paired": _scores(difference[:, task.test]),
        "learning_rate": eta,
        "bands": _bands(context, outputs, times, eta),
    }


def _linear_end(K: np.ndarray, y: np.ndarray, eta: float, steps: int, f0: np.ndarray) -> np.ndarray:
    """Outputs (networks, P) of the infinite kernel from the initial outputs f0 (networks, P)."""
    n = len(y)
    Y = np.repeat(y[:, None], len(f0), axis=1)
    return np.asarray(dynamics.steps(K[:n], Y, learning_rate=eta, f0=f0.T[:n])(steps, K, f0.T)).T


def _scores(differences: np.ndarray) -> np.ndarray:
    """Mean over networks (first axis) in units of its standard error."""
    return differences.mean(0) / (differences.std(0, ddof=1) / np.sqrt(len(differences)))


def _bias(differences: np.ndarray) -> tuple[float, float]:
    """Root mean square over points of the mean difference, its sampling variance taken off; jackknife
    error.
    """

    def square(values: np.ndarray) -> float:
        return float(np.mean(values.mean(0) ** 2 - values.var(0, ddof=1) / len(values)))

    parts = np.array_split(np.arange(len(differences)), 10)
    squares = np.array([square(np.delete(differences, part, axis=0)) for part in parts])
    error = float(np.sqrt(np.sum((squares - squares.mean()) ** 2) * (len(parts) - 1) / len(parts)))
    bias = np.sqrt(max(square(differences), 0.0))
    return float(bias), error / (2 * float(bias)) if bias > 0 else float(np.sqrt(error))


def _bands(context: Context, outputs: np.ndarray, times: np.ndarray, eta: float) -> dict[str, Any]:
    """Means and standard deviations along the path: networks, NTK ensemble in closed form, NNGP posterior."""
    task, n = context.task, context.task.n
    nngp, ntk = context.limit
    path = task.path
    rows = []
    for t in [*map(float, times), np.inf]:
        law = dynamics.ntk_ensemble(
            eta * t,
            ntk[:n, :n],
            nngp[:n, :n],
            task.y,
            ntk_test=ntk[path, :n],
            nngp_test=nngp[path, :n],
            nngp_test_test=nngp[path, path],
        )
        mean, std = _band(law)
        row: dict[str, Any] = {"steps": t if np.isfinite(t) else None, "mean": mean, "std": std}
        if np.isfinite(t):
            f = outputs[:, list(times).index(int(t)), path]
            row |= {"networks_mean": f.mean(0), "networks_std": f.std(0, ddof=1)}
            row["inside"] = float(np.mean(np.abs(f - mean) < 2 * std + 1e-9))
        rows.append(row)
    posterior = dynamics.posterior(nngp[:n, :n], task.y, nngp_test=nngp[path, :n], nngp_test_test=nngp[path, path])
    mean, std = _band(posterior)
    return {"angle": task.angle, "marks": task.marks, "rows": rows, "nngp_mean": mean, "nngp_std": std}


def _band(law: dynamics.GaussianProcess) -> tuple[np.ndarray, np.ndarray]:
    return law.mean, np.sqrt(np.maximum(np.diag(law.covariance), 0.0))


EXPERIMENT = Experiment("ensemble", "Ensembles of trained networks", run, (12, 25, 400))
