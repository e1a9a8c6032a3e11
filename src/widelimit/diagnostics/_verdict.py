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
_EXACT = 1e-10  # what rounding leaves of a drift or distance that is 0
RISE = 1.01  # how far the loss rises above its lowest value before, in a catapult
_FAR = 10.0  # distances beyond are those of a linearisation that diverged
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
    if unstable and found.loss_rise > RISE and found.instability[-1] < found.instability[0] and end < start:
        return "catapult"
    drift, gap = largest(found)
    if drift >= RICH or gap >= RICH:
        return "rich"
    if start - end < TRAINED * abs(start):
        return "not trained"
    return "lazy" if drift <= LAZY and gap <= LAZY else "in between"


def _percent(value: float) -> str:
    if value >= 10:
        return f"{value:.0f} times itself"
    return "0 %" if value == 0 else f"{100 * value:.2g} %" if value < 1 else f"{100 * value:.0f} %"


def _sentence(found: Laziness, verdict: str) -> str:
    drift, gap = largest(found)
    apart = (
        f"the outputs differed from the linearised network's by up to {_percent(gap)} of how far they moved"
        if gap < _FAR
        else "the linearised network diverged"
    )
    numbers = f"The kernel changed by up to {_percent(drift)}, and {apart}"
    eta, start = found.instability[0], found.loss[0]
    fell = _percent(max(0.0, 1 - found.loss[-1] / start) if start else 0.0)
    if verdict == "lazy":
        return f"{numbers}: both within {_percent(LAZY)}, so the network trains like its linearisation."
    if verdict == "in between":
        return (
            f"{numbers}. The larger lies between the {_percent(LAZY)} of a lazy and the {_percent(RICH)} of a rich one."
        )
    if verdict == "rich":
        return (
            f"{numbers}. The larger is {_percent(RICH)} or more: the network learns features, and its linearisation "
            "does not "
            "describe it."
        )
    if verdict == "catapult":
        return (
            f"The learning rate is beyond stability, η λ = {eta:.3g} > 2: the loss rose {found.loss_rise:.3g} times "
            f"above what it had reached, η λ fell to {found.instability[-1]:.3g}, and the loss to "
            f"{found.loss[-1]:.3g}. "
            f"{numbers}; at such rates no width makes it lazy."
        )
    if verdict == "diverged":
        worst = max(found.loss_peak, found.loss[-1])
        return (
            f"Training diverged: the loss went from {start:.3g} to {worst:.3g}, with η λ = {eta:.3g} at the start "
            "(stable below 2)."
        )
    return f"The loss fell by {fell} only, which says little about laziness. So far: {numbers[0].lower()}{numbers[1:]}."


def _advice(found: Laziness, verdict: str) -> tuple[str, ...]:
    trained_here = found.settings["training"] != "checkpoints"
    out = []
    if verdict in ("diverged", "catapult"):
        out.append(
            f"Learning rate: below {found.stable_rate:.3g} (here {found.learning_rate:.3g}) it is stable at the start; "
            "what the regime is there, a run at such a rate tells."
        )
    if verdict == "diverged":
        return tuple(out)
    if verdict == "not trained" and trained_here:
        out.append(
            f"Train longer (steps), or at a larger learning rate (here {found.learning_rate:.3g}, stable at the start "
            f"below {found.stable_rate:.3g})."
        )
    elif verdict == "not trained":
        out.append("Give later checkpoints.")
    worst = max(largest(found))
    if worst < _EXACT:
        return (*out, "The model is linear in its parameters: it is its own linearisation, at any width or rate.")
    if verdict == "catapult":
        return (*out, *_layers(found))
    if verdict in ("in between", "rich"):
        out += _lazier(found, worst)
    if verdict in ("lazy", "in between", "not trained") and trained_here:
        out += _richer(found, worst)
    return (*out, *_rate(found, verdict), *_longer(found), *_layers(found))


def _times(factor: float) -> str:
    return f"{factor:.0f}" if factor >= 9.5 else f"{factor:.2g}"


