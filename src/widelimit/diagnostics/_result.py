"""The report as plain values."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from widelimit.diagnostics._plain import plain

if TYPE_CHECKING:  # shapes in signatures, for readers and type checkers: nothing is loaded
    from jaxtyping import Float

__all__ = ["Laziness"]


@dataclasses.dataclass(frozen=True)
class Laziness:
    """How lazy a network was in training; made by `laziness`, and printing it gives the report.

    verdict: "lazy", "in between", "rich", "catapult", "diverged" or "not trained"; sentence: the reason; advice: what
    would change it, and what that rests on; notes: what the figures leave out.
    times (T,): steps, the first 0.  Per example: loss, loss_linear of the linearisation trained by the same steps,
    and of test examples (None without them); accuracy likewise (None where targets are no classes).
    loss_peak: the largest at any step; loss_rise: the largest over the smallest before it.
    drift (T,): ``||K_t - K_0||_F / ||K_0||_F``.  movement (T,): ``||theta_t - theta_0||``, and relative to
    ``||theta_0||``.  gap (T,): rms of ``f_t - f_lin,t`` over examples and outputs, on training and test examples;
    change (T,): rms of ``f_t - f_0``.  alignment (T,): ``<K_t, Y Y^T> / (||K_t||_F ||Y Y^T||_F)``, and centred.
    effective_rank (T,): exponential of the entropy of the normalised eigenvalues.  lambda_max (T,): of the NTK on all
    training examples and outputs; sharpness (T,): of the same weighted by the curvature of the loss, so that
    ``learning_rate * sharpness < 2`` where gradient descent is stable.
    By parameter (dicts from names to (T,)): drift, movement, relative and in the operator norm (matrices), share of
    the kernel's trace, alignment; features: ``rms(h_t - h_0) / rms(h_0)`` of what the layer of that weight is given.
    hessian: ``||d^2 f / dtheta^2||_op`` of single outputs at the start; kappa: ``||sum_i r_i d^2 f_i||_op`` over the
    largest eigenvalue of the Gauss-Newton matrix there, r the slopes of the loss.
    """

    verdict: str
    sentence: str
    advice: tuple[str, ...]
    notes: tuple[str, ...]
    settings: dict[str, Any]
    times: Float[np.ndarray, " T"]
    loss: Float[np.ndarray, " T"]
    loss_linear: Float[np.ndarray, " T"]
    loss_test: Float[np.ndarray, " T"] | None
    loss_test_linear: Float[np.ndarray, " T"] | None
    accuracy: Float[np.ndarray, " T"] | None
    accuracy_linear: Float[np.ndarray, " T"] | None
    accuracy_test: Float[np.ndarray, " T"] | None
    accuracy_test_linear: Float[np.ndarray, " T"] | None
    loss_peak: float
    loss_rise: float
    drift: Float[np.ndarray, " T"]
    movement: Float[np.ndarray, " T"]
    movement_relative: Float[np.ndarray, " T"]
    gap: Float[np.ndarray, " T"]
    gap_test: Float[np.ndarray, " T"] | None
    change: Float[np.ndarray, " T"]
    alignment: Float[np.ndarray, " T"]
    alignment_centred: Float[np.ndarray, " T"]
    effective_rank: Float[np.ndarray, " T"]
    lambda_max: Float[np.ndarray, " T"]
    sharpness: Float[np.ndarray, " T"]
    drift_by_parameter: dict[str, np.ndarray]
    movement_by_parameter: dict[str, np.ndarray]
    movement_relative_by_parameter: dict[str, np.ndarray]
    movement_operator_by_parameter: dict[str, np.ndarray]
    trace_by_parameter: dict[str, np.ndarray]
    alignment_by_parameter: dict[str, np.ndarray]
    features: dict[str, np.ndarray]
    hessian: Float[np.ndarray, " examples"]
    kappa: float
    learning_rate: float
    stable_rate: float

    @property
    def gap_relative(self) -> float:
        """Largest gap on the training examples over the largest change of the outputs."""
        change = np.nanmax(self.change)
        return float(np.max(self.gap) / change) if change > 0 else 0.0

    @property
    def instability(self) -> np.ndarray:
        """``learning_rate * sharpness`` (T,), which must stay below 2."""
        return self.learning_rate * self.sharpness

    def __str__(self) -> str:
        from widelimit.diagnostics._document import document, text_of

        return text_of(document(self))

    def to_dict(self) -> dict[str, Any]:
        """All of it as dicts, lists and numbers that JSON can hold; what is not finite becomes None."""
        return plain({f.name: getattr(self, f.name) for f in dataclasses.fields(self)})

    def to_json(self) -> str:
        """The same as text."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False)
