"""The small problem on which the claims are judged: a few training points with one target, and where to
look.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from widelimit.lab._data import Dataset
from widelimit.lab._errors import DataError

TRAINING = 16
HELD_OUT = 16
PATH = 33


class Task(NamedTuple):
    """Rows of ``X``: ``n`` training points (sorted by target), then the held-out points, then a path.

    y (n,), y_test: targets, -1 and +1 for classes, standardised numbers for regression.  sign (n,): targets
    for the logistic loss.  angle (PATH,): position on the great circle through a training point of each end
    of the targets.
    """

    X: np.ndarray
    y: np.ndarray
    y_test: np.ndarray
    sign: np.ndarray
    angle: np.ndarray
    marks: tuple[float, float]
    note: str

    @property
    def n(self) -> int:
        return len(self.y)

    @property
    def train(self) -> np.ndarray:
        return self.X[: self.n]

    @property
    def test(self) -> slice:
        return slice(self.n, self.n + len(self.y_test))

    @property
    def path(self) -> slice:
        return slice(self.n + len(self.y_test), len(self.X))


def make_task(data: Dataset, seed: int) -> Task:
    """Choose the points: at random, half of each class, none of them (nearly) parallel to another."""
    target, sign, note = _one_target(data)
    rng = np.random.default_rng([seed, 11])
    chosen = _distinct(data.X, rng.permutation(data.n), sign, TRAINING + HELD_OUT)
    n = TRAINING if len(chosen) >= TRAINING + HELD_OUT else max(4, len(chosen) // 2)
    train, test = chosen[:n], chosen[n : n + HELD_OUT]
    if len(test) < 4:
        raise DataError(
            f"data {data.name!r}: only {len(chosen)} rows point in different directions; the lab needs at least 8."
        )
    if len(set(sign[train])) < 2:
        raise DataError(f"data {data.name!r}: the rows chosen for training all have the same target.")
    train = train[np.argsort(target[train], kind="stable")]
    path, angle, marks = _great_circle(data.X[train[0]], data.X[train[-1]])
    return Task(
        np.concatenate([data.X[train], data.X[test], path]),
        target[train],
        target[test],
        sign[train],
        angle,
        marks,
        note,
    )


def _one_target(data: Dataset) -> tuple[np.ndarray, np.ndarray, str]:
    if data.labels is None:
        y = data.Y[:, 0]
        sign = np.where(y > np.median(y), 1.0, -1.0)
        if len(set(sign)) < 2:  # more than half of the rows share the largest value
            sign = np.where(y >= y.max(), 1.0, -1.0)
        return y, sign, "the target, standardised (logistic loss: above the median +1, else -1)"
    assert data.classes is not None
    half = len(data.classes) // 2
    y = np.where(data.labels < half, -1.0, 1.0)
    low, high = ", ".join(data.classes[:half]), ", ".join(data.classes[half:])
    return y, y, f"one target: classes {low}: -1; classes {high}: +1"


def _distinct(X: np.ndarray, order: np.ndarray, sign: np.ndarray, wanted: int) -> np.ndarray:
    """Rows taken in turn from either sign, each with |cos| < 0.995 to those before it."""
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    queues = [list(order[sign[order] == s]) for s in (-1.0, 1.0)]
    chosen: list[int] = []
    turn = 0
    while len(chosen) < wanted and any(queues):
        queue = queues[turn % 2] or queues[(turn + 1) % 2]
        turn += 1
        row = queue.pop(0)
        if not chosen or np.abs(unit[chosen] @ unit[row]).max() < 0.995:
            chosen.append(int(row))
    return np.array(chosen)


def _great_circle(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """Points on the circle through a and b, from half an angle before a to half an angle after b."""
    radius = np.linalg.norm(a)
    u = a / radius
    v = b / np.linalg.norm(b) - u * (u @ b) / np.linalg.norm(b)
    between = float(np.arctan2(np.linalg.norm(v), u @ b / np.linalg.norm(b)))
    v = v / np.linalg.norm(v)
    angle = np.linspace(-0.5 * between, 1.5 * between, PATH)
    return radius * (np.cos(angle)[:, None] * u + np.sin(angle)[:, None] * v), angle, (0.0, between)
