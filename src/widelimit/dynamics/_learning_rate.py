"""Where gradient descent is stable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from widelimit.dynamics._losses import CURVATURE
from widelimit.dynamics._problem import rate_of
from widelimit.solve import checked_gram, spectrum

if TYPE_CHECKING:  # shapes in signatures, for readers and type checkers: nothing is loaded
    from jaxtyping import Float
    from numpy.typing import ArrayLike

__all__ = ["max_learning_rate"]


def max_learning_rate(
    K: Float[ArrayLike, "n n"],
    *,
    loss: Literal["sum", "mean", "cross_entropy", "logistic"] = "sum",
    outputs: int = 1,
    momentum: float = 0.0,
    ridge: float = 0.0,
    symmetric: bool = True,
) -> float:
    """Largest stable learning rate of gradient descent, ``2 (1 + momentum) / (curvature lambda_max + ridge)``.

    loss and number of outputs as in `flow` (the mean loss allows n x outputs times more); momentum in [0, 1), heavy
    ball.  curvature: the largest of the loss of one example, 1 for the squared ones, for which larger rates diverge;
    1/2 for "cross_entropy" and 1/4 for "logistic", for which no smaller rate diverges, and most larger ones do not
    once examples are fitted.  K: (n, n); symmetric: False for one that is not, ``2 min Re(lam) / |lam|^2`` over its
    complex eigenvalues, 0 where one of them has a negative real part.  Infinity for K = 0.  Raises ValueError for a K
    that is no Gram matrix, a momentum outside [0, 1), a loss without a known curvature.  Source: Lee et al. 2019,
    section 2.2; Polyak 1964; Boehning 1992 (curvature of log softmax).
    """
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must lie in [0, 1), not {momentum!r}.")
    if not ridge >= 0:
        raise ValueError(f"ridge must be a number >= 0, not {ridge!r}.")
    if not isinstance(loss, str) or loss not in CURVATURE:
        raise ValueError(f"loss must be one of {', '.join(CURVATURE)}, not {loss!r}; give a function's by hand.")
    if not symmetric:
        if momentum or CURVATURE[loss] != 1:
            raise ValueError("a K that is not symmetric has a known bound for the squared loss without momentum only.")
        lam = np.linalg.eigvals(checked_gram(K, symmetric=False)) + ridge
        lam = lam[np.abs(lam) > 0]
        bound = np.maximum(2 * lam.real / np.abs(lam) ** 2, 0).min(initial=np.inf)
        return float(bound / rate_of(loss, 1.0, np.shape(K)[0] * outputs))
    found = spectrum(K, warn=False)
    top = CURVATURE[loss] * found.lam[-1] + ridge
    if top <= 0:
        return float("inf")
    return float(2 * (1 + momentum) / (top * rate_of(loss, 1.0, len(found.lam) * outputs)))
