"""Minibatches: the covariance of outputs over the choice of batches, by a recursion that is closed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # shapes in signatures, for readers and type checkers: nothing is loaded
    from jaxtyping import Float

    from widelimit.dynamics._decay import Decay
    from widelimit.dynamics._problem import Problem

__all__ = ["batch_noise"]


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
