"""Squared loss: training solved mode by mode, or by matrix exponentials and powers where the kernel is not symmetric.

Every solution here and in `_integrate` is of one form.  Parameters stay in the span of the training gradients and
theta_0, ``theta_t - theta_0 = J(X)^T alpha_t + beta_t theta_0``, so that for any x

    f_t(x) = f_0(x) + Theta(x, X) alpha_t + beta_t h(x),    h(x) = df/dtheta theta_0,

with beta = 0 unless the parameters decay to zero.  A solution gives coordinates p of alpha in a basis of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from widelimit.dynamics._decay import Decay

if TYPE_CHECKING:  # shapes in signatures, for readers and type checkers: nothing is loaded
    from jaxtyping import Float

    from widelimit.solve import Spectrum

__all__ = ["ByExponential", "ByMode", "Solution", "product", "scale_of_start"]


class Solution(Protocol):
    """Coordinates p (times, q, C) of alpha, and what they stand for."""

    def coordinates(self, times: tuple[float, ...]) -> Float[np.ndarray, "times q C"]:
        """p at the times."""
        ...

    def alpha(self, p: Float[np.ndarray, "times q C"]) -> Float[np.ndarray, "times N C"]:
        """alpha of coordinates p."""
        ...

    def on_train(self, p: Float[np.ndarray, "times q C"]) -> Float[np.ndarray, "times N C"]:
        """``Theta(X, X) alpha``, with less rounding than by multiplying alpha."""
        ...


def product(A: Float[np.ndarray, "m n"], p: Float[np.ndarray, "times n C"]) -> Float[np.ndarray, "times m C"]:
    """``A p`` for all times in one product of matrices."""
    return np.moveaxis(np.tensordot(A, p, axes=(1, 1)), 0, 1)


def scale_of_start(decay: Decay, ridge: float, t: float) -> float:
    """``1 + beta_t``: what is left of theta_0 at t under decay to zero."""
    return float(decay.residual(np.array([ridge]), t)[0])


class ByMode:
    """In the eigenvectors of K, with x = s + ridge for an eigenvalue s and ``R = Y - f_0``,

    ``p = G_x (R + h) - (C_ridge - C_x) / s h``  (h = 0 for decay to theta_0).
    """

    def __init__(self, spectrum: Spectrum, decay: Decay, ridge: float, R: np.ndarray, h: np.ndarray | None):
        self._lam = np.where(spectrum.kept, spectrum.lam, 0.0)
        self._s = np.maximum(self._lam - ridge, 0.0)
        self._V = spectrum.V
        self._decay, self._ridge = decay, ridge
        self._R = spectrum.V.T @ (R if h is None else R + h)
        self._h = None if h is None else spectrum.V.T @ h

    def coordinates(self, times):
        """p at the times."""
        out = np.empty((len(times), *self._R.shape))
        for i, t in enumerate(times):
            out[i] = self._decay.gain(self._lam, t)[:, None] * self._R
            if self._h is not None:
                out[i] -= self._decay.difference(self._ridge, self._s, t)[:, None] * self._h
        return out

    def alpha(self, p):
        """alpha of coordinates p."""
        return product(self._V, p)

    def on_train(self, p):
        """``Theta(X, X) alpha``."""
        return product(self._V, self._s[:, None] * p)


class ByExponential:
    """For a K that is not symmetric: ``x' = M x`` of (alpha, its velocity, sources), by ``expm(M t)`` or ``M^k``."""

    def __init__(self, K: np.ndarray, decay: Decay, ridge: float, R: np.ndarray, h: np.ndarray | None):
        self._K, self._decay, self._ridge = K, decay, ridge
        self._A = K + ridge * np.eye(len(K))
        self._source = R if h is None else R + h
        self._h = np.zeros_like(R) if h is None else h

    def _generator(self):
        """M on the columns (alpha, alpha', w I, w' I, I): alpha'' = -friction alpha' - c (A alpha - source + w h)."""
        N, C = self._source.shape
        c, m, r = self._decay.rate, self._decay.momentum, self._ridge
        keep = m if self._decay.discrete else m - 1  # of the velocity
        one, zero = np.eye(C), np.zeros((C, C))
        if m == 0:
            M = np.block(
                [
                    [-c * self._A, -c * self._h, c * self._source],
                    [np.zeros((C, N)), -c * r * one, zero],
                    [np.zeros((C, N)), zero, zero],
                ]
            )
            return M + np.eye(len(M)) if self._decay.discrete else M
        # a step moves alpha by the new velocity, a flow by the present one
        force = np.hstack([-c * self._A, keep * np.eye(N), -c * self._h, np.zeros((N, C)), c * self._source])
        start = np.hstack([np.zeros((C, 2 * N)), -c * r * one, keep * one, zero])
        rest = np.zeros((C, 2 * N + 3 * C))
        if not self._decay.discrete:
            moved, w = np.zeros_like(force), np.zeros_like(start)
            moved[:, N : 2 * N], w[:, 2 * N + C : 2 * N + 2 * C] = np.eye(N), one
            return np.vstack([moved, force, w, start, rest])
        moved, w = force.copy(), start.copy()
        moved[:, :N] += np.eye(N)
        w[:, 2 * N : 2 * N + C] += one
        rest[:, -C:] = one
        return np.vstack([moved, force, w, start, rest])

    def coordinates(self, times):
        """alpha at the times."""
        import scipy.linalg  # here: `import widelimit` must stay quick

        N, C = self._source.shape
        M = self._generator()
        start = np.zeros((len(M), C))
        start[-C:] = np.eye(C)
        w_row = N if self._decay.momentum == 0 else 2 * N
        start[w_row : w_row + C] = np.eye(C)
        out = np.empty((len(times), N, C))
        for i, t in enumerate(times):
            if np.isinf(t):
                out[i] = self._rest(scipy.linalg.eigvals(self._A))
            elif self._decay.discrete:
                out[i] = (np.linalg.matrix_power(M, int(t)) @ start)[:N]
            else:
                out[i] = (scipy.linalg.expm(M * t) @ start)[:N]
        return out

    def alpha(self, p):
        """alpha, which is its own coordinates."""
        return p

    def on_train(self, p):
        """``Theta(X, X) alpha``."""
        return product(self._K, p)

    def _rest(self, lam):
        """alpha at infinite time, where every mode decays."""
        c, m = self._decay.rate, self._decay.momentum
        if self._decay.discrete:
            b = 1 + m - c * lam  # z^2 - b z + m = 0
            root = np.sqrt(b**2 - 4 * m + 0j)
            largest = np.maximum(np.abs(b + root), np.abs(b - root)).max() / 2
            decays = largest < 1
        elif m:
            decays = np.real(-(1 - m) + np.sqrt((1 - m) ** 2 - 4 * c * lam + 0j)).max() < 0
        else:
            decays = np.real(lam).min() > 0
        if not decays:
            raise ValueError(
                "t is infinite, and training with this K that is not symmetric has no limit: an eigenvalue of K + "
                "ridge I lies where training diverges or stands still. Remedy: a finite t, a ridge, or fewer eta."
            )
        return np.linalg.solve(self._A, self._source - (self._h if self._ridge == 0 else 0.0))