def _lazier(found: Laziness, worst: float) -> list[str]:
    factor, centring = worst / LAZY, found.settings["centring"]
    if worst > 1:
        return [
            (
                f"Width and output scale: from a drift or distance of {_percent(worst)} no law can be extrapolated. "
                "Wider networks are lazier (not in μP or mean-field scaling), and so is a larger alpha: a sweep over "
                "either finds where it becomes lazy."
            )
        ]
    beyond = (
        ""
        if worst <= LAW
        else f" The law holds below a drift of some {_percent(LAW)}: here it is a rough guess, which a sweep measures."
    )
    out = [
        (
            f"Width: about {_times(factor)} times as wide would bring it under {_percent(LAZY)}, if it falls as "
            "1/width, as theory says for the NTK parameterisation (as fast or faster in the standard one; not in μP or "
            f"mean-field scaling, where width does not matter). Extrapolated.{beyond}"
        )
    ]
    if found.settings["training"] == "checkpoints":
        return out
    if centring < 0.5:
        out.append(
            "Random outputs at the start: to reach the targets the outputs move "
            f"{_times(1 / centring)} times as far as they would from 0. Centred (alpha = 1: f - f_0), drift and "
            f"distance would be about {_percent(worst * centring)}, if they go with how far outputs move. Extrapolated."
        )
    alpha = (found.settings["alpha"] or centring) * factor
    scale = "none" if found.settings["alpha"] is None else f"{found.settings['alpha']:g}"
    out.append(
        f"Output scale: alpha = {_times(alpha)} (here {scale}) at this width, if it falls as 1/alpha. Extrapolated; "
        "a run with it measures it."
    )
    return out


def _richer(found: Laziness, worst: float) -> list[str]:
    alpha = (found.settings["alpha"] or found.settings["centring"]) * worst / RICH
    return [
        (
            f"To make it rich: alpha = {alpha:.1g} or less, extrapolated as 1/alpha, or μP (output / sqrt(width), "
            "learning rate times width), in which features move at any width. Weight decay towards zero breaks "
            "laziness "
            "at any width too; decay towards the initial parameters does not."
        )
    ]


def _rate(found: Laziness, verdict: str) -> list[str]:
    """What the learning rate has to do with it, where the training was run here."""
    eta = found.instability
    if found.settings["training"] == "checkpoints":
        return []
    if eta[0] > STABLE:
        return [
            (
                f"Learning rate: η λ = {eta[0]:.2g} at the start is beyond 2, and came down to {eta[-1]:.2g}. The "
                "linearised "
                "network cannot follow that, and part of the drift comes from it: a rate below "
                f"{found.stable_rate:.3g} tells which part."
            )
        ]
    if np.nanmax(eta) > STABLE:
        when = int(found.times[int(np.argmax(eta > STABLE))])
        return [
            (
                f"Sharpness: η λ rose from {eta[0]:.2g} to {np.nanmax(eta):.2g}, beyond 2 from step {when} on (edge of "
                "stability): part of the drift comes from the learning rate. A smaller rate tells which part."
            )
        ]
    if verdict in ("in between", "rich"):
        return [
            (
                f"Learning rate: η λ stayed at or below {np.nanmax(eta):.2g}, under 2, so a smaller rate would hardly "
                "make "
                "it lazier (theory: there the drift at a given loss hardly depends on it)."
            )
        ]
    return []


def _longer(found: Laziness) -> list[str]:
    """Losses without a finite minimiser: whether the drift still grew in the last of the logarithmic time."""
    if found.settings["loss"] not in ("cross_entropy", "logistic") or len(found.times) < 4:
        return []
    before, after = found.drift[-3], found.drift[-1]
    if not after > 1.1 * before > 0:
        return []
    return [
        (
            f"Time: the drift grew from {_percent(before)} at step {int(found.times[-3])} to {_percent(after)} at step "
            f"{int(found.times[-1])} and is not at its end: this loss has no finite minimiser, and longer training "
            "leaves "
            "the lazy regime at any fixed width. Stop earlier, or train on the squared loss."
        )
    ]


def _layers(found: Laziness) -> list[str]:
    if len(found.drift_by_parameter) < 2:
        return []
    ends = {p: float(d[-1] * found.trace_by_parameter[p][0]) for p, d in found.drift_by_parameter.items()}
    first = max(ends, key=lambda p: ends[p])
    part, changed = found.trace_by_parameter[first][0], float(found.drift_by_parameter[first][-1])
    return [
        (
            f"Where: of the parameters, {first} changes the kernel most: its part, {_percent(part)} of the trace, "
            "changed "
            f"by {_percent(changed)}."
        )
    ]
