"""Expected test error of kernel regression against the number of examples, from the kernel's eigenvalues."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from widelimit.dynamics._problem import finite

if TYPE_CHECKING:  # shapes in signatures, for readers and type checkers: nothing is loaded
    from jaxtyping import Float
    from numpy.typing import ArrayLike

__all__ = ["LearningCurve", "learning_curve"]


class LearningCurve(NamedTuple):
    """Predictions for each number n of examples; all have n's shape, and learnability the modes behind it.

    kappa: effective ridge; learnability: how much of each mode is learnt, 0 to 1; overfitting: factor on the test error
    of noise and of what is not learnt; test_mse (with the noise of test targets) and train_mse; mode_mse: how much of
    the test error is in each mode (the noise is in none).
    """

    kappa: Float[np.ndarray, "*n"]
    learnability: Float[np.ndarray, "*n modes"]
    overfitting: Float[np.ndarray, "*n"]
    test_mse: Float[np.ndarray, "*n"]
    train_mse: Float[np.ndarray, "*n"]
    mode_mse: Float[np.ndarray, "*n modes"]


def learning_curve(
    n: Float[ArrayLike, "*n"],
    lam: Float[ArrayLike, " modes"],
    power: Float[ArrayLike, " modes"],
    *,
    ridge: float = 0.0,
    noise: float = 0.0,
    multiplicity: Float[ArrayLike, " modes"] | None = None,
) -> LearningCurve:
    """Expected errors of kernel regression on n random examples, for a target with known coefficients.

    With ``E_x[k(x, x') phi_i(x)] = lam_i phi_i(x')`` and the target ``sum_i v_i phi_i`` plus noise, kappa solves
    ``n = sum_i lam_i / (lam_i + kappa) + ridge / kappa``, and

        L_i = lam_i / (lam_i + kappa),    E_0 = n / (n - sum_i L_i^2),
        test_mse = E_0 (sum_i (1 - L_i)^2 v_i^2 + noise),    train_mse = (ridge / (n kappa))^2 test_mse.

    n: any shape, > 0.  lam: (modes,), >= 0.  power: (modes,), the v_i^2.  ridge: absolute, of ``K + ridge I``.  noise:
    variance.  multiplicity: how often each eigenvalue occurs (power is then the sum over its modes); None: once.  Of
    a Gram matrix of N points, ``lam = F.spectrum.lam / N`` and ``power = (F.spectrum.V.T @ y)^2 / N`` estimate those of
    the distribution, for n well below N.  The prediction is that of Gaussian features, to O(1/n); for real ones it was
    within some 8 % on a sphere in eight dimensions, but off by up to 40 % on a circle.
    Raises ValueError for negative or non-finite input, and for n without ridge at or above the number of modes (then
    all is learnt).  Source: Bordelon et al. 2020; Canatar et al. 2021; Simon et al. 2023, eq. 4-10.
    """
    lam, power, sizes = finite(lam, "lam"), finite(power, "power"), finite(n, "n")
    count = np.ones_like(lam) if multiplicity is None else finite(multiplicity, "multiplicity")
    for name, value in (("lam", lam), ("power", power), ("multiplicity", count)):
        if value.ndim != 1 or value.shape != lam.shape or (value < 0).any():
            raise ValueError(f"{name} must hold one number >= 0 for each of {lam.size} modes, and has {value.shape}.")
    for name, value in (("ridge", ridge), ("noise", noise)):
        if not np.isfinite(value) or value < 0:
            raise ValueError(f"{name} must be a finite number >= 0, not {value!r}.")
    modes = float(count[lam > 0].sum())
    if (sizes <= 0).any() or (ridge == 0 and (sizes >= modes).any()):
        raise ValueError(
            f"n must be > 0 and, without ridge, below the {modes:g} modes with lam > 0: give a ridge, or more modes."
        )
    if ridge == 0 and not lam.any():
        raise ValueError("lam must hold a number > 0.")
    kappa = np.array([_kappa(float(s), lam, count, ridge) for s in sizes.ravel()]).reshape(sizes.shape)
    L = lam / (lam + kappa[..., None])
    overfitting = sizes / (sizes - (count * L**2).sum(-1))
    mode_mse = overfitting[..., None] * (1 - L) ** 2 * power
    test_mse = mode_mse.sum(-1) + overfitting * noise
    return LearningCurve(kappa, L, overfitting, test_mse, (ridge / (sizes * kappa)) ** 2 * test_mse, mode_mse)


def _kappa(n, lam, count, ridge):
    from scipy.optimize import brentq  # here: `import widelimit` must stay quick

    def surplus(log_kappa):  # falls with kappa
        kappa = np.exp(log_kappa)
        return float((count * lam / (lam + kappa)).sum() + ridge / kappa - n)

    high = np.log((float((count * lam).sum()) + ridge) / n)  # where the sum is at most n
    low = high - 1.0
    while surplus(low) < 0:
        low -= 2 * (high - low)
    root: Any = brentq(surplus, low, high, xtol=1e-14)
    return float(np.exp(root))
