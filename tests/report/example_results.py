"""A small document of the lab's results, made up but of the right schema and of plausible sizes."""

from __future__ import annotations

import numpy as np

WIDTHS = [64, 128, 256, 512, 1024]
CLAIMS = ["1", "2", "3", "4", "5", "5b", "5c", "6", "7", "8", "9", "10", "11", "12", "14", "A", "B", "C"]


def _series(label, style, x, y, low=None, high=None, group=None, shade=None):
    def clean(values):
        return None if values is None else [float(v) if np.isfinite(v) else None for v in values]

    return {
        "label": label, "style": style, "x": [float(v) for v in x], "y": clean(y), "low": clean(low),
        "high": clean(high), "group": group, "shade": shade,
    }  # fmt: skip


def _lines(title, xlabel, ylabel, series, scales="linear linear", marks=(), xlim=None, ylim=None):
    xscale, yscale = scales.split()
    return {
        "kind": "lines", "title": title, "xlabel": xlabel, "ylabel": ylabel, "xscale": xscale, "yscale": yscale,
        "xlim": xlim, "ylim": ylim, "legend": True, "series": series, "marks": list(marks),
    }  # fmt: skip


def _image(title, values, colour="sequential", vmin=None, vmax=None, bar="", scale="linear", **more):
    rows = [[float(v) if np.isfinite(v) else None for v in row] for row in values]
    return {
        "kind": "image", "title": title, "xlabel": "", "ylabel": "", "values": rows, "scale": scale, "colour": colour,
        "vmin": vmin, "vmax": vmax, "xticks": None, "yticks": None, "colourbar": bar, **more,
    }  # fmt: skip


def _figure(name, title, see, claims, numbers, columns, panels):
    return {
        "id": name, "title": title, "see": see, "claims": claims, "columns": columns, "panels": panels,
        "numbers": [{"name": k, "text": t} for k, t in numbers],
    }  # fmt: skip


def _fit(slope, of, se=0.02, x=WIDTHS, scale=1.0):
    y = [scale * (w / x[0]) ** slope for w in x]
    return {
        "slope": slope, "se": se, "ci": [slope - 1.96 * se, slope + 1.96 * se], "level": 0.95, "of": of, "over": "width",
        "x": list(map(float, x)), "y": y, "intercept": float(np.log(scale) - slope * np.log(x[0])),
        "local": [slope] * (len(x) - 1),
    }  # fmt: skip


def _guide(slope, y0, label):
    return _series(label, "guide", WIDTHS, [y0 * (w / WIDTHS[0]) ** slope for w in WIDTHS])


def _points(label, slope, y0, group, rng):
    y = np.array([y0 * (w / WIDTHS[0]) ** slope for w in WIDTHS]) * np.exp(0.03 * rng.normal(size=5))
    return _series(label, "points", WIDTHS, y, y * 0.9, y * 1.12, group=group)


def _shades():
    return [(w, i / (len(WIDTHS) - 1)) for i, w in enumerate(WIDTHS)]


def _f2(rng):
    x = np.linspace(-np.pi, np.pi, 90)
    draws = [
        _series("random networks, width 512" if i == 0 else "", "thin", x, rng.normal(0, 1, 3) @ np.stack(
            [np.cos(x), np.sin(x), np.cos(2 * x) / 2])) for i in range(40)
    ]  # fmt: skip
    band = _series("±2 √K∞(x, x)", "band", x, 0 * x, 0 * x - 2.2, 0 * x + 2.2, group=1)
    curve = _series("K∞(x, x′)", "dashed", x, 1.1 * np.cos(x), group=0)
    panel = _lines("", "angle on the circle (rad)", "output f(x)", [*draws, band, curve])
    return _figure("F2", "Random networks and the limit's band", "95 % of the outputs lie inside the band.", ["1"],
                   [("inside the band", "95.2 % (theory 95.4 %)")], 1, [panel])  # fmt: skip


