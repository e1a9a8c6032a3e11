"""What is trained on what: kernel, targets and initial outputs, checked, and as matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from widelimit.dynamics._losses import check_loss, checked_targets
from widelimit.solve import checked_gram

if TYPE_CHECKING:  # shapes in signatures, for readers and type checkers: nothing is loaded
    from jaxtyping import Float
    from numpy.typing import ArrayLike

__all__ = ["Problem", "finite", "flattened", "prepare", "rate_of", "ridge_of"]


def finite(value: Any, name: str) -> np.ndarray:
    """In float64, or a ValueError for NaN and infinity."""
    value = np.asarray(value, np.float64)
    if not np.all(np.isfinite(value)):
        raise ValueError(f"{name} holds NaN or infinity.")
    return value


def ridge_of(K: Float[ArrayLike, "n n"], ridge: float, relative: bool) -> float:
    """The ridge in K's units: as given, or times the mean of K's diagonal."""
    if not np.isfinite(ridge) or ridge < 0:
        raise ValueError(f"ridge must be a finite number >= 0, not {ridge!r}.")
    return float(ridge * np.mean(np.diag(np.asarray(K, np.float64)))) if relative else float(ridge)


def rate_of(loss: Any, learning_rate: float, size: int) -> float:
    """Factor of K in ``df/dt``: the learning rate, divided by the number of targets for the mean loss."""
    if not np.isfinite(learning_rate) or learning_rate <= 0:
        raise ValueError(f"learning_rate must be a positive number, not {learning_rate!r}.")
    return learning_rate / (size if loss == "mean" else 1)


@dataclass(frozen=True)
class Problem:
    """Training set as matrices: K (N, N) on outputs (N, C).

    For a kernel shared by all outputs N = n and C = outputs; for one with output blocks N = n x outputs and C = 1.
    """

    K: Any
    targets: np.ndarray
    f0: Float[np.ndarray, "N C"]
    radial: Float[np.ndarray, "N C"] | None
    n: int
    outputs: int
    squeeze: bool
    blocks: bool
    as_jax: bool

    def rows(self, f: Float[np.ndarray, "*batch N C"]) -> Float[np.ndarray, "*batch points outputs"]:
        """Outputs (..., N, C) by points and outputs, which is how a loss sees them."""
        return f.reshape(*f.shape[:-2], -1, self.outputs) if self.blocks else f

    def columns(self, f: Float[np.ndarray, "points outputs"]) -> Float[np.ndarray, "N C"]:
        """Inverse of `rows`, for one array of outputs."""
        return f.reshape(-1, 1) if self.blocks else f

    def residual(self) -> Float[np.ndarray, "N C"]:
        """``Y - f_0``, of targets that are numbers."""
        return self.columns(self.targets.reshape(self.n, -1)) - self.f0

    def shaped(self, f: np.ndarray) -> np.ndarray:
        """Outputs (..., N, C) as the user counts them."""
        f = self.rows(f)
        return f[..., 0] if self.squeeze else f

    def test_kernel(self, K_test: Any) -> Float[np.ndarray, "M N"]:
        """``Theta(x, X)`` as a matrix, or a ValueError for a shape that does not go with K."""
        K_test = finite(K_test, "K_test")
        n, O = self.n, self.outputs
        if self.blocks:
            if K_test.ndim != 4 or K_test.shape[1:] != (n, O, O):
                raise ValueError(
                    f"K_test must have shape (m, {n}, {O}, {O}), test points by training points and blocks of outputs "
                    f"as K, and has {K_test.shape}."
                )
            return flattened(K_test)
        if K_test.ndim != 2 or K_test.shape[1] != n:
            raise ValueError(
                f"K_test must have shape (m, {n}), test points by training points, and has {K_test.shape}."
            )
        return K_test

    def test_outputs(self, value: Any, points: int, name: str) -> Float[np.ndarray, "M C"]:
        """Given outputs of test points as a matrix; None: 0."""
        if value is None:
            return self.columns(np.zeros((points, self.outputs)))
        return self.columns(_outputs(value, (points,) if self.squeeze else (points, self.outputs), name))


def flattened(K: Any) -> Any:
    """(n, m, O, O) as a matrix (n O, m O), the output running fastest."""
    return K.transpose(0, 2, 1, 3).reshape(K.shape[0] * K.shape[2], K.shape[1] * K.shape[3])


def _outputs(value, shape, name):
    value = finite(value, name)
    if value.shape != shape:
        like = "the shape of Y" if name == "f0" else "shape"
        raise ValueError(f"{name} must have {like}, {shape}, and has {value.shape}.")
    return value.reshape(len(value), -1)


def prepare(K, Y, *, loss, f0, radial, symmetric: bool) -> Problem:
    """Arguments of `flow` as a `Problem`; ValueError for what does not fit together."""
    check_loss(loss)
    as_jax = isinstance(K, jax.Array) or isinstance(Y, jax.Array)
    if not hasattr(K, "dtype"):
        K = np.asarray(K, np.float64)
    blocks = np.ndim(K) == 4
    if blocks:
        if K.shape[0] != K.shape[1] or K.shape[2] != K.shape[3]:
            raise ValueError(f"K with blocks of outputs must have shape (n, n, outputs, outputs), not {K.shape}.")
        n, O = K.shape[0], K.shape[2]
        K = flattened(K)
    else:
        n, O = (np.shape(K)[0] if np.ndim(K) else 0), None
    checked_gram(K, symmetric=symmetric)
    targets = checked_targets(loss, Y, n)
    if O is None and loss == "cross_entropy" and targets.ndim == 1:
        O = np.shape(f0)[1] if np.ndim(f0) == 2 else int(targets.max()) + 1  # type: ignore[arg-type]
    if loss == "cross_entropy" and targets.ndim == 1 and targets.max() >= (O or 0):
        raise ValueError(f"Y holds class {targets.max()}, and there are {O} outputs (classes are counted from 0).")
    shape = _output_shape(loss, targets, f0, n, O)
    zero = np.zeros((n, 1) if len(shape) == 1 else shape)
    start = zero if f0 is None else _outputs(f0, shape, "f0")
    along = None if radial is None else _outputs(radial, shape, "radial")
    if blocks:
        start, along = start.reshape(-1, 1), None if along is None else along.reshape(-1, 1)
    return Problem(K, targets, start, along, n, zero.shape[1], len(shape) == 1, blocks, as_jax)


def _output_shape(loss, targets, f0, n, O):
    if loss == "cross_entropy":
        shape = (n, O) if targets.ndim == 1 else targets.shape
    elif callable(loss) and f0 is not None:
        shape = np.shape(f0)
    else:
        shape = targets.shape
    if len(shape) not in (1, 2) or shape[0] != n:
        raise ValueError(f"outputs must have shape ({n},) or ({n}, outputs), not {shape}: give f0 of that shape.")
    if O is not None and (1 if len(shape) == 1 else shape[1]) != O:
        raise ValueError(f"K has blocks of {O} outputs, and the outputs have shape {shape}; they must agree.")
    return shape
