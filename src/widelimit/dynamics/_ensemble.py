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
    """Mean (m,) or (m, outputs), and covariance (m, m), the same for each output."""

    mean: Float[Any, "m ..."]
    covariance: Float[Any, "m m"]


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
    nngp_test_test: Float[ArrayLike, "m m"],
    loss: Literal["sum", "mean"] = "sum",
    learning_rate: float = 1.0,
    ridge: float = 0.0,
    ridge_relative: bool = False,
) -> GaussianProcess:
    """Law over initialisations of the outputs of wide networks trained by gradient flow for a time t.

    With ``A_t = Theta(x, X) (Theta + ridge I)^-1 (I - e^(-eta (Theta + ridge I) t))``,

        mean = A_t Y,    covariance = K_xx + A_t K_XX A_t^T - (A_t K_Xx + K_xX A_t^T).

    ntk, nngp: (n, n) of the training points; ntk_test, nngp_test: (m, n) test by training; nngp_test_test: (m, m).
    t in [0, infinity]; other arguments as in `flow`.  Passing the NNGP for the NTK gives networks of which only the
    last layer is trained.  Raises ValueError for shapes that do not fit, NaN or infinity.  Source: Lee et al. 2019,
    eq. 14-16.
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
        nngp_test_test=(nngp_test_test, (m, m)),
        ntk_test=(ntk_test, (m, n)),
    )
    (K,) = _blocks(n, m, nngp=(nngp, (n, n)))
    assert F.spectrum is not None  # as K is symmetric
    A = F.spectrum.apply(lambda lam: F.gain(lam, float(t)), Theta.T).T
    mean = A @ np.asarray(Y, np.float64)
    cross = A @ K_xX.T
    covariance = K_xx + A @ K @ A.T - (cross + cross.T)
    return _packed(mean, covariance, ntk, Y)


def posterior(
    nngp: Float[ArrayLike, "n n"],
    Y: Float[ArrayLike, "n ..."],
    *,
    nngp_test: Float[ArrayLike, "m n"],
    nngp_test_test: Float[ArrayLike, "m m"],
    ridge: float = 0.0,
    ridge_relative: bool = False,
) -> GaussianProcess:
    """Bayesian posterior of a Gaussian process, for the NNGP (the fully Bayesian wide network) or any kernel.

        mean = K_xX (K + ridge I)^-1 Y,    covariance = K_xx - K_xX (K + ridge I)^-1 K_Xx.

    ridge: the variance of the noise on the targets (times the mean of K's diagonal if `ridge_relative`); the covariance
    is that of the noise-free function.  nngp: (n, n); Y: (n,) or (n, outputs); nngp_test: (m, n), test by training;
    nngp_test_test: (m, m).  Raises ValueError for shapes that do not fit, NaN or infinity; a SingularGramWarning as in
    `flow`.  Source: Rasmussen & Williams 2006, eq. 2.23-2.24; Lee et al. 2018, eq. 9.
    """
    found = spectrum(nngp, name="nngp", ridge=ridge_of(nngp, ridge, ridge_relative))
    n, m = len(found.lam), np.shape(nngp_test)[0]
    K_xX, K_xx = _blocks(n, m, nngp_test=(nngp_test, (m, n)), nngp_test_test=(nngp_test_test, (m, m)))
    Y_array = np.asarray(Y, np.float64)
    if Y_array.ndim not in (1, 2) or len(Y_array) != n:
        raise ValueError(f"Y must have shape ({n},) or ({n}, outputs), and has {Y_array.shape}.")

    def inverse(lam):
        return np.where(lam > 0, 1 / np.where(lam > 0, lam, 1), 0)

    A = found.apply(inverse, K_xX.T).T
    return _packed(A @ Y_array, K_xx - A @ K_xX.T, nngp, Y)


def _packed(mean, covariance, *sources):
    covariance = (covariance + covariance.T) / 2
    if any(isinstance(s, jax.Array) for s in sources):
        return GaussianProcess(jnp.asarray(mean), jnp.asarray(covariance))
    return GaussianProcess(mean, covariance)
