"""Figures of networks during training: F6, F7, F9, F13."""

from __future__ import annotations

from typing import Any

import numpy as np

from widelimit.lab.figures._panels import (
    FigureSpec,
    Results,
    guide,
    lines,
    note,
    points,
    series,
    shades,
    slope_note,
)


def _rows(results: Results) -> tuple[np.ndarray, list[dict[str, Any]], list[int]]:
    r = results["training"]
    return np.array(r["times"]), r["widths"], [row["width"] for row in r["widths"]]


def _through(curve: dict[str, Any], factor: float) -> tuple[float, float]:
    if not curve["x"]:
        return 1.0, 1.0
    return curve["x"][-1], factor * curve["y"][-1]


def _drift(results: Results):
    times, rows, widths = _rows(results)
    curves = [
        series(f"N = {row['width']}", times[1:], row["drift_curve"][1:], "line", shade=shade)
        for row, shade in zip(rows, shades(len(rows)), strict=True)
    ]
    final = points("networks", widths, [row["drift"] for row in rows], 0)
    content = [
        final,
        guide("N^-1", widths, -1.0, _through(final, 1.0)),
        guide("N^-½ (proved bound)", widths, -0.5, _through(final, 1.6)),
    ]
    return [
        lines("drift while training", "steps t", "‖K_t − K_0‖/‖K_0‖", curves, ("log", "log")),
        lines("largest drift", "width N", "sup_t ‖K_t − K_0‖/‖K_0‖", content, ("log", "log")),
    ], [slope_note("slope, upper widths", widths, [row["drift"] for row in rows], upper=True)]


def _movement(results: Results):
    times, rows, widths = _rows(results)
    shade = shades(len(rows))
    relative = [
        series(f"N = {r['width']}", times[1:], r["moved_relative_curve"][1:], "line", shade=s)
        for r, s in zip(rows, shade, strict=True)
    ]
    loss = [
        series(
            f"N = {r['width']}",
            times[1:],
            np.maximum(np.array(r["loss_curve"][1:], np.float64), 1e-14),
            shade=s,
        )
        for r, s in zip(rows, shade, strict=True)
    ]
    change = [np.array(r["change"], np.float64) for r in rows]
    size = [np.array(r["size"], np.float64) for r in rows]
    layers = change[0].shape[1]
    names = ["first layer", *(f"hidden layer {k}" for k in range(2, layers)), "last layer"]
    content = [
        points(names[k], widths, [c[:, k] / s[:, k] for c, s in zip(change, size, strict=True)], k)
        for k in range(layers)
    ]
    content.append(points("all, ‖Δθ‖/‖θ₀‖", widths, [np.array(r["moved"]) / r["norm"] for r in rows], layers))
    content.append(points("all, absolute ‖Δθ‖", widths, [r["moved"] for r in rows], layers + 1))
    content.append(guide("N^-½", widths, -0.5, _through(content[0], 1.0)))
    content.append(guide("N^-1", widths, -1.0, _through(content[1 if layers > 2 else layers], 1.0)))
    numbers = []
    for k, name in enumerate(names):
        samples = [c[:, k] / s[:, k] for c, s in zip(change, size, strict=True)]
        numbers.append(slope_note(f"slope, {name}", widths, samples, upper=True))
    return [
        lines("parameters while training", "steps", "‖Δθ‖/‖θ₀‖", relative, ("log", "log")),
        lines("after training", "width N", "change / size", content, ("log", "log")),
        lines("loss", "steps", "½ Σ (f − y)²", loss, ("log", "log")),
    ], numbers


