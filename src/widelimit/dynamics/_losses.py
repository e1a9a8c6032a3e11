"""Losses of one example: squared, cross-entropy, logistic, or any function that JAX can differentiate."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from widelimit._extrema import by_place
from widelimit._precision import enable_x64

if TYPE_CHECKING:  # shapes in signatures, for readers and type checkers: nothing is loaded
    from jaxtyping import Float

__all__ = ["CURVATURE", "SQUARED", "TotalLoss", "check_loss", "checked_targets", "loss_of_example"]

SQUARED = ("sum", "mean")


def _squared(f, y):
    return 0.5 * jnp.sum((f - y) ** 2)


def _cross_entropy(f, y):
    total = jax.scipy.special.logsumexp(f)
    return total - f[y] if jnp.ndim(y) == 0 else jnp.sum(y) * total - jnp.sum(y * f)


def _logistic(f, y):
    return jnp.sum(jnp.logaddexp(0.0, -y * f))


_NAMED: dict[str, Callable] = {
    "sum": _squared,
    "mean": _squared,
    "cross_entropy": _cross_entropy,
    "logistic": _logistic,
}
# Largest curvature of the loss of one example: of log softmax the variance of a class of probability 1/2 (two of them).
CURVATURE = {"sum": 1.0, "mean": 1.0, "cross_entropy": 0.5, "logistic": 0.25}


def loss_of_example(loss: Any) -> Callable:
    """``loss(output, target)`` of one example; ValueError as in `check_loss`."""
    check_loss(loss)
    return loss if callable(loss) else _NAMED[loss]


def check_loss(loss: Any) -> None:
    """ValueError for what is neither the name of a loss nor a function."""
    if not callable(loss) and loss not in _NAMED:
        raise ValueError(
            'loss must be "sum" (1/2 sum of squares), "mean" (1/2 mean of squares), "cross_entropy", "logistic", or a '
            f"function loss(output, target) of one example, not {loss!r}."
        )


def checked_targets(loss: Any, Y: Any, n: int, name: str = "Y") -> np.ndarray:
    """The targets as the loss takes them, (n, ...), or a ValueError that says what the loss wants."""
    Y = np.asarray(Y)
    if loss == "cross_entropy" and Y.ndim == 1:
        if len(Y) != n:
            raise ValueError(f"{name} must have shape ({n},) or ({n}, outputs) to go with K, and has {Y.shape}.")
        if not np.issubdtype(Y.dtype, np.integer) or Y.min() < 0:
            raise ValueError(
                f'{name} of loss="cross_entropy" must be class numbers, integers from 0, of shape ({n},), or '
                f"probabilities of shape ({n}, outputs); it has shape {Y.shape} and type {Y.dtype}."
            )
        return Y
    if callable(loss):
        if Y.ndim == 0 or len(Y) != n:
            raise ValueError(f"{name} must have {n} rows to go with K, and has shape {Y.shape}.")
        if not np.issubdtype(Y.dtype, np.floating):
            return Y
    Y = Y.astype(np.float64)
    if not callable(loss) and (Y.ndim not in (1, 2) or len(Y) != n):
        raise ValueError(f"{name} must have shape ({n},) or ({n}, outputs) to go with K, and has {Y.shape}.")
    if not np.all(np.isfinite(Y)):
        raise ValueError(f"{name} holds NaN or infinity.")
    if loss == "logistic" and not np.all(np.abs(Y) == 1):
        raise ValueError(f'{name} of loss="logistic" must be -1 or +1 (for labels 0 and 1 give 2 * {name} - 1).')
    if loss == "cross_entropy" and Y.min() < 0:
        raise ValueError(f'{name} of loss="cross_entropy" must be probabilities, and holds numbers below 0.')
    return Y


class TotalLoss:
    """``L(f) = sum_i loss(f_i, y_i)`` of outputs (n, O), with its gradient (n, O) and Hessian blocks (n, O, O).

    scalar: whether the loss is given the one output as a number.  For "mean" the value is half the mean, and the
    gradient still that of half the sum: the learning rate is divided instead.
    """

    def __init__(self, loss: Any, targets: np.ndarray, outputs: int, scalar: bool):
        function = by_place(loss_of_example(loss))

        def one(f, y):
            return function(f[0] if scalar else f, y)

        self._mean = loss == "mean"
        with enable_x64():
            self._targets = jnp.asarray(targets)
            f = jax.ShapeDtypeStruct((outputs,), jnp.float64)
            try:
                shape = jax.eval_shape(one, f, self._targets[0]).shape
            except Exception as error:
                raise ValueError(
                    f"loss(output, target) failed for one example, an output of shape {() if scalar else (outputs,)} "
                    f"and a target of shape {targets.shape[1:]}: {error}. Remedy: outputs have the shape of f0 (of Y "
                    "where f0 is not given)."
                ) from error
            if shape != ():
                raise ValueError(f"loss(output, target) must return one number for one example, not shape {shape}.")
            self._value = jax.jit(lambda f: jnp.sum(jnp.asarray(jax.vmap(one)(f, self._targets))))
            self._hessian = jax.jit(lambda f: jax.vmap(jax.hessian(one))(f, self._targets))
        # to be called while JAX traces, in 64 bits
        self.traced_gradient = lambda f: jax.vmap(jax.grad(one))(f, self._targets)
        self._gradient = jax.jit(self.traced_gradient)

    def value(self, f: Float[np.ndarray, "n O"]) -> float:
        """``L(f)``."""
        with enable_x64():
            return float(self._value(f)) / (f.size if self._mean else 1)

    def gradient(self, f: Float[np.ndarray, "n O"]) -> Float[np.ndarray, "n O"]:
        """``dL/df``."""
        with enable_x64():
            return np.asarray(self._gradient(f))

    def hessian(self, f: Float[np.ndarray, "n O"]) -> Float[np.ndarray, "n O O"]:
        """``d^2 L / df_ia df_ib``; outputs of different examples do not interact."""
        with enable_x64():
            return np.asarray(self._hessian(f))
