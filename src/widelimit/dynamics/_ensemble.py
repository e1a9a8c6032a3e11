"""Gaussian processes: networks at random initialisation, trained for a time t; and the Bayesian posterior."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from widelimit.dynamics._flow import flow
from widelimit.dynamics._losses import SQUARED
from widelimit.dynamics._problem import ridge_of
from widelimit.solve import spectrum

if TYPE_CHECKING:  # shapes in signatures, for readers and type checkers: nothing is loaded
    from jaxtyping import Float
    from numpy.typing import ArrayLike

__all__ = ["GaussianProcess", "ntk_ensemble", "posterior"]


class GaussianProcess(NamedTuple):
    """Mean (m,) or (m, outputs), and covariance (m, m), the same for each output, or its diagonal if that was asked."""

    mean: Float[Any, "m ..."]
    covariance: Float[Any, "m ..."]

    @property
    def variance(self) -> Float[Any, " m"]:
        """Variance of each point's output, (m,)."""
        return self.covariance if self.covariance.ndim == 1 else self.covariance.diagonal()


def _between_tests(nngp_test_test, m):
    """NNGP of the test points (m, m), or the variances (m,) that are all that is wanted."""
    shape = (m,) if np.ndim(nngp_test_test) == 1 else (m, m)
    return {"nngp_test_test": (nngp_test_test, shape)}


def _product(A, B, like):
    """``A B^T``, or its diagonal where the covariance is a vector of variances."""
    return np.einsum("ij,ij->i", A, B) if like.ndim == 1 else A @ B.T


def _blocks(n, m, **blocks):
    out = []
    for name, (value, shape) in blocks.items():
        value = np.asarray(value, np.float64)
        if value.shape != shape:
            raise ValueError(
                f"{name} must have shape {shape} (training points {n}, test points {m}), not {value.shape}."
            )
        if not np.all(np.isfinite(value)):
            raise ValueError(f"{name} holds NaN or infinity.")
        out.append(value)
    return out


def ntk_ensemble(
    t: float,
    ntk: Float[ArrayLike, "n n"],
    nngp: Float[ArrayLike, "n n"],
    Y: Float[ArrayLike, "n ..."],
    *,
    ntk_test: Float[ArrayLike, "m n"],
    nngp_test: Float[ArrayLike, "m n"],
    nngp_test_test: Float[ArrayLike, "m ..."],
    loss: Literal["sum", "mean"] = "sum",
    learning_rate: float = 1.0,
    ridge: float = 0.0,
    ridge_relative: bool = False,
) -> GaussianProcess:
    """Law over initialisations of the outputs of wide networks trained by gradient flow for a time t.

    With ``A_t = Theta(x, X) (Theta + ridge I)^-1 (I - e^(-eta (Theta + ridge I) t))``,

        mean = A_t Y,    covariance = K_xx + A_t K_XX A_t^T - (A_t K_Xx + K_xX A_t^T).

    ntk, nngp: (n, n) of the training points; ntk_test, nngp_test: (m, n) test by training; nngp_test_test: (m, m), or
    its diagonal (m,) for variances alone.  t in [0, infinity]; other arguments as in `flow`.  Passing the NNGP for the
    NTK gives networks of which only the last layer is trained.  Raises ValueError for shapes that do not fit, NaN or
    infinity, and losses other than the squared one.  Source: Lee et al. 2019, eq. 14-16.
    """
    if loss not in SQUARED or np.ndim(ntk) != 2:
        raise ValueError(
            'ntk_ensemble is of the squared loss, "sum" or "mean", and one (n, n) kernel for all outputs: with another '
            "loss the law is not Gaussian. Remedy: draw f0 from the NNGP and use wl.flow for each draw."
        )
    F = flow(ntk, Y, loss=loss, learning_rate=learning_rate, ridge=ridge, ridge_relative=ridge_relative)
    n, m = np.shape(ntk)[0], np.shape(ntk_test)[0]
    K_xX, K_xx, Theta = _blocks(
        n,
        m,
        nngp_test=(nngp_test, (m, n)),
        **_between_tests(nngp_test_test, m),
        ntk_test=(ntk_test, (m, n)),
    )
    (K,) = _blocks(n, m, nngp=(nngp, (n, n)))
    assert F.spectrum is not None  # as K is symmetric
    A = F.spectrum.apply(lambda lam: F.gain(lam, float(t)), Theta.T).T
    mean = A @ np.asarray(Y, np.float64)
    cross = _product(A, K_xX, K_xx)
    covariance = K_xx + _product(A @ K, A, K_xx) - (cross + cross.T)
    return _packed(mean, covariance, ntk, Y)


def posterior(
    nngp: Float[ArrayLike, "n n"],
    Y: Float[ArrayLike, "n ..."],
    *,
    nngp_test: Float[ArrayLike, "m n"],
    nngp_test_test: Float[ArrayLike, "m ..."],
    ridge: float = 0.0,
    ridge_relative: bool = False,
) -> GaussianProcess:
    """Bayesian posterior of a Gaussian process, for the NNGP (the fully Bayesian wide network) or any kernel.

        mean = K_xX (K + ridge I)^-1 Y,    covariance = K_xx - K_xX (K + ridge I)^-1 K_Xx.

    ridge: the variance of the noise on the targets (times the mean of K's diagonal if `ridge_relative`); the covariance
    is that of the noise-free function.  nngp: (n, n); Y: (n,) or (n, outputs); nngp_test: (m, n), test by training;
    nngp_test_test: (m, m), or its diagonal (m,) for variances alone.  With the NTK in place of the NNGP this is the
    NTK-GP (the law of networks that learn their distance from a random function too), with ``K = phi phi^T`` Bayesian
    ridge regression on features phi.  Raises ValueError for shapes that do not fit, NaN or infinity; a
    SingularGramWarning as in `flow`.  Source: Rasmussen & Williams 2006, eq. 2.23-2.24; Lee et al. 2018, eq. 9; He et
    al. 2020 (NTK-GP).
    """
    found = spectrum(nngp, name="nngp", ridge=ridge_of(nngp, ridge, ridge_relative))
    n, m = len(found.lam), np.shape(nngp_test)[0]
    K_xX, K_xx = _blocks(n, m, nngp_test=(nngp_test, (m, n)), **_between_tests(nngp_test_test, m))
    Y_array = np.asarray(Y, np.float64)
    if Y_array.ndim not in (1, 2) or len(Y_array) != n:
        raise ValueError(f"Y must have shape ({n},) or ({n}, outputs), and has {Y_array.shape}.")

    def inverse(lam):
        return np.where(lam > 0, 1 / np.where(lam > 0, lam, 1), 0)

    A = found.apply(inverse, K_xX.T).T
    return _packed(A @ Y_array, K_xx - _product(A, K_xX, K_xx), nngp, Y)


def _packed(mean, covariance, *sources):
    covariance = (covariance + covariance.T) / 2
    if any(isinstance(s, jax.Array) for s in sources):
        return GaussianProcess(jnp.asarray(mean), jnp.asarray(covariance))
    return GaussianProcess(mean, covariance)
