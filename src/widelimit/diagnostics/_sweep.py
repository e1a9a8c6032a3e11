"""Sweeps over width or output scale, with fitted exponents beside theory's."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from widelimit.diagnostics._figures import figure, line, panel
from widelimit.diagnostics._fit import fit_samples
from widelimit.diagnostics._laziness import laziness
from widelimit.diagnostics._plain import plain
from widelimit.diagnostics._result import Laziness
from widelimit.diagnostics._verdict import LAW, LAZY, RICH

__all__ = ["LazinessSweep", "laziness_sweep", "sweep_figure", "sweep_table"]

# name: (words, theory over width in the NTK parameterisation, theory over alpha)
QUANTITIES: dict[str, tuple[str, float | None, float | None]] = {
    "drift": ("kernel drift", -1.0, -1.0),
    "gap": ("distance to the linearisation", -1.0, -1.0),
    "movement": ("parameters, ‖Δθ‖", 0.0, -1.0),
    "movement_relative": ("parameters, ‖Δθ‖ / ‖θ_0‖", -1.0, -1.0),
    "features": ("features, most moved layer", -0.5, -1.0),
    "hessian": ("Hessian of an output", -0.5, 0.0),
    "lambda_max": ("λ_max of the kernel", 0.0, 0.0),
}
_THEORY_NOTE = {
    "width": "Theory: for wide networks in the NTK parameterisation; with one hidden layer ‖Δθ‖ / ‖θ_0‖ falls with "
    "−½ only. "
    "In the standard parameterisation λ_max grows with +1 and ‖Δθ‖ falls with −½. "
    "In μP drift and features do not fall.",
    "alpha": "Theory: for lazy training, alpha large (Chizat et al. 2019).",
}


@dataclasses.dataclass(frozen=True)
class LazinessSweep:
    """Laziness over widths or output scales; made by `laziness_sweep`, and printing it gives a table.

    over: "width" or "alpha"; values (V,), increasing.  samples: by quantity, (V, seeds): largest drift, largest
    distance to the linearisation relative to the change of the outputs, ``||theta_T - theta_0||`` and the same
    relative, movement of the most moved features, mean operator norm of the Hessian, largest eigenvalue of the first
    kernel. fits: by quantity slope, its standard error and 95 % interval ("slope", "se", "ci"), and the values "x" and
    geometric means "y" it rests on; verdicts (V, seeds); advice: where the sweep says the network becomes lazy.
    """

    over: str
    values: np.ndarray
    samples: dict[str, np.ndarray]
    fits: dict[str, dict[str, Any]]
    verdicts: np.ndarray
    advice: tuple[str, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        from widelimit.diagnostics._document import sweep_text

        return sweep_text(self)

    def to_dict(self) -> dict[str, Any]:
        """All of it as dicts, lists and numbers that JSON can hold."""
        return plain({f.name: getattr(self, f.name) for f in dataclasses.fields(self)})


def laziness_sweep(
    builder: Any,
    X: Any,
    Y: Any,
    *,
    widths: Sequence[int] | None = None,
    alphas: Sequence[float] | None = None,
    width: int | None = None,
    seeds: int = 3,
    key: jax.Array | None = None,
    progress: Callable[[int, int, str], None] | bool | None = None,
    **settings: Any,
) -> LazinessSweep:
    """How laziness scales with the width, or with the output scale alpha, as fitted exponents.

    Each network is measured as by `laziness`, with its own learning rate unless one is given, and
    ``log quantity = a + slope log value`` is fitted to the means over seeds, where the drift is at most 30 % (above, it
    does not follow its law yet) if three values are left.

    builder: ``builder(width, key)``, or ``builder(width)`` for PyTorch, whose generator is seeded from the key, giving
    anything that `laziness` takes; for alphas also a model by itself.  widths, alphas: one of the two, at least three
    values; width: for a builder and alphas.  seeds: networks at each value (1 for a model that has its parameters).
    settings: those of `laziness` (X_test, loss, steps, ...).
    Raises ValueError for values that are not positive or fewer than three, TypeError for what is no builder.
    """
    over, values = _values(widths, alphas)
    make, several = _builder(builder, over, width, settings.get("params") is not None)
    if not isinstance(seeds, int) or isinstance(seeds, bool) or seeds < 1:
        raise ValueError(f"laziness_sweep: seeds must be a positive integer, not {seeds!r}.")
    if "alpha" in settings and over == "alpha":
        raise ValueError("laziness_sweep: alpha is what is swept over; leave it out.")
    seeds = seeds if several else 1
    keys = jax.random.split(jax.random.key(0) if key is None else key, seeds)
    told = progress if callable(progress) else lambda done, total, what: None
    rows: list[list[Laziness]] = []
    for i, value in enumerate(values):
        rows.append([])
        for j in range(seeds):
            told(i * seeds + j, len(values) * seeds, f"{over} {value:g}, network {j + 1} of {seeds}")
            model, extra = make(value, keys[j])
            extra = extra | ({"alpha": float(value)} if over == "alpha" else {})
            rows[-1].append(laziness(model, X, Y, **extra, **settings))
    return _swept(over, np.array(values, np.float64), rows)


def _values(widths, alphas) -> tuple[str, list]:
    if (widths is None) == (alphas is None):
        raise ValueError("laziness_sweep: give either widths or alphas.")
    over, values = ("width", widths) if widths is not None else ("alpha", alphas)
    kinds = int | np.integer if over == "width" else int | float | np.integer | np.floating
    given = list(values or ())
    if any(not isinstance(v, kinds) or isinstance(v, bool) or not v > 0 or not np.isfinite(v) for v in given):
        what = "positive integers" if over == "width" else "positive numbers"
        raise ValueError(f"laziness_sweep: {over}s must be {what}, not {given}.")
    found = sorted({int(v) if over == "width" else float(v) for v in given})
    if len(found) < 3:
        raise ValueError(f"laziness_sweep: a slope needs at least three different {over}s, not {found}.")
    return over, found


def is_builder(model: Any) -> bool:
    """Whether it is a function or class of one or two arguments (width, key) that makes a model."""
    if not (inspect.isfunction(model) or inspect.isclass(model)):
        return False
    try:
        parameters = inspect.signature(model).parameters.values()
    except (TypeError, ValueError):
        return False
    needed = [p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return 1 <= len(needed) <= 2


def built(builder: Callable, width: int, key: jax.Array) -> Any:
    """What the builder makes of (width, key), or of (width) alone, then with PyTorch's generator seeded by the key."""
    parameters = inspect.signature(builder).parameters.values()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = [p for p in positional if p.default is p.empty]
    if len(needed) == 2 or any("key" in p.name or "rng" in p.name for p in positional[1:]):
        return builder(width, key)
    torch = sys.modules.get("torch")
    if torch is None:
        return builder(width)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(jax.random.randint(key, (), 0, 2**31 - 1)))
        return builder(width)