def _f3(rng):
    def panel(what):
        nets = [
            ("erf, 1 hidden", -0.49),
            ("erf, 2 hidden", -0.5),
            ("relu, 2 hidden", -0.48),
            ("erf, 3 hidden", -0.51),
        ]
        series = [_points(n, s, 0.2 * 1.3**i, i, rng) for i, (n, s) in enumerate(nets)]
        ylabel = "‖K̂ − K∞‖ / ‖K∞‖ (Frobenius)"
        return _lines(what, "width N", ylabel, [*series, _guide(-0.5, 0.16, "N^-½")], "log log")

    see = "The error of a finite network's kernel halves when the width is multiplied by four."
    return _figure("F3", "Kernels at initialisation", see, ["2"],
                   [("NTK, erf, 2 hidden", "slope −0.50 [−0.54, −0.46]; theory −½")], 2, [panel("NTK"), panel("NNGP")])  # fmt: skip


def _f5(rng):
    n = 32
    base = np.kron(np.eye(4), np.ones((8, 8))) + 0.3
    bar = {"vmin": 0.0, "vmax": 2.0, "bar": "K(x, x′)"}
    ks = [_image(f"K̂, N = {w}", base + 5 / w**0.5 * rng.normal(size=(n, n)), **bar) for w in (64, 256, 1024)]
    ks.append(_image("K∞", base, **bar))
    bar = {"colour": "diverging", "vmin": -0.5, "vmax": 0.5, "bar": "K_T − K_0"}
    ks += [_image(f"K_T − K_0, N = {w}", 30 / w * rng.normal(size=(n, n)), **bar) for w in (64, 256, 1024)]
    return _figure("F5", "The kernel as a picture", "The wider the network, the closer to the limit.", ["2", "3"],
                   [], 4, ks)  # fmt: skip


def _f6(rng):
    t = np.geomspace(0.1, 400, 30)
    run = [_series(f"N = {w}", "line", t, 20 / w * t / (t + 8), shade=s) for w, s in _shades()]
    end = [
        _points("sup over t", -0.97, 0.3, 0, rng),
        _guide(-1, 0.3, "N^-1 (sharp)"),
        _guide(-0.5, 0.3, "N^-½ (bound)"),
    ]
    ylabel = "‖K_t − K_0‖ / ‖K_0‖"
    return _figure("F6", "How far the kernel moves in training", "Twice the width, half the drift.", ["3"],
                   [("slope", "−0.97 [−1.02, −0.92]; theory −1")], 2,
                   [_lines("during training", "time t = η · step", ylabel, run, "log log"),
                    _lines("at its largest", "width N", ylabel, end, "log log")])  # fmt: skip


def _f7(rng):
    step = np.unique(np.geomspace(1, 300, 25).astype(int))
    move = [_series(f"N = {w}", "line", step, 8 / w * step / (step + 30), shade=s) for w, s in _shades()]
    layers = [("input", -0.5, 0.05), ("hidden", -1.0, 0.04), ("output", -0.5, 0.1), ("all", -1, 0.03)]
    per = [_points(n, s, y, i, rng) for i, (n, s, y) in enumerate(layers)]
    loss = [_series(f"N = {w}", "line", step, 10 * np.exp(-step / 60) + 0.1, shade=s) for w, s in _shades()]
    return _figure("F7", "How far the parameters move", "Each weight hardly moves, yet the loss falls.", ["7"],
                   [("input", "slope −0.52"), ("hidden", "slope −1.03"), ("‖Δθ‖", "slope −0.03, flat")], 3,
                   [_lines("all parameters", "step", "‖Δθ‖ / ‖θ₀‖", move, "log log"),
                    _lines("by layer, at the end", "width N", "‖ΔW‖ / ‖W₀‖", per, "log log"),
                    _lines("loss", "step", "training loss", loss, "log log")])  # fmt: skip


