"""Claims 3, 5, 5b, 7 and 8: networks of growing width trained by full-batch gradient descent."""

from __future__ import annotations

from typing import Any

import numpy as np

from widelimit import dynamics
from widelimit.lab._context import Context
from widelimit.lab._finite import Rule, Trained
from widelimit.lab.experiments._base import Experiment


def _rms(a: np.ndarray) -> np.ndarray:
    """Root mean square over the points, at each time."""
    return np.sqrt(np.mean(a**2, axis=-1))


def _closed(y: np.ndarray, K: np.ndarray, run: Trained, times: np.ndarray) -> np.ndarray:
    """Outputs (T, P) of gradient descent with the fixed kernel K (P, n), from the network's own initial
    outputs.
    """
    n = len(y)
    # A kernel computed in float32 is symmetric to rounding only.
    predict = dynamics.steps(0.5 * (K[:n] + K[:n].T), y, learning_rate=float(run.learning_rate), f0=run.f0[:n])
    return np.asarray(predict(times, K, run.f0))


def run(context: Context) -> dict[str, Any]:
    """Per width and seed: drift, distance to the linearised network and to the limit, movement, features,
    losses.

    The learning rate is ``1/lambda_max`` of each network's own kernel at initialisation.
    """
    n = context.task.n
    times = context.times(context.sizes.steps)
    limit = context.ntk
    return {
        "times": times,
        "y": context.task.y,
        "y_test": context.task.y_test,
        "limit": limit[:n, :n],
        "modes": _modes(context),
        "widths": context.map(lambda width: _one_width(context, width, times, limit[:, :n]), context.widths),
    }


def _modes(context: Context) -> dict[str, Any]:
    """Residuals of one wide network along the eigenvectors of its own K_0, at a rate low enough to follow the
    flow.
    """
    steps, width = 4 * context.sizes.steps, context.widths[-1]
    times, n = context.times(steps), context.task.n
    r = context.train(width, context.seed("modes"), times, Rule(rate=0.2))
    values, U = np.linalg.eigh(r.K0[:n])
    return {
        "width": width,
        "times": times,
        "learning_rate": r.learning_rate,
        "eigenvalues": values[::-1],
        "residual": ((context.task.y - r.record.f[:, :n]) @ U)[:, ::-1],
    }


def _one_width(context: Context, width: int, times: np.ndarray, limit: np.ndarray) -> dict[str, Any]:
    n, y = context.task.n, context.task.y
    seen = slice(0, context.task.test.stop)
    runs = [
        context.train(width, context.seed("training", width, i), times, Rule(), operators=True)
        for i in range(context.settings.seeds_at(width))
    ]
    far = [_closed(y, limit, r, times) for r in runs]
    first = runs[0]
    norm = np.array([np.linalg.norm(r.size) for r in runs])
    moved = np.array([np.linalg.norm(r.record.change, axis=1) for r in runs])  # (seeds, T)
    loss = [0.5 * ((r.record.f[:, :n] - y) ** 2).sum(1) for r in runs]
    return {
        "width": width,
        "drift": [r.record.drift.max() for r in runs],
        "drift_curve": np.mean([r.record.drift for r in runs], axis=0),
        "linear_gap": [_rms((r.record.f - r.record.f_linear)[:, seen]).max() for r in runs],
        "limit_gap": [_rms((r.record.f - f)[:, seen]).max() for r, f in zip(runs, far, strict=True)],
        "change": [r.record.change[-1] for r in runs],
        "size": [r.size for r in runs],
        "change_operator": [r.change_operator for r in runs],
        "size_operator": [r.size_operator for r in runs],
        "moved": moved[:, -1],
        "moved_relative_curve": np.mean(moved / norm[:, None], axis=0),
        "norm": norm,
        "features": [r.record.features[-1] for r in runs],
        "loss_curve": np.mean(loss, axis=0),
        # One network in full, for the figures.
        "f": first.record.f[:, seen],
        "f_linear": first.record.f_linear[:, seen],
        "f_closed": _closed(y, first.K0, first, times)[:, seen],
        "f_limit": far[0][:, seen],
        "K0": first.K0[:n],
        "KT": first.record.K[-1],
        "learning_rate": first.learning_rate,
    }


EXPERIMENT = Experiment("training", "Training networks of growing width", run, (15, 40, 600))
