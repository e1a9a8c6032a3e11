"""The regime, and what would change it: from measured numbers, with what is extrapolated said to be so."""

from __future__ import annotations

import dataclasses

import numpy as np

from widelimit.diagnostics._result import Laziness

__all__ = ["LAZY", "RICH", "STABLE", "judged"]

LAZY = 0.05  # drift of the kernel and relative distance to the linearisation up to which a network counts as lazy
RICH = 0.5  # either of them from which it counts as rich
STABLE = 2.0  # learning rate times sharpness
TRAINED = 0.1  # part of the loss that must be gone before a small drift says anything
LAW = 0.3  # drift up to which it follows its power laws in width and alpha (measured: claims of the lab)


def judged(found: Laziness, *, diverged: bool = False) -> Laziness:
    """The result with its verdict, the reason and the advice."""
    verdict = _verdict(found, diverged)
    return dataclasses.replace(
        found, verdict=verdict, sentence=_sentence(found, verdict), advice=_advice(found, verdict)
    )


def largest(found: Laziness) -> tuple[float, float]:
    """Largest drift and largest relative distance to the linearisation (infinity where that has overflowed)."""
    gap = found.gap_relative
    return float(np.max(found.drift)), gap if np.isfinite(gap) else float("inf")


def _verdict(found: Laziness, diverged: bool) -> str:
    start, end = found.loss[0], found.loss[-1]
    if diverged or not np.isfinite(found.loss_peak) or end > 2 * start > 0:
        return "diverged"
    unstable = found.instability[0] > STABLE and found.settings["training"] != "checkpoints"
    if unstable and found.loss_peak > 1.01 * start and end < start:
        return "catapult"
    drift, gap = largest(found)
    if drift >= RICH or gap >= RICH:
        return "rich"
    if start - end < TRAINED * abs(start):
        return "not trained"
    return "lazy" if drift <= LAZY and gap <= LAZY else "in between"


def _percent(value: float) -> str:
    if not np.isfinite(value):
        return "without bound"
    return "0 %" if value == 0 else f"{100 * value:.2g} %" if value < 1 else f"{100 * value:.0f} %"


def _sentence(found: Laziness, verdict: str) -> str:
    drift, gap = largest(found)
    numbers = (
        f"The kernel changed by up to {_percent(drift)}, and the outputs differed from the linearised network's by up to "
        f"{_percent(gap)} of how far they moved"
    )
    eta = found.instability[0]
    return {
        "lazy": f"{numbers}: both within {_percent(LAZY)}, so the network trains like its linearisation.",
        "in between": f"{numbers}: more than the {_percent(LAZY)} of a lazy network, less than the {_percent(RICH)} of a "
        "rich one.",
        "rich": f"{numbers}: {_percent(RICH)} or more, so the network learns features, and its linearisation does not "
        "describe it.",
        "catapult": f"The learning rate is beyond stability, η λ = {eta:.3g} > 2: the loss rose to {found.loss_peak:.3g} "
        f"from {found.loss[0]:.3g} and came down to {found.loss[-1]:.3g}, while the curvature fell. {numbers}; at such "
        "rates no width makes the network lazy.",
        "diverged": f"Training diverged: the loss went from {found.loss[0]:.3g} to "
        f"{max(found.loss_peak, found.loss[-1]):.3g}, with η λ = {eta:.3g} at the start (stable below 2).",
        "not trained": f"The loss fell by {_percent(max(0.0, 1 - found.loss[-1] / found.loss[0]) if found.loss[0] else 0)} "
        f"only, which says little about laziness. So far: {numbers[0].lower()}{numbers[1:]}.",
    }[verdict]  # fmt: skip