def _f9(_):
    t = np.geomspace(0.1, 300, 60)

    def panel(title, floor):
        names = [("network, N = 1024", "points", 0), ("linearised", "line", 1), ("closed form, own K̂", "dashed", 2),
                 ("infinite kernel", "dotted", 3)]  # fmt: skip
        series = [_series(n, s, t, 5 * np.exp(-t / 20) * (1 + 0.03 * g) + floor, group=g) for n, s, g in names]
        return _lines(title, "time t = η · step", "mean squared error", series, "log log")

    return _figure("F9", "Four ways to the same losses", "The four curves coincide.", ["5", "5b", "9"],
                   [("largest relative gap", "1.2 %")], 2, [panel("train", 1e-4), panel("test", 0.8)])  # fmt: skip


def _f11(rng):
    x = np.linspace(-np.pi, np.pi, 60)

    def panel(title, amount):
        mean, spread = amount * np.sin(x), 1.2 - amount * 0.8 * np.cos(x / 2) ** 2
        series = [_series("100 networks, mean ± 2σ", "band", x, mean, mean - 2 * spread, mean + 2 * spread, group=0),
                  _series("limit, mean ± 2σ", "dashed", x, mean - 2 * spread, group=1),
                  _series("", "dashed", x, mean + 2 * spread, group=1),
                  _series("NNGP posterior", "dotted", x, mean + 1.7 * spread, group=2),
                  _series("data", "points", [-2, -0.5, 1, 2], np.sin([-2, -0.5, 1, 2]))]  # fmt: skip
        return _lines(title, "angle on the circle (rad)", "output", series)

    panels = [panel(f"t = {t}", a) for t, a in (("1.0", 0.3), ("8.0", 0.7), ("300", 0.95), ("∞", 1.0))]
    return _figure("F11", "Bands of a trained ensemble", "The ensemble fills the NTK band, not the NNGP's.", ["5c", "9"],
                   [("coverage", "94.8 % (95.4 %)")], 2, panels)  # fmt: skip


def _f12(rng):
    i = np.arange(1, 65)
    nets = [_series(f"NTK, N = {w}", "line", i, 30 * i**-1.4 * (1 + 3 / w**0.5), shade=s) for w, s in _shades()]
    rest = [_series("NTK, N = ∞", "dashed", i, 30 * i**-1.4), _series("NNGP", "line", i, 8 * i**-1.5, group=1),
            _series("Laplace", "line", i, 25 * i**-1.2, group=2)]  # fmt: skip
    cond = [_points("NTK", -0.1, 500, 0, rng)]
    return _figure("F12", "Spectra", "The spectrum decays like a power.", ["2"], [("exponent", "−1.41 [−1.45, −1.37]")],
                   2, [_lines("eigenvalues", "index i", "λ_i", nets + rest, "log log"),
                       _lines("condition number", "width N", "λ_max / λ_min", cond, "log log",
                              [{"axis": "y", "at": 420.0, "label": "limit"}])])  # fmt: skip


def _f13(_):
    t = np.geomspace(0.1, 300, 30)
    series = []
    for g, rate in enumerate((1, 0.3, 0.1, 0.02, 0.005)):
        decay = 2 / (g + 1) * np.exp(-rate * t)
        series.append(_series(f"mode {4**g}", "points", t[::3], decay[::3], group=g))
        series.append(_series("", "line", t, decay, group=g))
    rates = [1, 0.3, 0.1, 0.02, 0.005]
    fit = [
        _series("fitted rate", "points", rates, np.array(rates) * 1.02, group=0),
        _series("λ_i", "guide", rates, rates),
    ]
    return _figure("F13", "Each eigenmode at its own pace", "Each mode decays at the rate its eigenvalue says.", ["9"],
                   [("slope", "1.00 [0.98, 1.02]")], 2,
                   [_lines("residual by mode", "time t = η · step", "|uᵢᵀ(y − f_t)|", series, "log log"),
                    _lines("rates", "η λ_i", "fitted rate", fit, "log log")])  # fmt: skip