def _builder(builder: Any, over: str, width: Any, parameters: bool) -> tuple[Callable, bool]:
    """A function (value, key) -> (model, further settings), and whether networks of several seeds can be drawn."""
    if is_builder(builder) and not parameters:
        whole = isinstance(width, int | np.integer) and not isinstance(width, bool) and width > 0
        if over == "alpha" and not whole:
            raise ValueError(
                "laziness_sweep: a builder and alphas need a width too, a positive integer: width=256, say, and not "
                f"{width!r}."
            )
        return lambda value, key: (built(builder, value if over == "width" else int(width), key), {"key": key}), True
    if over == "width":
        raise TypeError(
            "laziness_sweep: builder must be a function (width, key) that makes a model, not a "
            f"{type(builder).__name__}. "
            "Remedy: lambda width, key: MyModel(width, key)."
        )
    drawn = hasattr(builder, "init") and hasattr(builder, "apply") and not callable(builder) and not parameters
    return lambda alpha, key: (builder, {"key": key} if drawn else {}), drawn


def _measured(found: Laziness) -> dict[str, float]:
    features = [float(v[-1]) for v in found.features.values()]
    return {
        "drift": float(np.max(found.drift)), "gap": found.gap_relative, "movement": float(found.movement[-1]),
        "movement_relative": float(found.movement_relative[-1]), "features": max(features, default=float("nan")),
        "hessian": float(found.hessian.mean()) if found.hessian.size else float("nan"),
        "lambda_max": float(found.lambda_max[0]),
    }  # fmt: skip


def _swept(over: str, values: np.ndarray, rows: list[list[Laziness]]) -> LazinessSweep:
    measured = [[_measured(r) for r in row] for row in rows]
    samples = {q: np.array([[m[q] for m in row] for row in measured]) for q in QUANTITIES}
    verdicts = np.array([[r.verdict for r in row] for row in rows])
    notes = []
    usable = ~np.isin(verdicts, ("diverged", "catapult")).any(1)
    if not usable.all():
        notes.append(f"Left out of the fits, for training was not stable there: {over} {_listed(values[~usable])}.")
    small = usable & (np.exp(np.log(np.maximum(samples["drift"], 1e-300)).mean(1)) <= LAW)
    chosen = small if small.sum() >= 3 else usable
    fits = {}
    for q, s in samples.items():
        if chosen.sum() >= 3 and np.isfinite(s[chosen]).all() and (s[chosen] > 0).all():
            fits[q] = fit_samples(values[chosen].tolist(), list(s[chosen]))
    if fits and chosen.sum() < len(values):
        notes.append(f"Fitted over {over} {_listed(values[chosen])}, where the drift is at most {LAW:.0%}.")
    elif fits and not small.all():
        notes.append(f"The drift is above {LAW:.0%} at some {over}s, where it does not follow its power law yet.")
    return LazinessSweep(over, values, samples, fits, verdicts, _advice(over, values, samples, fits), tuple(notes))


