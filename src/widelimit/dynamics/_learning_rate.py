"""Where gradient descent is stable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from widelimit.dynamics._losses import CURVATURE
from widelimit.dynamics._problem import rate_of
from widelimit.solve import spectrum

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
) -> float:
    """Largest stable learning rate of gradient descent, ``2 (1 + momentum) / (curvature lambda_max + ridge)``.

    loss and number of outputs as in `flow` (the mean loss allows n x outputs times more); momentum in [0, 1), heavy
    ball.  curvature: the largest of the loss of one example, 1 for the squared ones, for which larger rates diverge;
    1/2 for "cross_entropy" and 1/4 for "logistic", for which no smaller rate diverges, and most larger ones do not
    once examples are fitted.  K: (n, n).  Infinity for K = 0.  Raises ValueError for a K that is no Gram matrix, a
    momentum outside [0, 1), a loss without a known curvature.  Source: Lee et al. 2019, section 2.2; Polyak 1964;
    Boehning 1992 (curvature of log softmax).
    """
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must lie in [0, 1), not {momentum!r}.")
    if not ridge >= 0:
        raise ValueError(f"ridge must be a number >= 0, not {ridge!r}.")
    if not isinstance(loss, str) or loss not in CURVATURE:
        raise ValueError(f"loss must be one of {', '.join(CURVATURE)}, not {loss!r}; give a function's by hand.")
    found = spectrum(K, warn=False)
    top = CURVATURE[loss] * found.lam[-1] + ridge
    if top <= 0:
        return float("inf")
    return float(2 * (1 + momentum) / (top * rate_of(loss, 1.0, len(found.lam) * outputs)))