def _f14(_):
    a = 2.0 ** np.arange(-4, 8)
    d = 0.4 / a
    drift = [
        _series("N = 128", "points", a, d, d * 0.9, d * 1.1, group=0),
        _series("α^-1", "guide", a, 0.3 / a),
    ]
    loss = [_series("N = 128", "points", a, 0.5 + 0.2 / (1 + 1 / a), group=0)]
    alignment = [_series("N = 128", "points", a, 0.2 + 0.3 / (1 + a), group=0)]
    return _figure("F14", "From rich to lazy", "Large α freezes the kernel.", ["7"], [("slope", "−1.00 for α ≥ 4")], 3,
                   [_lines("kernel drift", "output scale α", "drift", drift, "log log"),
                    _lines("test loss", "output scale α", "mean squared error", loss, "log linear"),
                    _lines("alignment", "output scale α", "A(K_T, yyᵀ)", alignment, "log linear")])  # fmt: skip


def _f16(rng):
    etas = [0.5, 1.0, 1.8, 2.5, 3.5, 5.0, 8.0]
    step = np.arange(0, 100)
    losses, sharp = [], []
    for g, e in enumerate(etas):
        bump = 20 * np.exp(-((step - 12) ** 2) / 40) * (e > 2)
        values = np.where((e > 6) & (step > 10), np.nan, 8 * np.exp(-step / 15) + 1e-5 + bump)
        losses.append(_series(f"ηλ = {e:g}", "line", step, values, shade=g / 6))
        sharp.append(_series(f"ηλ = {e:g}", "line", step, np.minimum(e, e + (1.6 - e) * (step > 15)), shade=g / 6))
    heat = np.array(
        [[e / w * 20 if e < 2 else 0.3 + e / 20 if e < 6 else np.nan for w in (64, 128, 256, 512)] for e in etas]
    )
    ticks = {"xticks": [{"at": i, "label": str(w)} for i, w in enumerate((64, 128, 256, 512))],
             "yticks": [{"at": i, "label": f"{e:g}"} for i, e in enumerate(etas)], "xlabel": "width N",
             "ylabel": "η λ_max"}  # fmt: skip
    return _figure("F16", "The catapult", "Above ηλ = 2 the loss first rises and the kernel moves at any width.", ["11", "B"],
                   [("threshold", "between 1.8 and 2.5")], 3,
                   [_lines("loss", "step", "training loss", losses, "linear log"),
                    _lines("sharpness", "step", "η λ_max(K_t)", sharp, marks=[{"axis": "y", "at": 2.0, "label": "2"}]),
                    {**_image("final drift", heat, bar="drift", scale="log", vmin=0.01, vmax=1.0), **ticks}])  # fmt: skip


def _claim(name):
    slope = {"2": -0.5, "3": -1.0, "5": -1.0, "5b": -0.5, "6": -0.5, "7": -0.5, "8": -0.5, "14": 1.0}.get(name)
    verdict = "falls short" if name == "5b" else "not judged" if name == "12" else "holds"
    measured = None if slope is None else _fit(slope + 0.02, "relative error")
    return {
        "id": name, "section": "4.2" if name in "ABC" else "4.1", "title": f"The claim with the number {name}",
        "post": "what the post says", "statement": "‖K̂₀ − K∞‖_F / ‖K∞‖_F falls like N^-½ when the width N grows",
        "theory": "exact" if slope is None else f"N^{slope:g}", "theory_slope": slope,
        "acceptance": "error ≤ 1e-8" if slope is None else "slope in [-0.6, -0.4]", "exponent": measured,
        "value": "max |error| 3.1e-11" if slope is None else None,
        "measures": [{"name": "NTK & NNGP <error>", "value": -0.48, "text": "−0.48", "theory": "−0.5", "band": "[−0.6, −0.4]",
                      "passed": None if name == "12" else name != "5b", "exponent": measured}],
        "verdict": verdict, "sentence": f"Claim {name}: the fitted exponent says so.", "figures": ["F3"] if name == "2" else [],
        "experiments": ["initialisation"], "seconds": 3.2,
    }  # fmt: skip


