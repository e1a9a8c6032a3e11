"""Minibatches: the covariance of outputs over the choice of batches, by a recursion that is closed; and single runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # shapes in signatures, for readers and type checkers: nothing is loaded
    from jaxtyping import Float

    from widelimit.dynamics._decay import Decay
    from widelimit.dynamics._problem import Problem

__all__ = ["batch_noise", "batch_runs"]

_NUMBERS_AT_ONCE = 2**22  # of the rows of K that the batches of several runs pick


def batch_noise(
    problem: Problem, decay: Decay, ridge: float, batch: int, counts: list[int]
) -> dict[int, Float[np.ndarray, "C N N"]]:
    """Covariance of alpha (of each column) after each of the numbers of steps.

    With ``x = (alpha, u)``, u the last move, ``e = f - Y`` and P diagonal, n / batch for examples in the batch,

        u' = m u - c (P e + ridge alpha),    alpha' = alpha + u',
        Sigma' = F Sigma F^T + c^2 (W - 1) * E[e e^T]   in all four blocks,    W_ij = E[P_i P_j],

    where F is the step of full-batch descent: only second moments of e enter, so that nothing is approximated.
    """
    K, R = np.asarray(problem.K, np.float64), problem.residual()
    N, c, m = len(K), decay.rate, decay.momentum
    excess = _excess(problem, batch)
    down = -c * (K + ridge * np.eye(N))
    F = np.block([[np.eye(N) + down, m * np.eye(N)], [down, m * np.eye(N)]]) if m else np.eye(N) + down
    h = np.zeros_like(R) if problem.radial is None else problem.radial
    alpha, u, w, w_move = np.zeros_like(R), np.zeros_like(R), 1.0, 0.0
    sigma = np.zeros((R.shape[1], len(F), len(F)))
    out = {}
    for k in range(max(counts, default=0) + 1):
        if k in counts:
            out[k] = sigma[:, :N, :N].copy()
        e = K @ alpha + (w - 1) * h - R
        moment = K @ sigma[:, :N, :N] @ K.T + e.T[:, :, None] * e.T[:, None, :]
        noise = c**2 * excess * moment
        sigma = F @ sigma @ F.T + (np.tile(noise, (1, 2, 2)) if m else noise)
        u, w_move = m * u - c * (e + ridge * alpha), m * w_move - c * ridge * w
        alpha, w = alpha + u, w + w_move
    return out


def _excess(problem: Problem, batch: int) -> Float[np.ndarray, "N N"]:
    """``W - 1`` for batches of distinct examples, drawn anew at each step."""
    n = problem.n
    W = np.full((n, n), n * (batch - 1) / (batch * max(n - 1, 1)))
    np.fill_diagonal(W, n / batch)
    return np.kron(W - 1, np.ones((problem.outputs, problem.outputs))) if problem.blocks else W - 1


def batch_runs(
    problem: Problem, decay: Decay, ridge: float, batch: int, counts: list[int], draws: int, seed: int, epochs: bool
) -> dict[int, Float[np.ndarray, "draws N C"]]:
    """alpha of runs that are independent but for their start, after each of the numbers of steps.

    As in `batch_noise`, with P of the batches that were drawn.
    """
    K, R = np.asarray(problem.K, np.float64), problem.residual()
    c, m, O = decay.rate, decay.momentum, problem.outputs if problem.blocks else 1
    h = np.zeros_like(R) if problem.radial is None else problem.radial
    alpha, u = np.zeros((draws, *R.shape)), np.zeros((draws, *R.shape))
    w, w_move, out = 1.0, 0.0, {}
    batches = _batches(np.random.default_rng(seed), problem.n, batch, draws, epochs)
    for k in range(max(counts, default=0) + 1):
        if k in counts:
            out[k] = alpha.copy()
        points = next(batches)
        rows = (points[:, :, None] * O + np.arange(O)).reshape(draws, -1)
        u = m * u - c * ridge * alpha
        some = max(1, _NUMBERS_AT_ONCE // (rows.shape[1] * len(K)))
        for i in range(0, draws, some):
            picked, which = rows[i : i + some], np.arange(i, min(i + some, draws))[:, None]
            e = K[picked] @ alpha[i : i + some] + ((w - 1) * h - R)[picked]
            u[which, picked] -= c * problem.n / points.shape[1] * e
        alpha = alpha + u
        w_move = m * w_move - c * ridge * w
        w = w + w_move
    return out


def _batches(rng, n: int, batch: int, draws: int, epochs: bool) -> Iterator[np.ndarray]:
    """Points (draws, size) of one batch after the other; the last of an epoch may be smaller."""
    everything = np.tile(np.arange(n), (draws, 1))
    while True:
        order = rng.permuted(everything, axis=1)
        for i in range(0, n if epochs else 1, batch):
            yield order[:, i : i + batch]
