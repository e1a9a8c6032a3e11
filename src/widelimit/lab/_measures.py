"""Single checks: a figure or a fitted slope against its band."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from widelimit.diagnostics import fit_samples


class NotJudged(Exception):
    """A claim cannot be judged; the message says why."""


def number(value: float) -> str:
    """Three significant digits, with a true minus sign."""
    return f"{value:.3g}".replace("-", "−") if np.isfinite(value) else "not finite"


def interval(fit: Mapping[str, Any]) -> str:
    """Slope with its confidence interval in words."""
    low, high = fit["ci"]
    return f"{fit['slope']:.2f} [{low:.2f}, {high:.2f}]".replace("-", "−")


def measure(
    name: str, value: float | None, text: str, theory: str, band: str, passed: bool | None, fit: Any = None
) -> dict[str, Any]:
    """One check; ``passed`` None: shown, not judged."""
    return {
        "name": name, "value": value, "text": text, "theory": theory, "band": band,
        "passed": None if passed is None else bool(passed), "exponent": fit,
    }  # fmt: skip


def exponent(
    name: str,
    x: Sequence[float],
    samples: Sequence[Any],
    theory: float,
    low: float | None,
    high: float | None,
    *,
    upper: bool = False,
    over: str = "width",
    judged: bool = True,
) -> dict[str, Any]:
    """A fitted slope against its band; raises NotJudged if samples are not positive and finite."""
    arrays = [np.asarray(s, np.float64).ravel() for s in samples]
    broken = sum(int(np.sum(~(np.isfinite(a) & (a > 0)))) for a in arrays)
    if broken:
        raise NotJudged(f"{name}: {broken} of {sum(a.size for a in arrays)} values are not finite and positive.")
    fit = {"of": name, "over": over, **fit_samples(x, arrays, upper=upper)}
    slope = fit["slope"]
    passed = (low is None or slope >= low) and (high is None or slope <= high)
    if low is not None and high is not None:
        band = f"in [{number(low)}, {number(high)}]"
    else:
        band = f"≤ {number(high)}" if high is not None else f"≥ {number(low)}" if low is not None else ""
    return measure(
        name, slope, f"slope {interval(fit)}", number(theory), band, passed if judged else None, fit
    )  # fmt: skip