def _prediction():
    rows = []
    for n in (50, 200):
        for predictor, family, width in [
            ("NTK, t → ∞", "ntk", None), ("NTK, same steps", "ntk_t", None), ("NNGP", "nngp", None),
            ("network, width 64", "network", 64), ("network, width 256", "network", 256),
        ]:  # fmt: skip
            rows.append({
                "n": n, "predictor": predictor, "family": family, "width": width, "networks": 3 if width else None,
                "steps": 400 if width else None, "score": 0.8 + n / 2000, "score_se": 0.004 if width else None, "mse": 0.02,
                "mse_se": None, "train_mse": 0.001, "ridge": None if width else 1e-6, "seconds": 3.1 if width else 0.04,
                "cpu_seconds": 4.0,
            })  # fmt: skip
    return {"task": "classes", "metric": "accuracy", "held_out": 797, "held_out_note": "the last 797 digits", "sizes": [50, 200],
            "rows": rows, "sentence": "The kernels predict as well as the networks, and at once."}  # fmt: skip


def example_results() -> dict:
    """A new results document with every claim, every figure and the prediction job."""
    rng = np.random.default_rng(0)
    made = [f(rng) for f in (_f2, _f3, _f5, _f6, _f7, _f9, _f11, _f12, _f13, _f14, _f16)]
    settings = {"data": "digits", "target": None, "depth": 2, "activation": "erf", "W_std": 1.5, "b_std": 0.0, "widths": WIDTHS,
                "seeds": 4, "claims": None, "effort": "default", "seed": 0}  # fmt: skip
    limit = {"n": 32, "nngp_diag": 0.71, "ntk_diag": 2.13, "lambda_max": 15.3, "lambda_min": 0.12, "condition": 127.0,
             "max_learning_rate": 0.13, "seconds": 0.2}  # fmt: skip
    names = ("widelimit", "python", "jax", "jaxlib", "numpy", "scipy", "scikit-learn")
    return {
        "schema": 1, "kind": "lab", "title": "widelimit lab: digits, 2 hidden layers, erf", "complete": True,
        "created": "2026-01-01T12:30:00+00:00", "seconds": 88.1, "cpu_seconds": 120.4, "seed": 0, "settings": settings,
        "data": {"name": "digits", "description": "handwritten digits, 8 x 8 pixels", "normalisation": "|x|² = d",
                 "sha256": "0" * 64, "kind": "classes", "n": 1797, "d": 64, "classes": [str(i) for i in range(10)],
                 "target_note": "classes 0-4: -1, 5-9: +1"},
        "network": {"description": "2 hidden layers of width N, erf, W_std = 1.5, no bias.",
                    "layers": ["Dense(1024, W_std=1.5)", "Erf()", "Dense(1024, W_std=1.5)", "Erf()", "Dense(1, W_std=1.5)"],
                    "code": "nn.Sequential(\n    nn.Dense(1024, W_std=1.5), nn.Erf(),\n    nn.Dense(1, W_std=1.5),\n)",
                    "parameters": [{"width": w, "parameters": 64 * w + w * w + w} for w in WIDTHS], "limit": limit},
        "versions": dict.fromkeys(names, "1.2.3"),
        "conventions": [{"name": "loss", "text": "½ Σ (f − y)², so that df/dt = −η K (f − y)."}],
        "experiments": [{"name": "initialisation", "title": "Kernels at initialisation", "seconds": 12.0, "cpu_seconds": 20.0,
                         "resumed": False, "error": None}],
        "claims": [_claim(c) for c in CLAIMS], "prediction": _prediction(), "figures": {f["id"]: f for f in made},
    }  # fmt: skip