def _listed(values) -> str:
    return ", ".join(f"{v:g}" for v in values)


def _advice(over, values, samples, fits) -> tuple[str, ...]:
    """Where drift and distance pass the limits by the fitted lines, and whether that is inside of the sweep."""
    if "drift" not in fits or "gap" not in fits:
        return ()
    out = []
    for limit, word in ((LAZY, "lazy"), (RICH, "rich")):
        at = [_crossing(fits[q], limit) for q in ("drift", "gap")]
        if any(a is None for a in at):
            slope = fits["drift"]["slope"]
            out.append(
                f"Measured: the drift does not fall with the {over} (slope {slope:.2f}), so {over} does not decide "
                "about "
                "laziness here."
            )
            break
        where = max(a for a in at if a is not None)
        inside = values[0] <= where <= values[-1]
        side = "from" if word == "lazy" else "up to"
        how = "within the sweep" if inside else "extrapolated"
        out.append(f"Measured: {word} {side} {over} {where:.3g} ({how}), by the fitted slope of the larger of the two.")
    return tuple(out)


def _crossing(fit, limit: float) -> float | None:
    """Where the fitted line passes the limit; None where its slope cannot be told from 0."""
    if fit["ci"][1] >= 0:
        return None
    return float(np.exp((np.log(limit) - fit["intercept"]) / fit["slope"]))


def sweep_table(sweep: LazinessSweep) -> dict[str, Any]:
    """Means by value, fitted and theoretical exponents."""
    shown = (
        sweep.values if len(sweep.values) <= 6 else sweep.values[np.linspace(0, len(sweep.values) - 1, 6).astype(int)]
    )
    rows = []
    for q, (words, by_width, by_alpha) in QUANTITIES.items():
        means = {v: float(np.mean(s)) for v, s in zip(sweep.values, sweep.samples[q], strict=True)}
        if not np.isfinite(list(means.values())).any():
            continue
        fit, theory = sweep.fits.get(q), by_width if sweep.over == "width" else by_alpha
        slope = "–" if fit is None else f"{fit['slope']:.2f} [{fit['ci'][0]:.2f}, {fit['ci'][1]:.2f}]".replace("-", "−")
        rows.append([words, *(f"{means[v]:.3g}" for v in shown), slope, f"{theory:g}".replace("-", "−")])
    return {
        "title": f"Over {sweep.over}", "columns": ["", *(f"{v:g}" for v in shown), "slope [95 %]", "theory"],
        "rows": rows,
        "note": " ".join([*sweep.notes, _THEORY_NOTE[sweep.over]]),
    }  # fmt: skip


def sweep_figure(sweep: LazinessSweep) -> dict[str, Any]:
    """Drift and distance, movement and features over the value, log-log, with the fitted lines."""

    def series(names) -> list[dict[str, Any]]:
        out = []
        for i, q in enumerate(names):
            s, fit = sweep.samples[q], sweep.fits.get(q)
            if not np.isfinite(s).any():
                continue
            low, high = (s.min(1), s.max(1)) if s.shape[1] > 1 else (None, None)
            out.append(line(QUANTITIES[q][0], sweep.values, s.mean(1), i, style="points", low=low, high=high))
            if fit is not None:
                x = np.array([fit["x"][0], fit["x"][-1]])
                y = np.exp(fit["intercept"]) * x ** fit["slope"]
                out.append(line(f"slope {fit['slope']:.2f}", x, y, i, style="dashed"))
        return out

    where = "width N" if sweep.over == "width" else "output scale α"
    marks = [{"axis": "y", "at": LAZY, "label": "lazy below"}, {"axis": "y", "at": RICH, "label": "rich above"}]
    return figure(
        f"sweep-{sweep.over}", f"Over {'widths' if sweep.over == 'width' else 'output scales'}",
        "Means over networks (bars: smallest and largest) and the fitted power laws.",
        [
            panel("how lazy", where, "", series(("drift", "gap")), "log log", marks),
            panel("what moves", where, "", series(("movement_relative", "features", "hessian")), "log log"),
        ],
    )  # fmt: skip
