"""From the results of experiments to verdicts: each check is a measure, and a claim holds if all of them
pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from widelimit.diagnostics import fit_points, fit_samples
from widelimit.lab._claims import CLAIMS, Claim
from widelimit.lab._measures import NotJudged, exponent, interval, measure, number

Results = Mapping[str, dict[str, Any]]
# Exponent of theory, lowest and highest slope accepted.
Law = tuple[float, None, float]
# Slopes of trends at large width mean little where the widest network is narrower than this.
LEAST_WIDTH = 256
LEAST_SEEDS = 16


def _wide_enough(widths: Sequence[int]) -> None:
    if max(widths) < LEAST_WIDTH:
        raise NotJudged(
            f"the widest network has width {max(widths)}; trends at large width need at least {LEAST_WIDTH}."
        )


def _column(rows: Sequence[Mapping[str, Any]], name: str, k: int | None = None) -> list[np.ndarray]:
    values = [np.asarray(row[name], np.float64) for row in rows]
    return values if k is None else [v[:, k] for v in values]


# ------------------------------------------------------------------------------------------- the claims


def _gaussian(results: Results) -> list[dict[str, Any]]:
    g, start = results["gaussian"], results["initialisation"]
    out = []
    for width, kurtosis, se in zip(g["widths"], g["kurtosis"], g["se"], strict=True):
        band = 0.05 if width <= 32 else 0.2
        value = kurtosis * width
        text = f"{value:.2f} ± {se * width:.2f}"
        out.append(
            measure(
                f"excess kurtosis · N at N = {width}",
                value,
                text,
                "15",
                f"15 ± {band:.0%}",
                abs(value / 15 - 1) <= band,
            )
        )
    relative = np.array(g["se"]) / np.array(g["kurtosis"])
    fit = {"of": "excess kurtosis", "over": "width", **fit_points(g["widths"], g["kurtosis"], relative)}
    out.insert(0, measure("excess kurtosis", fit["slope"], f"slope {interval(fit)}", "−1", "", None, fit))
    own = start["networks"][0]
    out.append(exponent("covariance given the hidden layers", start["widths"], own["nngp"], -0.5, -0.6, -0.4))
    return out


def _start(results: Results) -> list[dict[str, Any]]:
    start = results["initialisation"]
    seeds = len(start["networks"][0]["ntk"][0])
    band = (-0.6, -0.4) if seeds >= LEAST_SEEDS else (-0.65, -0.35)
    out = []
    for k, rows in enumerate(start["networks"]):
        name = f"‖K̂₀ − K∞‖/‖K∞‖, {rows['label']}"
        out.append(exponent(name, start["widths"], rows["ntk"], -0.5, *band, judged=k == 0))
    return out


def _drift(results: Results, law: Law) -> list[dict[str, Any]]:
    rows = results["training"]["widths"]
    widths = [r["width"] for r in rows]
    _wide_enough(widths)
    out = [exponent("sup_t ‖K_t − K_0‖/‖K_0‖", widths, _column(rows, "drift"), *law, upper=True)]
    last = float(np.mean(rows[-1]["drift"]))
    out.append(measure(f"drift at N = {widths[-1]}", last, number(last), "→ 0", "", None))
    return out


def _velocity(results: Results) -> list[dict[str, Any]]:
    flow = results["flow"]
    return [
        exponent(f"error of one step at N = {width}", flow["steps"], error, 1.0, 0.9, None, over="step size")
        for width, error in zip(flow["widths"], flow["error"], strict=True)
    ]


def _linearised(results: Results, law: Law) -> list[dict[str, Any]]:
    rows = results["training"]["widths"]
    widths = [r["width"] for r in rows]
    _wide_enough(widths)
    return [exponent("sup_t RMSE(f_t, f_t^lin)", widths, _column(rows, "linear_gap"), *law, upper=True)]


def _infinite(results: Results) -> list[dict[str, Any]]:
    rows = results["training"]["widths"]
    widths = [r["width"] for r in rows]
    _wide_enough(widths)
    return [exponent("sup_t RMSE(f_t, f_t^∞)", widths, _column(rows, "limit_gap"), -0.5, -0.6, -0.35)]


def _ensemble(results: Results) -> list[dict[str, Any]]:
    e = results["ensemble"]
    if e["width"] < 256 or e["networks"] < 100:
        raise NotJudged(f"{e['networks']} networks of width {e['width']}; the band needs 100 of width 256 or more.")
    worst = float(np.max(np.abs(np.array(e["z"], np.float64))))
    text = f"largest |z| {worst:.2f} over {len(e['z'])} held-out points, {e['networks']} networks of width {e['width']}"
    out = [measure("mean − closed form, in standard errors", worst, text, "0", "≤ 3", worst <= 3)]
    bias, se = np.array(e["bias"], np.float64), np.array(e["bias_se"], np.float64)
    text = ", ".join(f"{b:.4f} ± {s:.4f} at {w}" for b, s, w in zip(bias, se, e["bias_widths"], strict=True))
    out.append(measure("rms bias of the mean, by width", float(bias[-1]), text, "N^-1", "", None))
    text = (
        f"largest |z| {np.max(np.abs(np.array(e['z_paired'], np.float64))):.2f} with the networks' "
        f"own f₀ under the infinite kernel taken off"
    )
    out.append(measure("the same, paired", float(np.max(np.abs(e["z_paired"]))), text, "0", "", None))
    clear = bias > 2 * se
    if clear.sum() >= 3:
        widths = np.array(e["bias_widths"])[clear]
        fit = fit_points(widths, bias[clear], se[clear] / bias[clear])
        fit = {"of": "rms bias of the mean", "over": "width", **fit}
        out.append(measure("rms bias of the mean", fit["slope"], f"slope {interval(fit)}", "−1", "", None, fit))
    return out


def _hessian(results: Results) -> list[dict[str, Any]]:
    h = results["hessian"]
    _wide_enough(h["widths"])
    return [
        exponent("‖∇²f‖_op", h["widths"], h["operator"], -0.5, -0.6, -0.35),
        exponent("‖∇²f‖_F", h["widths"], h["frobenius"], 0.0, -0.1, 0.1),
    ]


def _movement(results: Results) -> list[dict[str, Any]]:
    rows = results["training"]["widths"]
    widths = [r["width"] for r in rows]
    _wide_enough(widths)
    change, size = _column(rows, "change"), _column(rows, "size")
    operator = [a / b for a, b in zip(_column(rows, "change_operator"), _column(rows, "size_operator"), strict=True)]
    layers = change[0].shape[1]
    moved = _column(rows, "moved")
    norm = _column(rows, "norm")  # the root of the number of parameters, N^2 once N is large against the inputs
    relative = [m / n for m, n in zip(moved, norm, strict=True)]

    def fit(name: str, samples: list[np.ndarray], theory: float) -> dict[str, Any]:
        return exponent(name, widths, samples, theory, theory - 0.15, theory + 0.15, upper=True)

    def part(ks: slice) -> list[np.ndarray]:
        return [
            np.linalg.norm(c[:, ks], axis=1) / np.linalg.norm(s[:, ks], axis=1)
            for c, s in zip(change, size, strict=True)
        ]

    out = [
        fit("‖Δθ‖/‖θ₀‖", relative, -fit_samples(widths, norm, upper=True)["slope"]),
        fit("‖Δθ‖", moved, 0.0),
        fit("first layer, ‖ΔW‖_F/‖W‖_F", part(slice(0, 1)), -0.5),
        fit("last layer, ‖ΔW‖_F/‖W‖_F", part(slice(layers - 1, layers)), -0.5),
    ]
    if layers > 2:
        hidden = slice(1, layers - 1)
        out.insert(3, fit("hidden layers, ‖ΔW‖_F/‖W‖_F", part(hidden), -1.0))
        out.append(fit("hidden layers, ‖ΔW‖_op/‖W‖_op", [o[:, hidden].max(1) for o in operator], -0.5))
    return out


def _features(results: Results) -> list[dict[str, Any]]:
    rows = results["training"]["widths"]
    widths = [r["width"] for r in rows]
    _wide_enough(widths)
    ours, other = _column(rows, "features"), _column([{"f": f} for f in results["features"]["features"]], "f")
    depth = ours[0].shape[1]
    out = []
    for k in range(depth):
        name = f"change of preactivations, layer {k + 1}"
        out.append(exponent(name, widths, [f[:, k] for f in ours], -0.5, -0.6, -0.4))
        samples = [f[:, k] for f in other]
        out.append(exponent(f"μP: {name}", results["features"]["widths"], samples, 0.0, -0.1, 0.1))
    return out


def _closed_form(results: Results) -> list[dict[str, Any]]:
    c = results["closed_form"]
    return [
        measure("flow against an ODE solver", c["flow_error"], f"max |difference| {number(c['flow_error'])}",
            "0", "≤ 1e-8", c["flow_error"] <= 1e-8),
        measure("steps against gradient descent", c["steps_error"],
            f"max |difference| {number(c['steps_error'])}", "0", "≤ 1e-10", c["steps_error"] <= 1e-10),
    ]  # fmt: skip


def _linear(results: Results) -> list[dict[str, Any]]:
    r = results["linear"]
    return [
        measure("relative drift of the NTK", r["drift"], number(r["drift"]), "0", "≤ 1e-14",
            r["drift"] <= 1e-14),
        measure("‖K − XXᵀ/d ⊗ I‖/‖K‖", r["gram_error"], number(r["gram_error"]), "0", "≤ 1e-14",
            r["gram_error"] <= 1e-14),
        measure("relative change of W meanwhile", r["change"], number(r["change"]), "", "", None),
    ]  # fmt: skip


def _rate_row(results: Results, eta: float, theory: float, low: float | None, high: float | None) -> dict[str, Any]:
    rates = results["rates"]
    row = next(r for r in rates["rows"] if r["eta"] == eta)
    return exponent(f"drift at η·λmax = {eta:g}", rates["widths"], row["drift"], theory, low, high, upper=True)


def _below(results: Results, law: Law) -> list[dict[str, Any]]:
    _wide_enough(results["rates"]["widths"])
    return [_rate_row(results, eta, *law) for eta in results["rates"]["etas"] if eta < 2]


def _above(results: Results) -> list[dict[str, Any]]:
    rates = results["rates"]
    _wide_enough(rates["widths"])
    out = []
    for eta in (2.5, 3.5):
        out.append(_rate_row(results, eta, 0.0, -0.2, 0.2))
        row = next(r for r in rates["rows"] if r["eta"] == eta)
        ratio = np.concatenate([np.asarray(x, np.float64) for x in row["ratio"]])
        worst = float(np.max(ratio))
        text = f"largest final / first loss {number(worst)}"
        out.append(measure(f"loss falls at η·λmax = {eta:g}", worst, text, "→ 0", "< 1", worst < 1))
    row = rates["rows"][-1]
    ratio = np.concatenate([np.asarray(x, np.float64) for x in row["ratio"]])
    share = float(np.mean(~(ratio < 1)))
    name = f"share of diverged runs at η·λmax = {row['eta']:g}"
    out.append(measure(name, share, f"{share:.0%}", "diverges", "≥ 50 %", share >= 0.5))
    return out


def _generalisation(results: Results) -> list[dict[str, Any]]:
    prediction, rich = results["prediction"], results["rich"]
    n = max(r["n"] for r in prediction["rows"])
    here = [r for r in prediction["rows"] if r["n"] == n and r["score"] is not None]
    kernel = max((r for r in here if r["family"] in ("ntk", "ntk_t", "nngp")), key=lambda r: r["score"])
    best = max((r for r in here if r["family"] == "network"), key=lambda r: r["score"])
    # Both are judged on the same held-out rows, so their difference is averaged row by row.
    a, b = (np.array(prediction["per_row"][r["predictor"]], np.float64) for r in (kernel, best))
    gap, error = float(np.mean(a - b)), float(np.std(a - b, ddof=1) / np.sqrt(len(a)))
    text = (
        f"{kernel['predictor']} {kernel['score']:.3f}, best networks {best['score']:.3f} "
        f"({best['predictor']}, "
        f"{n} training rows)"
    )
    band = f"≥ −{2 * error:.3f} (2 standard errors)"
    out = [measure("kernel − network on the data", gap, text, "≥ 0", band, gap >= -2 * error)]
    accuracy = np.array(rich["rich"]["accuracy"], np.float64)
    margin = float(accuracy.mean() - rich["kernel"])
    error = np.sqrt(rich["kernel"] * (1 - rich["kernel"]) / 1000 + accuracy.var(ddof=1) / len(accuracy))
    text = (
        f"feature-learning networks {accuracy.mean():.3f}, kernel {rich['kernel']:.3f} on "
        f"sign(x₁x₂), d = {rich['d']}, n = {rich['n']}"
    )
    out.append(
        measure(
            "network − kernel on a two-coordinate target",
            margin,
            text,
            "> 0",
            f"> {2 * error:.3f} (2 standard errors)",
            margin > 2 * error,
        )
    )
    text = (
        "published: kernel (CNTK-GAP) 77 %, network (CNN-GAP) 83 % at depth 11 on CIFAR-10 (Arora "
        "et al. 2019); not measured here"
    )
    out.append(measure("convolutional networks", None, text, "< 0", "", None))
    return out


def _parameterisation(results: Results) -> list[dict[str, Any]]:
    p = results["parameterisation"]
    _wide_enough(p["widths"][:-2])  # the last two are the experiment's own
    # the standard kernel is A + N B, A from the inputs: its exponents at these widths, which tend to -1 and 1
    theory = {what: fit_points(p["widths"], p["theory"][what], upper=True)["slope"] for what in ("rate", "trace")}
    plan = (
        ("standard", "rate", "largest stable η, standard", theory["rate"]),
        ("ntk", "rate", "largest stable η, NTK", 0.0),
        ("standard", "trace", "tr K / n, standard", theory["trace"]),
        ("ntk", "trace", "tr K / n, NTK", 0.0),
    )
    return [
        exponent(name, p["widths"], p[which][what], theory, theory - 0.1, theory + 0.1, upper=True)
        for which, what, name, theory in plan
    ]


def _logistic(results: Results, law: Law) -> list[dict[str, Any]]:
    r = results["logistic"]
    _wide_enough(r["widths"])
    out = [exponent("drift under logistic loss", r["widths"], r["drift"], *law, upper=True)]
    times = np.array(r["long"]["times"], np.float64)
    k = int(np.argmin(np.abs(times - times[-1] / 10)))
    growth = {}
    for loss in ("squared", "logistic"):
        moved = np.array(r["long"][loss]["moved"], np.float64)
        growth[loss] = float(moved[-1] / moved[k])
    text = (
        f"‖Δθ‖ grows by a factor {growth['logistic']:.2f} over the last decade of time (squared "
        f"loss: {growth['squared']:.2f})"
    )
    passed = growth["logistic"] > max(1.1, growth["squared"])
    name = f"long training at N = {r['long']['width']}"
    band = "> 1.1, and more than under squared loss"
    out.append(measure(name, growth["logistic"], text, "∝ log t", band, passed))
    return out


def _decay(results: Results, law: Law) -> list[dict[str, Any]]:
    r = results["decay"]
    _wide_enough(r["widths"])
    return [
        exponent("drift, decay to θ₀", r["widths"], r["to_start"], *law, upper=True),
        exponent("drift, decay to zero", r["widths"], r["to_zero"], 0.0, -0.2, 0.2, upper=True),
    ]


JUDGES: dict[str, Callable[..., list[dict[str, Any]]]] = {
    "1": _gaussian, "2": _start, "3": _drift, "4": _velocity, "5": _linearised, "5b": _infinite,
    "5c": _ensemble,
    "6": _hessian, "7": _movement, "8": _features, "9": _closed_form, "10": _linear, "11": _below,
    "12": _generalisation, "14": _parameterisation, "A": _logistic, "B": _above, "C": _decay,
}  # fmt: skip


def judge(claim: Claim, results: Results, errors: Mapping[str, str], seconds: float) -> dict[str, Any]:
    """The claim's entry in the results document."""
    measures: list[dict[str, Any]] = []
    failed = [f"the experiment {name} failed: {errors[name]}" for name in claim.experiments if name in errors]
    reason = "; ".join(failed)
    if not reason:
        try:
            law = () if claim.highest is None else ((claim.theory_slope, None, claim.highest),)
            measures = JUDGES[claim.id](results, *law)
        except NotJudged as why:
            reason = str(why)
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            reason = f"its results are not complete ({error})"
    judged = [m for m in measures if m["passed"] is not None]
    holds = all(m["passed"] for m in judged)
    verdict = "not judged" if reason or not judged else "holds" if holds else "falls short"
    with_fit = next((m for m in measures if m["exponent"] is not None), None)
    return {
        "id": claim.id, "section": claim.section, "title": claim.title, "post": claim.post,
        "statement": claim.statement, "theory": claim.theory, "theory_slope": claim.theory_slope,
        "acceptance": claim.acceptance, "exponent": with_fit and with_fit["exponent"],
        "value": _value(claim, measures), "measures": measures, "verdict": verdict,
        "sentence": _sentence(verdict, measures, reason), "figures": list(claim.figures),
        "experiments": list(claim.experiments), "seconds": seconds,
    }  # fmt: skip


def _value(claim: Claim, measures: list[dict[str, Any]]) -> str | None:
    texts = [m for m in measures if m["exponent"] is None and m["passed"] is not None]
    return f"{texts[0]['name']}: {texts[0]['text']}" if texts else None


def _sentence(verdict: str, measures: list[dict[str, Any]], reason: str) -> str:
    if reason:
        return f"Not judged: {reason}"
    judged = [m for m in measures if m["passed"] is not None]
    bad = [m for m in judged if not m["passed"]]
    if verdict == "holds":
        first = judged[0]
        more = f"; all {len(judged)} checks pass" if len(judged) > 1 else ""
        return f"{first['name']}: {first['text']}, theory {first['theory']}, band {first['band']}{more}."
    return "Falls short: " + "; ".join(f"{m['name']}: {m['text']}, band {m['band']}" for m in bad) + "."


assert set(JUDGES) == {c.id for c in CLAIMS}
