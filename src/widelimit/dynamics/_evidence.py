"""What the training points alone say of a Gaussian process: marginal likelihood and leave-one-out, in JAX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from widelimit._precision import enable_x64, is_traced
from widelimit.dynamics._problem import flattened
from widelimit.solve import checked_gram

if TYPE_CHECKING:  # shapes in signatures, for readers and type checkers: nothing is loaded
    from jaxtyping import Float
    from numpy.typing import ArrayLike

__all__ = ["LeaveOneOut", "leave_one_out", "log_marginal_likelihood"]


class LeaveOneOut(NamedTuple):
    """Each training point predicted from all others.

    mean: (n,) or (n, outputs); variance: (n,), of the target, so with the noise, or of kernels with blocks of outputs
    the covariance (n, outputs, outputs); log_likelihood: the sum over points (and outputs without blocks) of
    ``log N(Y_i; mean_i, variance_i)``.
    """

    mean: Float[Any, "n ..."]
    variance: Float[Any, "n ..."]
    log_likelihood: Float[Any, ""]


def log_marginal_likelihood(
    K: Float[ArrayLike, "n n ..."], Y: Float[ArrayLike, "n ..."], *, ridge: Any = 0.0, ridge_relative: bool = False
) -> Float[Any, ""]:
    """Log evidence of the targets under a Gaussian process with noise, differentiable by JAX.

        log N(Y; 0, A) = -1/2 tr(Y^T A^-1 Y) - outputs (1/2 log det A + n/2 log 2 pi),    A = K + ridge I.

    K: (n, n), the NNGP or any kernel.  Y: (n,) or (n, outputs), outputs independent; a K with blocks, (n, n, outputs,
    outputs), couples them, and is then the matrix of all n x outputs targets.  ridge: variance of the noise (times the
    mean of K's diagonal if `ridge_relative`).  All three may be traced: ``jax.jit(jax.grad(...))`` of a function that
    calls ``wl.gram`` is differentiated by the hyperparameters of the network.  NumPy in: a float, in float64; JAX in:
    JAX, in its precision.  Raises ValueError for shapes that do not fit and for an A that is not positive definite,
    for which traced values are nan instead.
    Source: Rasmussen & Williams 2006, eq. 2.30 and 5.9.
    """
    return _evaluated(_log_marginal_likelihood, K, Y, ridge, ridge_relative)


def leave_one_out(
    K: Float[ArrayLike, "n n ..."], Y: Float[ArrayLike, "n ..."], *, ridge: Any = 0.0, ridge_relative: bool = False
) -> LeaveOneOut:
    """Prediction of each training point from all the others, from one inverse.

        Y_i - mean_i = [A^-1 Y]_i / [A^-1]_ii,    variance_i = 1 / [A^-1]_ii,    A = K + ridge I,

    of all outputs of a point at once where K has blocks of outputs: [A^-1]_ii is then (outputs, outputs).
    Arguments, types and errors as in `log_marginal_likelihood`, and likewise differentiable.  The means are also those
    of kernel regression, and of networks trained for ever by gradient flow from ``f_0 = 0``, with K the NTK.
    Source: Rasmussen & Williams 2006, eq. 5.10-5.12.
    """
    return LeaveOneOut(*_evaluated(_leave_one_out, K, Y, ridge, ridge_relative))


def _factor(K, ridge, relative):
    ridge = ridge * jnp.mean(jnp.diagonal(K)) if relative else ridge
    return jnp.linalg.cholesky((K + K.T) / 2 + ridge * jnp.eye(len(K), dtype=K.dtype))


def _matrix(K):
    return flattened(K) if K.ndim == 4 else K


def _log_marginal_likelihood(K, Y, ridge, relative):
    K = _matrix(K)
    L, Y = _factor(K, ridge, relative), Y.reshape(len(K), -1)
    white = jax.scipy.linalg.solve_triangular(L, Y, lower=True)
    half_log_det = jnp.sum(jnp.log(jnp.diagonal(L)))
    return -jnp.sum(white**2) / 2 - Y.shape[1] * (half_log_det + len(K) / 2 * jnp.log(2 * jnp.pi))


def _leave_one_out(K, Y, ridge, relative):
    L = _factor(_matrix(K), ridge, relative)
    inverse = jax.scipy.linalg.cho_solve((L, True), jnp.eye(len(L), dtype=L.dtype))
    if K.ndim == 4:
        return _leave_out_blocks(inverse, Y)
    variance = 1 / jnp.diagonal(inverse)
    residual = (inverse @ Y).T * variance
    log_density = -(residual**2) / (2 * variance) - jnp.log(2 * jnp.pi * variance) / 2
    return Y - residual.T, variance, jnp.sum(log_density)


def _leave_out_blocks(inverse, Y):
    """As `_leave_one_out` does, of all outputs of a point: ``[A^-1]_ii`` is a block."""
    blocks = jnp.einsum("iaib->iab", inverse.reshape(*Y.shape, *Y.shape))
    covariance, weights = jnp.linalg.inv(blocks), (inverse @ Y.reshape(-1)).reshape(Y.shape)
    residual = jnp.einsum("iab,ib->ia", covariance, weights)
    log_det = -jnp.sum(jnp.linalg.slogdet(blocks)[1])  # of the covariances
    return Y - residual, covariance, -(jnp.sum(residual * weights) + log_det + Y.size * jnp.log(2 * jnp.pi)) / 2


def _evaluated(function, K, Y, ridge, relative) -> Any:
    """The function of JAX arrays as they are, and of others in float64; checked where values are known."""
    shape = np.shape(Y)
    fits = len(shape) in (1, 2) and np.shape(K) in (shape[:1] * 2, (*shape[:1] * 2, *shape[1:] * 2))
    if not fits:
        raise ValueError(
            "K must have shape (n, n) and Y (n,) or (n, outputs), or K with blocks (n, n, outputs, outputs) and Y "
            f"(n, outputs), not {np.shape(K)} and {shape}."
        )
    if any(map(is_traced, (K, Y, ridge))):
        return function(jnp.asarray(K), jnp.asarray(Y), ridge, relative)
    checked_gram(_matrix(np.asarray(K)))
    if not np.all(np.isfinite(np.asarray(Y, np.float64))):
        raise ValueError("Y holds NaN or infinity.")
    if not np.isfinite(ridge) or ridge < 0:
        raise ValueError(f"ridge must be a finite number >= 0, not {ridge!r}.")
    if isinstance(K, jax.Array) or isinstance(Y, jax.Array):
        out = function(jnp.asarray(K), jnp.asarray(Y), ridge, relative)
    else:
        with enable_x64():
            out = function(jnp.asarray(K, jnp.float64), jnp.asarray(Y, jnp.float64), ridge, relative)
            out = jax.tree.map(np.asarray, out)
            out = float(out) if isinstance(out, np.ndarray) else out
    if not all(np.all(np.isfinite(a)) for a in jax.tree.leaves(out)):
        raise ValueError(
            "K + ridge I is not positive definite, so it has no likelihood. Remedies: remove duplicate inputs, use "
            "float64, or give a larger ridge."
        )
    return out
