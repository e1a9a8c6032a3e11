"""Gradient descent on the squared loss with a constant kernel: solved in closed form, at any time."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from widelimit.solve import Spectrum, spectrum

if TYPE_CHECKING:  # shapes in signatures, for readers and type checkers: nothing is loaded
    from jaxtyping import Float
    from numpy.typing import ArrayLike

__all__ = ["Flow", "Steps", "flow", "max_learning_rate", "ridge_of", "steps"]


def _targets(Y, n: int, name: str = "Y") -> tuple[np.ndarray, bool]:
    Y = np.asarray(Y, np.float64)
    if Y.ndim not in (1, 2) or len(Y) != n:
        raise ValueError(f"{name} must have shape ({n},) or ({n}, outputs) to go with K, and has {Y.shape}.")
    if not np.all(np.isfinite(Y)):
        raise ValueError(f"{name} holds NaN or infinity.")
    return (Y[:, None], True) if Y.ndim == 1 else (Y, False)


def ridge_of(K: Float[ArrayLike, "n n"], ridge: float, relative: bool) -> float:
    """The ridge in K's units: as given, or times the mean of K's diagonal."""
    if not np.isfinite(ridge) or ridge < 0:
        raise ValueError(f"ridge must be a finite number >= 0, not {ridge!r}.")
    return float(ridge * np.mean(np.diag(np.asarray(K, np.float64)))) if relative else float(ridge)


def rate_of(loss: str, learning_rate: float, size: int) -> float:
    """Factor of K in ``df/dt``: the learning rate, divided by the number of targets for the mean loss."""
    if loss not in ("sum", "mean"):
        raise ValueError(f'loss must be "sum" (1/2 sum of squares) or "mean" (1/2 mean of squares), not {loss!r}.')
    if not np.isfinite(learning_rate) or learning_rate <= 0:
        raise ValueError(f"learning_rate must be a positive number, not {learning_rate!r}.")
    return learning_rate / (size if loss == "mean" else 1)


class Flow:
    """Outputs at time t of a network trained by gradient flow; made by `flow`.

    ``F(t)``: training outputs, shape of Y (with a leading axis for an array of times); ``F(t, K_test, f0_test)``: test
    outputs from ``K_test = Theta(x, X)`` (m, n) and the initial test outputs (None: 0).
    """

    def __init__(self, K, Y, loss, learning_rate, ridge, ridge_relative, f0):
        self._as_jax = isinstance(K, jax.Array) or isinstance(Y, jax.Array)
        n = np.shape(K)[0] if np.ndim(K) else 0
        self.ridge = ridge_of(K, ridge, ridge_relative) if np.ndim(K) == 2 else 0.0
        self.spectrum: Spectrum = spectrum(K, ridge=self.ridge)
        self.Y, self._squeeze = _targets(Y, n)
        self.f0 = np.zeros_like(self.Y) if f0 is None else _targets(f0, n, "f0")[0]
        if self.f0.shape != self.Y.shape:
            raise ValueError(f"f0 must have the shape of Y, {self.Y.shape}, and has {self.f0.shape}.")
        self.rate = rate_of(loss, learning_rate, self.Y.size)

    def _decay(self, lam, t):
        # 1 - e^(-rate lam t)
        return -np.expm1(-self.rate * lam * t)

    def gain(self, lam: Float[np.ndarray, " n"], t: float) -> Float[np.ndarray, " n"]:
        """``(1 - e^(-eta lam t)) / lam``; at lam = 0 its limit ``eta t``, and 0 at infinite time (pseudo-inverse)."""
        positive = lam > 0
        safe = np.where(positive, lam, 1.0)
        if np.isinf(t):
            return np.where(positive, 1 / safe, 0.0)
        return np.where(positive, self._decay(safe, t) / safe, self.rate * t)

    def __call__(
        self,
        t: Float[ArrayLike, "*times"],
        K_test: Float[ArrayLike, "m n"] | None = None,
        f0_test: Float[ArrayLike, "m ..."] | None = None,
    ) -> Float[Any, "*times_points_outputs"]:
        """Outputs at the times t; ValueError for t below 0, and for shapes that do not go with K and Y."""
        times = np.asarray(t, np.float64)
        if np.isnan(times).any() or (times < 0).any():
            raise ValueError("t must be >= 0 (infinity is allowed).")
        if K_test is None:
            if f0_test is not None:
                raise ValueError("f0_test is given without K_test.")
            outs = [self._train(float(s)) for s in times.ravel()]
        else:
            K_test, f0_test = self._test_inputs(K_test, f0_test)
            outs = [self._test(float(s), K_test, f0_test) for s in times.ravel()]
        out = np.stack(outs).reshape(times.shape + outs[0].shape) if outs else np.zeros((0, *self.Y.shape))
        out = out[..., 0] if self._squeeze else out
        return jnp.asarray(out) if self._as_jax else out

    def _train(self, t):
        residual = self.Y - self.f0
        return self.f0 + self.spectrum.apply(lambda lam: np.maximum(lam - self.ridge, 0) * self.gain(lam, t), residual)

    def _test(self, t, K_test, f0_test):
        return f0_test + K_test @ self.spectrum.apply(lambda lam: self.gain(lam, t), self.Y - self.f0)

    def _test_inputs(self, K_test, f0_test):
        K_test = np.asarray(K_test, np.float64)
        n = len(self.Y)
        if K_test.ndim != 2 or K_test.shape[1] != n:
            raise ValueError(
                f"K_test must have shape (m, {n}), test points by training points, and has {K_test.shape}."
            )
        if not np.all(np.isfinite(K_test)):
            raise ValueError("K_test holds NaN or infinity.")
        if f0_test is None:
            return K_test, np.zeros((len(K_test), self.Y.shape[1]))
        return K_test, _targets(f0_test, len(K_test), "f0_test")[0]


class Steps(Flow):
    """Outputs after k steps of gradient descent; made by `steps`.  As `Flow`, with the number of steps for t."""

    def _decay(self, lam, t):
        # 1 - (1 - rate lam)^t, also for rate lam > 1
        step = self.rate * lam
        small = step < 1
        with np.errstate(over="ignore"):
            return np.where(small, -np.expm1(t * np.log1p(-np.where(small, step, 0.0))), 1 - (1 - step) ** int(t))

    def gain(self, lam, t):
        """``(1 - (1 - eta lam)^t) / lam``; infinite t needs ``eta lam_max < 2``."""
        if np.isinf(t):
            if self.rate * lam.max() >= 2:
                raise ValueError(
                    "an infinite number of steps diverges: the learning rate is above 2 / lambda_max; "
                    "see wl.max_learning_rate."
                )
        elif t != int(t):
            raise ValueError(f"the number of steps must be an integer, not {t!r}.")
        return super().gain(lam, t)


def flow(
    K: Float[ArrayLike, "n n"],
    Y: Float[ArrayLike, "n ..."],
    *,
    loss: Literal["sum", "mean"] = "sum",
    learning_rate: float = 1.0,
    ridge: float = 0.0,
    ridge_relative: bool = False,
    f0: Float[ArrayLike, "n ..."] | None = None,
) -> Flow:
    """Gradient flow of the squared loss with a constant kernel, solved.

    ``df/dt = -eta K (f - Y)``, so that with ``f_0`` the initial outputs

        f_t(x) = f_0(x) + Theta(x, X) (Theta + ridge I)^-1 (I - e^(-eta (Theta + ridge I) t)) (Y - f_0(X)).

    K: (n, n) NTK of the training points (per output).  Y: (n,) or (n, outputs).  loss: "sum" is ``1/2 sum (f - Y)^2``,
    "mean" half the mean over all n x outputs entries (then eta is divided by their number).  ridge: weight decay
    towards the initial parameters, ``ridge/2 |theta - theta_0|^2`` in the units of K (times the mean of K's diagonal
    if `ridge_relative`).  f0: (n, outputs) initial outputs; None: 0.

    Returns F with ``F(t)`` and ``F(t, K_test, f0_test)``, t from 0 to infinity; see `Flow`.  Float64 inside; NumPy or
    JAX out as K and Y are.  A singular K gives a SingularGramWarning and the pseudo-inverse limit.  Raises ValueError
    for shapes that do not fit, NaN, an asymmetric K.  Source: Jacot et al. 2018, section 5; Lee et al. 2019, eq. 8-11.
    """
    return Flow(K, Y, loss, learning_rate, ridge, ridge_relative, f0)


def steps(
    K: Float[ArrayLike, "n n"],
    Y: Float[ArrayLike, "n ..."],
    *,
    loss: Literal["sum", "mean"] = "sum",
    learning_rate: float = 1.0,
    ridge: float = 0.0,
    ridge_relative: bool = False,
    f0: Float[ArrayLike, "n ..."] | None = None,
) -> Steps:
    """Gradient descent in steps of size eta with a constant kernel: ``f_k = Y + (I - eta K)^k (f_0 - Y)`` for ridge 0.

    Arguments as in `flow`; F(k) after k steps, exactly what gradient descent of the linearised network gives.  Warns
    where ``eta lambda_max > 2``, for the iteration then grows without bound (the values returned are still its own).
    Raises ValueError as `flow`, and from F for a number of steps that is no integer.
    """
    out = Steps(K, Y, loss, learning_rate, ridge, ridge_relative, f0)
    top = out.rate * out.spectrum.lam[-1]
    if top > 2:
        warnings.warn(
            f"learning_rate x lambda_max = {top:.3g} > 2: gradient descent of the linearised network diverges; stay "
            f"below {learning_rate * 2 / top:.3g} (wl.max_learning_rate).",
            RuntimeWarning,
            stacklevel=2,
        )
    return out


def max_learning_rate(
    K: Float[ArrayLike, "n n"], *, loss: Literal["sum", "mean"] = "sum", outputs: int = 1, momentum: float = 0.0
) -> float:
    """Largest stable learning rate of gradient descent with a constant kernel, ``2 (1 + momentum) / lambda_max``.

    loss and number of outputs as in `flow` (the mean loss allows n x outputs times more); momentum in [0, 1), heavy
    ball.  K: (n, n).  Infinity for K = 0.  Raises ValueError for a K that is no Gram matrix, a momentum outside [0, 1).
    Source: Lee et al. 2019, section 2.2; Polyak 1964.
    """
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must lie in [0, 1), not {momentum!r}.")
    found = spectrum(K, warn=False)
    top = found.lam[-1]
    if top <= 0:
        return float("inf")
    return float(2 * (1 + momentum) / (top * rate_of(loss, 1.0, len(found.lam) * outputs)))