def _advice(found: Laziness, verdict: str) -> tuple[str, ...]:
    eta = found.instability
    trained_here = found.settings["training"] != "checkpoints"
    out = []
    if verdict == "diverged" or (verdict == "catapult" and trained_here):
        out.append(
            f"Learning rate: below {found.stable_rate:.3g} (here {found.learning_rate:.3g}) it is stable at the start; "
            "what the regime is there, a run at such a rate tells."
        )
    if verdict == "diverged":
        return tuple(out)
    if verdict == "not trained":
        out.append(
            "Train longer (steps=), or at a larger learning rate (below "
            f"{found.stable_rate:.3g}, here {found.learning_rate:.3g})."
            if trained_here
            else "Give later checkpoints."
        )
    drift, gap = largest(found)
    worst = max(drift, gap)
    if worst == 0:
        return (*out, "The model is linear in its parameters: it is its own linearisation, at any width or rate.")
    if verdict in ("in between", "rich"):
        out += _lazier(found, worst)
    if verdict in ("lazy", "in between", "not trained") and trained_here:
        out += _richer(found, worst)
    if trained_here and eta[0] <= STABLE and np.nanmax(eta) > STABLE:
        when = int(found.times[int(np.argmax(eta > STABLE))])
        out.append(
            f"Sharpness: η λ rose from {eta[0]:.2g} to {np.nanmax(eta):.2g}, beyond 2 from step {when} on (edge of "
            "stability): part of the drift comes from the learning rate. A smaller rate tells which part."
        )
    elif trained_here and eta[0] <= STABLE and verdict in ("in between", "rich"):
        out.append(
            f"Learning rate: η λ stayed at {np.nanmax(eta):.2g}, below 2, so a smaller rate would not make it lazier "
            "(theory: there the drift at a given loss hardly depends on it)."
        )
    return (*out, *_longer(found), *_layers(found))


def _times(factor: float) -> str:
    return f"{factor:.0f}" if factor >= 9.5 else f"{factor:.2g}"


def _lazier(found: Laziness, worst: float) -> list[str]:
    factor = worst / LAZY
    base = found.settings["alpha"] or 1.0
    beyond = (
        ""
        if worst <= LAW
        else f" The law holds below a drift of some {_percent(LAW)}, so from here it is a rough guess; a sweep measures it."
    )
    out = [
        f"Width: about {_times(factor)} times as wide would bring it under {_percent(LAZY)}, if it falls as 1/width, as "
        "theory says for the NTK and the standard parameterisation (not in μP or mean-field scaling, where width does not "
        f"matter). Extrapolated.{beyond}"
    ]
    if found.settings["training"] != "checkpoints":
        out.append(
            f"Output scale: alpha = {_times(base * factor)} (here {found.settings['alpha'] or 'none'}) at this width, if "
            f"it falls as 1/alpha. Extrapolated; laziness(..., alpha={_times(base * factor)}) measures it."
        )
    return out


def _richer(found: Laziness, worst: float) -> list[str]:
    base = (found.settings["alpha"] or 1.0) * worst / RICH
    return [
        f"To make it rich: alpha = {base:.1g} or less, extrapolated as 1/alpha, or μP (output / sqrt(width), learning rate "
        "times width), in which features move at any width. Weight decay towards zero breaks laziness at any width too; "
        "decay towards the initial parameters does not."
    ]


def _longer(found: Laziness) -> list[str]:
    """Losses without a finite minimiser: whether the drift still grew in the last third of the (log) time."""
    if found.settings["loss"] not in ("cross_entropy", "logistic") or len(found.times) < 4:
        return []
    before, after = found.drift[-3], found.drift[-1]
    if not after > 1.1 * before > 0:
        return []
    return [
        f"Time: the drift grew from {_percent(before)} at step {int(found.times[-3])} to {_percent(after)} at step "
        f"{int(found.times[-1])} and is not at its end: this loss has no finite minimiser, and longer training leaves the "
        "lazy regime at any fixed width. Stop earlier, or train on the squared loss."
    ]


def _layers(found: Laziness) -> list[str]:
    if len(found.drift_by_parameter) < 2:
        return []
    ends = {p: float(d[-1] * found.trace_by_parameter[p][0]) for p, d in found.drift_by_parameter.items()}
    first = max(ends, key=lambda p: ends[p])
    return [
        f"Where: of the parameters, {first} changes the kernel most (its part, {_percent(found.trace_by_parameter[first][0])} "
        f"of the trace, changed by {_percent(float(found.drift_by_parameter[first][-1]))})."
    ]
