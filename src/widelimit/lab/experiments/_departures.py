"""Claims A and C: logistic loss, and weight decay to zero or to the initial weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from widelimit.lab._context import Context
from widelimit.lab._finite import Rule
from widelimit.lab.experiments._base import Experiment

# Decay in units of lambda_max(K_0): weights without gradient shrink by exp(-SHRINK) over the run.
SHRINK = 2.0


def _final_drift(context: Context, name: str, width: int, times: np.ndarray, rule: Rule, y=None) -> list[float]:
    return [
        float(context.train(width, context.seed(name, width, i), times, rule, y).record.drift[-1])
        for i in range(context.fewer_seeds(width))
    ]


def run_logistic(context: Context) -> dict[str, Any]:
    """Drift by width under the logistic loss, and ten times longer training at one width for both losses."""
    times, longer = context.ends(context.sizes.steps), context.times(10 * context.sizes.steps)
    width, sign = context.widths[min(1, len(context.widths) - 1)], context.task.sign
    out: dict[str, Any] = {"widths": list(context.widths), "long": {"width": width, "times": longer}}
    for name, logistic in (("squared", 0.0), ("logistic", 1.0)):
        r = context.train(width, context.seed("logistic", "long"), longer, Rule(logistic=logistic), sign)
        out["long"][name] = {"drift": r.record.drift, "moved": np.linalg.norm(r.record.change, axis=1)}
    rule = Rule(logistic=1.0)
    out["drift"] = context.map(
        lambda width: _final_drift(context, "logistic", width, times, rule, sign), context.widths
    )
    return out


def run_decay(context: Context) -> dict[str, Any]:
    """Drift by width with weight decay towards zero and towards the initial weights."""
    steps = context.sizes.steps
    times, widths = context.ends(steps), context.upper_widths
    rules = [Rule(decay=SHRINK / steps, anchor=anchor) for anchor in (0.0, 1.0)]
    drift = context.map(lambda width: [_final_drift(context, "decay", width, times, rule) for rule in rules], widths)
    return {
        "steps": steps,
        "widths": list(widths),
        "shrink": SHRINK,
        "to_zero": [zero for zero, _ in drift],
        "to_start": [start for _, start in drift],
    }


def run_feature_learning(context: Context) -> dict[str, Any]:
    """Movement of hidden preactivations by width in the mean-field (muP) scaling: output f/sqrt(N), rate
    times N.
    """
    times = context.ends(context.sizes.steps)

    def one_width(width: int) -> list[np.ndarray]:
        rule = Rule(alpha=width**-0.5, rate=0.5)
        return [
            context.train(width, context.seed("features", width, i), times, rule).record.features[-1]
            for i in range(context.fewer_seeds(width))
        ]

    return {"widths": list(context.widths), "features": context.map(one_width, context.widths)}


LOGISTIC = Experiment("logistic", "Logistic loss", run_logistic, (8, 20, 300))
DECAY = Experiment("decay", "Weight decay to zero and to the start", run_decay, (15, 40, 600))
FEATURE_LEARNING = Experiment("features", "Feature learning in the μP scaling", run_feature_learning, (6, 20, 300))
