"""Gaussian processes: networks at random initialisation, trained for a time t; and the Bayesian posterior."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from widelimit.dynamics import _flow
from widelimit.dynamics._losses import SQUARED
from widelimit.dynamics._problem import finite, flattened, ridge_of
from widelimit.solve import spectrum

if TYPE_CHECKING:  # shapes in signatures, for readers and type checkers: nothing is loaded
    from jaxtyping import Float
    from numpy.typing import ArrayLike

__all__ = ["GaussianProcess", "ntk_ensemble", "posterior"]


class GaussianProcess(NamedTuple):
    """Mean (m,) or (m, outputs), and covariance.

    covariance: (m, m), the same for each output and none between them, or (m, m, outputs, outputs) from kernels with
    blocks of outputs; at each point alone, if that was asked, (m,) or (m, outputs, outputs).
    """

    mean: Float[Any, "m ..."]
    covariance: Float[Any, "m ..."]

    @property
    def variance(self) -> Float[Any, "m ..."]:
        """Variance of each point's output, (m,), or (m, outputs) where outputs differ."""
        out = self.covariance
        if out.ndim in (2, 4):
            out = out.diagonal() if out.ndim == 2 else out.diagonal().transpose(2, 0, 1)
        return out if out.ndim == 1 else out.diagonal(axis1=1, axis2=2)


def ntk_ensemble(
    t: float,
    ntk: Float[ArrayLike, "n n ..."],
    nngp: Float[ArrayLike, "n n ..."],
    Y: Float[ArrayLike, "n ..."],
    *,
    ntk_test: Float[ArrayLike, "m n ..."],
    nngp_test: Float[ArrayLike, "m n ..."],
    nngp_test_test: Float[ArrayLike, "m ..."],
    loss: Literal["sum", "mean"] = "sum",
    learning_rate: float = 1.0,
    momentum: float = 0.0,
    ridge: float = 0.0,
    ridge_relative: bool = False,
    steps: bool = False,
) -> GaussianProcess:
    """Law over initialisations of the outputs of wide networks trained for a time t, by gradient flow or in steps.

    With ``A_t = Theta(x, X) (Theta + ridge I)^-1 (I - C_t)``, C_t = ``e^(-eta (Theta + ridge I) t)`` for gradient flow,

        mean = A_t Y,    covariance = K_xx + A_t K_XX A_t^T - (A_t K_Xx + K_xX A_t^T).

    ntk, nngp: (n, n) of the training points; ntk_test, nngp_test: (m, n) test by training; nngp_test_test: (m, m), or
    its diagonal (m,) for variances alone.  The ntk's, the nngp's or both may have blocks of outputs, (n, n, outputs,
    outputs), the others being shared by outputs with nothing between them; at each point alone (m, outputs, outputs).
    t in [0, infinity]; steps: True for t steps of gradient descent; momentum and other arguments as in `flow` and
    `steps`.  Passing the NNGP for the NTK gives networks of which only the last layer is trained.  Raises ValueError
    for shapes that do not fit, NaN or infinity, and losses other than the squared one.
    Source: Lee et al. 2019, eq. 14-16.
    """
    if loss not in SQUARED:
        raise ValueError(
            'ntk_ensemble is of the squared loss, "sum" or "mean": with another loss the law is not Gaussian. '
            "Remedy: draw f0 from the NNGP and use wl.flow or wl.steps for each draw."
        )
    train = _flow.steps if steps else _flow.flow
    F = train(
        ntk, Y, loss=loss, learning_rate=learning_rate, momentum=momentum, ridge=ridge, ridge_relative=ridge_relative
    )
    assert F.spectrum is not None  # as K is symmetric
    n, m, targets = np.shape(ntk)[0], np.shape(ntk_test)[0], np.asarray(Y, np.float64)
    outputs = targets.size // n
    within, between = (outputs if np.ndim(k) == 4 else None for k in (ntk, nngp))
    Theta = _matrix(ntk_test, "ntk_test", m, n, within)
    A = F.spectrum.apply(lambda lam: F.gain(lam, float(t)), Theta.T).T
    mean = (A @ targets.reshape(A.shape[1], -1)).reshape(m, *targets.shape[1:])
    K, K_xX = _matrix(nngp, "nngp", n, n, between), _matrix(nngp_test, "nngp_test", m, n, between)
    alone = np.ndim(nngp_test_test) in (1, 3)
    K_xx = _matrix(nngp_test_test, "nngp_test_test", m, None if alone else m, between)
    if within is None and between is None:
        return _packed(mean, _trained(A, K, K_xX, K_xx), ntk, Y)
    A = A if within is not None else np.kron(A, np.eye(outputs))
    if between is None:
        K, K_xX = (np.kron(k, np.eye(outputs)) for k in (K, K_xX))
        K_xx = K_xx[:, None, None] * np.eye(outputs) if alone else np.kron(K_xx, np.eye(outputs))
    return _packed(mean, _in_blocks(_trained(A, K, K_xX, K_xx), outputs, targets), ntk, Y)


