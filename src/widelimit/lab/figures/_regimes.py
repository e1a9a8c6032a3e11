"""Figures of other regimes and of predictions: F11, F14, F16, F21."""

from __future__ import annotations

import numpy as np

from widelimit.lab.figures._initial import circle_marks
from widelimit.lab.figures._panels import (
    FigureSpec,
    Results,
    guide,
    image,
    lines,
    mark,
    note,
    points,
    series,
    shades,
    slope_note,
)


def _bands(results: Results):
    e = results["ensemble"]
    b = e["bands"]
    x = b["angle"]
    nngp, spread = np.array(b["nngp_mean"], np.float64), np.array(b["nngp_std"], np.float64)
    panels, numbers = [], []
    for row in b["rows"]:
        mean, std = np.array(row["mean"], np.float64), np.array(row["std"], np.float64)
        t = "∞" if row["steps"] is None else f"{row['steps']:.0f}"
        content = [series("closed form ±2σ (NTK)", x, mean, "band", low=mean - 2 * std, high=mean + 2 * std, group=0)]
        content.append(series("closed form, mean", x, mean, "line", group=0))
        if "networks_mean" in row:
            middle, width = (np.array(row[k], np.float64) for k in ("networks_mean", "networks_std"))
            label = f"{e['networks']} networks, mean and ±2σ"
            content.append(series(label, x, middle, "points", low=middle - 2 * width, high=middle + 2 * width, group=1))
            numbers.append(note(f"networks inside the band at t = {t}", f"{row['inside']:.1%} (a Gaussian: 95.4 %)"))
        else:
            content.append(series("NNGP posterior ±2σ", x, nngp - 2 * spread, "dashed", group=2))
            content.append(series("", x, nngp + 2 * spread, "dashed", group=2))
        panels.append(
            lines(
                f"t = {t} steps",
                "angle on a great circle",
                "output f",
                content,
                marks=circle_marks(b["marks"]),
            )
        )
    return panels, numbers


def _scale(results: Results):
    r = results["scale"]
    alphas = r["alphas"]
    drift = points(f"N = {r['width']}", alphas, r["drift"], 0)
    first = [drift]
    if drift["x"]:
        first.append(guide("α^-1", alphas, -1.0, (drift["x"][-1], drift["y"][-1])))
    losses = [points("", alphas, r["test_loss"], 1)]
    trained, start = (np.array(r[k], np.float64) for k in ("alignment", "alignment_start"))
    second = [
        series("after training", alphas, trained.mean(1), "points", group=0),
        series("before", alphas, start.mean(1), "dashed", group=2),
    ]
    upper = [k for k, a in enumerate(alphas) if a >= 4]
    large = [alphas[k] for k in upper], [r["drift"][k] for k in upper]
    return [
        lines("drift of the kernel", "output scale α", "‖K_t − K_0‖/‖K_0‖", first, ("log", "log")),
        lines("loss on held-out points", "output scale α", "mean (f − y)²", losses, ("log", "linear")),
        lines("alignment of K with y yᵀ", "output scale α", "cosine", second, ("log", "linear")),
    ], [slope_note("slope of the drift for α ≥ 4", *large)]


def _catapult(results: Results):
    r = results["rates"]
    times = np.array(r["times"])
    early = times <= max(60, times[5])
    loss, sharp = [], []
    for row, shade in zip(r["rows"], shades(len(r["rows"])), strict=True):
        label = f"η·λmax = {row['eta']:g}"
        curve = np.array(row["loss_curve"], np.float64)
        # A diverging loss is drawn up to where it leaves the picture.
        seen = early & np.isfinite(curve) & (curve < 1e6)
        loss.append(series(label, times[seen], np.maximum(curve[seen], 1e-10), "line", shade=shade))
        sharpness = np.array(row["sharpness_curve"], np.float64)
        seen = seen & np.isfinite(sharpness) & (sharpness < 20)
        sharp.append(series(label, times[seen], sharpness[seen], "line", shade=shade))
    drift = np.array([[_mean(samples) for samples in row["drift"]] for row in r["rows"]])
    finite = drift[np.isfinite(drift) & (drift > 0)]
    heat = image(
        "final drift (blank: diverged)", drift, xlabel="width N", ylabel="η·λmax", scale="log",
        limits=(float(finite.min()), float(min(finite.max(), 10.0))) if finite.size else None,
        xticks=[(k, str(w)) for k, w in enumerate(r["widths"])],
        yticks=[(k, f"{eta:g}") for k, eta in enumerate(r["etas"])], colourbar="‖K_t − K_0‖/‖K_0‖",
    )  # fmt: skip
    numbers = []
    for row in r["rows"]:
        name = f"slope of the drift at η·λmax = {row['eta']:g}"
        numbers.append(slope_note(name, r["widths"], row["drift"], upper=True))
    return [
        lines(f"loss, N = {r['shown_width']}", "steps", "½ Σ (f − y)²", loss, ("linear", "log")),
        lines(f"sharpness, N = {r['shown_width']}", "steps", "η λmax(K_t)", sharp, marks=[mark("y", 2.0, "2")]),
        heat,
    ], numbers


def _mean(samples: list) -> float:
    values = np.array(samples, np.float64)
    return float(values.mean()) if np.isfinite(values).all() else float("nan")


def _generalisation(results: Results):
    r = results["prediction"]
    names = list(dict.fromkeys(row["predictor"] for row in r["rows"]))
    content = []
    for k, name in enumerate(names):
        rows = [row for row in r["rows"] if row["predictor"] == name]
        style = "points" if rows[0]["family"].startswith("network") else "line"
        mse = np.array([row["mse"] for row in rows], np.float64)
        content.append(series(name, [row["n"] for row in rows], mse, style, group=k))
    rich = results["rich"]
    text = (
        f"networks that learn features {np.mean(rich['rich']['accuracy']):.3f}, lazy networks "
        f"{np.mean(rich['lazy']['accuracy']):.3f}, kernel {rich['kernel']:.3f}"
    )
    panel = lines("held-out error", "training rows n", "mean squared error", content, ("log", "log"))
    return [panel], [note(f"accuracy on sign(x₁x₂), d = {rich['d']}, n = {rich['n']}", text)]


F11 = FigureSpec(
    "F11", "Ensembles of trained networks against the closed form",
    "At every time the networks fill the band of the closed form; at t = ∞ it is not the band of the NNGP "
    "posterior.",
    ("ensemble",), ("5c",), _bands, 3,
)  # fmt: skip
F14 = FigureSpec(
    "F14", "From rich to lazy by the output scale",
    "To the right the drift falls as 1/α and nothing else changes any more: that is the lazy regime.",
    ("scale",), ("8",), _scale, 3,
)  # fmt: skip
F16 = FigureSpec(
    "F16", "The catapult: learning rates above 2/λmax",
    "Above 2 the loss first rises, the sharpness then drops below 2, and the drift no longer depends on the "
    "width.",
    ("rates",), ("11", "B"), _catapult, 3,
)  # fmt: skip
F21 = FigureSpec(
    "F21", "Held-out error against training-set size",
    "On this data the infinite-width predictors are compared with trained networks at each size of the "
    "training set.",
    ("prediction", "rich"), ("12",), _generalisation, 1,
)  # fmt: skip
