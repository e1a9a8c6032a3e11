"""Figures of networks before training: F2, F3, F5, F12."""

from __future__ import annotations

from typing import Any

import numpy as np

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


def circle_marks(marks: list[float]) -> list[dict[str, Any]]:
    """The two data points on the great circle."""
    return [mark("x", marks[0], "x₁"), mark("x", marks[1], "x₂")]


def _prior(results: Results):
    r = results["prior"]
    x, std = r["angle"], np.array(r["std"])
    content = [series("±2√K, infinite width", x, 0 * std, "band", low=-2 * std, high=2 * std, group=0)]
    for k, draw in enumerate(r["draws"]):
        content.append(series("random networks" if k == 0 else "", x, draw, "thin", group=1))
    panel = lines(
        f"{len(r['draws'])} random networks of width {r['width']}",
        "angle on a great circle through two data points",
        "output f", content, marks=circle_marks(r["marks"]),
    )  # fmt: skip
    text = f"{r['inside']:.1%} ± {r['inside_se']:.1%} of {r['networks']} networks (a Gaussian: 95.4 %)"
    return [panel], [note("inside the band", text)]


def _convergence(results: Results):
    r = results["initialisation"]
    panels, numbers = [], []
    for what, name in (("ntk", "NTK"), ("nngp", "NNGP")):
        content = [points(rows["label"], r["widths"], rows[what], k) for k, rows in enumerate(r["networks"])]
        first = content[0]
        if first["x"]:
            content.append(guide("N^-½", r["widths"], -0.5, (first["x"][0], 0.6 * first["y"][0])))
        panels.append(
            lines(
                f"{name} of random networks",
                "width N",
                "relative error ‖K̂ − K∞‖/‖K∞‖",
                content,
                ("log", "log"),
            )
        )
        numbers += [slope_note(f"slope, {name}, {rows['label']}", r["widths"], rows[what]) for rows in r["networks"]]
    return panels, numbers


def _heat_maps(results: Results):
    start, trained = results["initialisation"], results["training"]["widths"]
    widths = start["widths"]
    chosen = sorted({0, len(widths) // 2, len(widths) - 1})
    limit = np.array(start["limit"], np.float64)
    top = float(np.abs(limit).max())
    panels = [
        image(f"K̂₀, N = {widths[k]}", start["kernels"][k], limits=(-top, top), colour="diverging") for k in chosen
    ]
    panels.append(image("K∞", limit, limits=(-top, top), colour="diverging", colourbar="kernel"))
    n = len(limit)
    changes = [np.array(trained[k]["KT"], np.float64) - np.array(trained[k]["K0"], np.float64)[:n] for k in chosen]
    most = max(float(np.max(np.abs(c), where=np.isfinite(c), initial=1e-300)) for c in changes)
    for k, change in zip(chosen, changes, strict=True):
        panels.append(image(f"K_t − K_0, N = {widths[k]}", change, limits=(-most, most), colour="diverging"))
    panels[-1]["colourbar"] = "change"
    numbers = [
        note(f"largest change at N = {widths[k]}", f"{np.abs(c).max():.3g}")
        for k, c in zip(chosen, changes, strict=True)
    ]
    return panels, numbers


def _spectrum(results: Results):
    r = results["spectrum"]
    index = np.arange(1, r["points"] + 1)
    content = []
    for width, values, shade in zip(r["widths"], r["finite"], shades(len(r["widths"])), strict=True):
        content.append(series(f"NTK, N = {width}", index, values, "thin", shade=shade))
    styles = {"NTK": "line", "NNGP": "dashed", "Laplace": "dotted"}
    for k, (name, limit) in enumerate(r["limits"].items()):
        label = f"{name}, infinite width" if name != "Laplace" else "Laplace kernel"
        content.append(series(label, index, limit["eigenvalues"], styles[name], group=k))
    spectrum = lines(f"eigenvalues on {r['points']} points", "index i", "λ_i", content, ("log", "log"))
    condition = [
        points(
            "random networks",
            r["widths"],
            [[v for v in row if v is not None] for row in r["finite_condition"]],
            0,
        )
    ]
    if r["limits"]["NTK"]["condition"]:
        condition.append(
            series(
                "infinite width",
                [r["widths"][0], r["widths"][-1]],
                [r["limits"]["NTK"]["condition"]] * 2,
                "dashed",
            )
        )
    numbers = [
        note(
            f"exponent of λ_i, {name}",
            f"{v['exponent']:.2f} [{v['exponent_ci'][0]:.2f}, {v['exponent_ci'][1]:.2f}]".replace("-", "−"),
        )
        for name, v in r["limits"].items()
    ]
    return [
        spectrum,
        lines("condition number of the NTK", "width N", "λmax / λmin", condition, ("log", "log")),
    ], numbers


F2 = FigureSpec(
    "F2", "Random networks and the band of their limit",
    "The random networks wander inside the shaded band of the Gaussian process: about 95 in 100 of their "
    "values.",
    ("prior",), ("1",), _prior, 1,
)  # fmt: skip
F3 = FigureSpec(
    "F3", "Kernels of random networks approach their limits",
    "The points follow the grey line: four times the width halves the error of both kernels.",
    ("initialisation",), ("1", "2"), _convergence,
)  # fmt: skip
F5 = FigureSpec(
    "F5", "The kernel as a picture: random, infinite, and its change by training",
    "From left to right the upper pictures settle to K∞, and the lower ones, the change by training, fade.",
    ("initialisation", "training"), ("2", "3"), _heat_maps, 4,
)  # fmt: skip
F12 = FigureSpec(
    "F12", "Spectra of the kernels",
    "The spectra of wide networks lie on that of the limit, and fall as a power of the index.",
    ("spectrum",), (), _spectrum,
)  # fmt: skip