def posterior(
    nngp: Float[ArrayLike, "n n ..."],
    Y: Float[ArrayLike, "n ..."],
    *,
    nngp_test: Float[ArrayLike, "m n ..."],
    nngp_test_test: Float[ArrayLike, "m ..."],
    ridge: float = 0.0,
    ridge_relative: bool = False,
) -> GaussianProcess:
    """Bayesian posterior of a Gaussian process, for the NNGP (the fully Bayesian wide network) or any kernel.

        mean = K_xX (K + ridge I)^-1 Y,    covariance = K_xx - K_xX (K + ridge I)^-1 K_Xx.

    ridge: the variance of the noise on the targets (times the mean of K's diagonal if `ridge_relative`); the covariance
    is that of the noise-free function.  nngp: (n, n); Y: (n,) or (n, outputs); nngp_test: (m, n), test by training;
    nngp_test_test: (m, m), or its diagonal (m,) for variances alone.  Kernels with blocks of outputs, (n, n, outputs,
    outputs), (m, n, outputs, outputs) and (m, m, outputs, outputs) or (m, outputs, outputs), couple the outputs.  With
    the NTK in place of the NNGP this is the NTK-GP (the law of networks that learn their distance from a random
    function too), with ``K = phi phi^T`` Bayesian ridge regression on features phi.  Raises ValueError for shapes that
    do not fit, NaN or infinity; a SingularGramWarning as in `flow`.  Source: Rasmussen & Williams 2006, eq. 2.23-2.24;
    Lee et al. 2018, eq. 9; He et al. 2020 (NTK-GP).
    """
    if np.ndim(nngp) not in (2, 4):
        raise ValueError(f"nngp must have shape (n, n) or (n, n, outputs, outputs), not {np.shape(nngp)}.")
    blocks = np.ndim(nngp) == 4
    if blocks and (np.shape(nngp)[0] != np.shape(nngp)[1] or np.shape(nngp)[2] != np.shape(nngp)[3]):
        raise ValueError(f"nngp with blocks of outputs must have shape (n, n, outputs, outputs), not {np.shape(nngp)}.")
    n, m, targets = np.shape(nngp)[0], len(np.atleast_1d(nngp_test)), finite(Y, "Y")
    outputs = np.shape(nngp)[2] if blocks else None
    if not blocks and (targets.ndim not in (1, 2) or len(targets) != n):
        raise ValueError(f"Y must have shape ({n},) or ({n}, outputs), and has {targets.shape}.")
    if blocks and targets.shape not in ((n, outputs), *([(n,)] if outputs == 1 else [])):
        raise ValueError(f"Y must have shape ({n}, {outputs}), as nngp has blocks, and has {targets.shape}.")
    K = nngp if outputs is None else flattened(np.asarray(nngp))  # in its precision
    found = spectrum(K, name="nngp", ridge=ridge_of(K, ridge, ridge_relative))
    K_xX = _matrix(nngp_test, "nngp_test", m, n, outputs)
    alone = np.ndim(nngp_test_test) == (3 if blocks else 1)
    K_xx = _matrix(nngp_test_test, "nngp_test_test", m, None if alone else m, outputs)

    def inverse(lam):
        return np.where(lam > 0, 1 / np.where(lam > 0, lam, 1), 0)

    A = found.apply(inverse, K_xX.T).T
    mean = A @ (targets.reshape(-1) if blocks else targets)
    covariance = _symmetric(K_xx - _product(A, K_xX, K_xx))
    if blocks:
        mean, covariance = mean.reshape(m, *targets.shape[1:]), _in_blocks(covariance, outputs, targets)
    return _packed(mean, covariance, nngp, Y)


def _matrix(kernel, name, rows, columns, outputs) -> np.ndarray:
    """A kernel as a matrix over points, or over points and outputs; of each point alone where `columns` is None."""
    shape = (rows,) if columns is None else (rows, columns)
    shape = shape if outputs is None else (*shape, outputs, outputs)
    kernel = finite(kernel, name)
    if kernel.shape != shape:
        blocks = "" if outputs is None else f", with blocks of {outputs} outputs"
        raise ValueError(f"{name} must have shape {shape}{blocks}, not {kernel.shape}.")
    return flattened(kernel) if kernel.ndim == 4 else kernel


def _in_blocks(covariance, outputs, targets):
    """Of points times outputs as (m, m, outputs, outputs); of points alone as it is; no blocks for targets (n,)."""
    if covariance.ndim == 2:
        covariance = covariance.reshape(-1, outputs, covariance.shape[0] // outputs, outputs).swapaxes(1, 2)
    return covariance[..., 0, 0] if targets.ndim == 1 else covariance


def _trained(A, K, K_xX, K_xx) -> np.ndarray:
    """``K_xx + A K A^T - (A K_Xx + K_xX A^T)``, a matrix or of each point alone as K_xx is."""
    return _symmetric(K_xx + _product(A @ K, A, K_xx) - 2 * _symmetric(_product(A, K_xX, K_xx)))


def _product(A, B, like):
    """``A B^T``, or of each point alone where `like` is (m,) or has blocks (m, outputs, outputs)."""
    if like.ndim == 2:
        return A @ B.T
    A, B = (M.reshape(len(like), -1, M.shape[1]) for M in (A, B))
    out = np.einsum("ian,ibn->iab", A, B, optimize=True)
    return out if like.ndim == 3 else out[:, 0, 0]


def _symmetric(covariance):
    return covariance if covariance.ndim == 1 else (covariance + covariance.swapaxes(-1, -2)) / 2


def _packed(mean, covariance, *sources):
    if any(isinstance(s, jax.Array) for s in sources):
        return GaussianProcess(jnp.asarray(mean), jnp.asarray(covariance))
    return GaussianProcess(mean, covariance)