def _losses(results: Results):
    times, rows, widths = _rows(results)
    last = rows[-1]
    y = np.array(results["training"]["y"])
    y_test = np.array(results["training"]["y_test"])
    n = len(y)
    curves = (
        ("network", "points", "f"),
        ("linearised network", "line", "f_linear"),
        ("closed form, its own K̂₀", "dotted", "f_closed"),
        ("closed form, infinite kernel", "dashed", "f_limit"),
    )
    panels = []
    for title, part, target in (
        ("training points", slice(0, n), y),
        ("held-out points", slice(n, None), y_test),
    ):
        content = []
        for k, (label, style, name) in enumerate(curves):
            f = np.array(last[name], np.float64)[:, part]
            loss = np.maximum(np.mean((f - target) ** 2, axis=1), 1e-14)
            content.append(series(label, times[1:], loss[1:], style, group=k))
        panels.append(lines(f"{title}, N = {last['width']}", "steps", "mean (f − y)²", content, ("log", "log")))
    gaps = [
        points("network − linearised", widths, [r["linear_gap"] for r in rows], 0),
        points("network − infinite kernel", widths, [r["limit_gap"] for r in rows], 2),
    ]
    gaps.append(guide("N^-1", widths, -1.0, _through(gaps[0], 1.0)))
    gaps.append(guide("N^-½", widths, -0.5, _through(gaps[1], 1.0)))
    panels.append(lines("largest distance while training", "width N", "sup_t RMSE", gaps, ("log", "log")))
    f, linear = (np.array(last[k], np.float64) for k in ("f", "f_linear"))
    scale = np.sqrt(np.mean(f[0] ** 2))
    own = np.array(last["f_closed"], np.float64)
    numbers = [
        note("linearised network − closed form, largest", f"{np.abs(linear - own).max():.3g}"),
        note(
            "network − linearised, largest relative",
            f"{np.sqrt(np.mean((f - linear) ** 2, axis=1)).max() / scale:.3g}",
        ),
        slope_note("slope, network − linearised", widths, [r["linear_gap"] for r in rows], upper=True),
        slope_note("slope, network − infinite kernel", widths, [r["limit_gap"] for r in rows]),
    ]
    return panels, numbers


def _modes(results: Results):
    r = results["training"]["modes"]
    times, values = np.array(r["times"]), np.array(r["eigenvalues"], np.float64)
    residual, eta = np.array(r["residual"], np.float64), r["learning_rate"]
    fine = np.arange(0, times[-1] + 1, max(1, times[-1] // 200))
    content = []
    for k, mode in enumerate(np.unique(np.linspace(0, len(values) - 1, 5).round().astype(int))):
        size = np.abs(residual[:, mode])
        line = size[0] * (1 - eta * values[mode]) ** fine
        floor = max(1e-4, 1e-3 * size[0])
        seen, shown = size > floor, line > floor
        content.append(series(f"λ = {values[mode]:.3g}", times[seen], size[seen], "points", group=k))
        content.append(series("", fine[shown], line[shown], "line", group=k))
    rates = np.array([_rate(times, c, eta) for c in residual.T])
    # A mode that starts with next to nothing shows what others leak into it as the kernel drifts, not its own decay.
    carried = np.abs(residual[0]) >= 0.1 * np.abs(residual[0]).max()
    good = np.isfinite(rates) & (rates > 0) & carried
    compared = [
        series("network", values[good], rates[good], "points", group=0),
        series("rate = λ", [values[-1], values[0]], [values[-1], values[0]], "guide"),
    ]
    numbers = []
    if good.any():
        error = np.abs(rates[good] / values[good] - 1)
        numbers.append(
            note(
                f"|rate/λ − 1|, median of the {good.sum()} modes with a tenth of the largest residual or more",
                f"{np.median(error):.2g} (largest {error.max():.2g})",
            )
        )
    title = f"residual along eigenvectors of K̂₀, N = {r['width']}"
    return [
        lines(title, "steps t", "|u_iᵀ(y − f_t)|", content, ("linear", "log")),
        lines("fitted rate of decay", "λ_i", "rate", compared, ("log", "log")),
    ], numbers


def _rate(times: np.ndarray, c: np.ndarray, eta: float) -> float:
    """Rate r of |c| = (1 - eta r)^t |c_0| until it has fallen to a tenth: the discrete form of exp(-eta r
    t).
    """
    size = np.abs(c)
    below = np.flatnonzero(size < 0.1 * size[0])
    last = int(below[0]) if below.size else len(size) - 1
    if last < 1 or size[0] < 1e-3 or size[last] == 0:
        return float("nan")
    return float((1 - (size[last] / size[0]) ** (1 / times[last])) / eta)


F6 = FigureSpec(
    "F6", "Drift of the kernel during training",
    "The wider the network, the less its kernel moves: ten times the width, a tenth of the drift.",
    ("training",), ("3",), _drift,
)  # fmt: skip
F7 = FigureSpec(
    "F7", "How far the parameters move",
    "The whole movement ‖Δθ‖ is flat in the width, so the relative change of every layer shrinks, hidden "
    "layers fastest.",
    ("training",), ("7",), _movement, 3,
)  # fmt: skip
F9 = FigureSpec(
    "F9", "Network, linearised network and closed form",
    "The points lie on the line at the widest network; the distance to the infinite kernel shrinks more "
    "slowly.",
    ("training",), ("5", "5b", "9"), _losses, 3,
)  # fmt: skip
F13 = FigureSpec(
    "F13", "Each eigenvector is learned at its own rate",
    "On a logarithmic axis the points of each mode follow a straight line whose steepness is its "
    "eigenvalue.",
    ("training",), ("9",), _modes,
)  # fmt: skip
