"""The report as a document of plain values: headline, tables, figures and settings; and the same as a page of text."""

from __future__ import annotations

import textwrap
from importlib import metadata
from typing import Any

import numpy as np

from widelimit.diagnostics._figures import figures_of
from widelimit.diagnostics._plain import plain
from widelimit.diagnostics._result import Laziness
from widelimit.diagnostics._verdict import LAZY, RICH

__all__ = ["CONVENTIONS", "SCHEMA", "document", "number", "sweep_text", "text_of"]

SCHEMA = 1
WIDTH = 100
_ROWS = 12  # parameters that the page of text shows

_LOSSES = {
    "sum": "½ Σ (f − y)²", "mean": "½ mean (f − y)²", "cross_entropy": "cross-entropy", "logistic": "logistic",
}  # fmt: skip

CONVENTIONS = {
    "kernel drift": "‖K_t − K_0‖ / ‖K_0‖, Frobenius norm, K the empirical NTK averaged over outputs",
    "linearisation": "f(θ_0) + df/dθ (θ − θ_0) trained by the same steps (of checkpoints: at the same parameters); its "
    "distance is the rms over examples and outputs, relative to the largest rms change of the outputs",
    "features": "rms(h_t − h_0) / rms(h_0) of what a layer is given, over examples and channels",
    "alignment": "⟨K, Y Yᵀ⟩ / (‖K‖ ‖Y Yᵀ‖), for one output yᵀ K y / (‖K‖ |y|²); centred: both without their means",
    "effective rank": "exp(−Σ p log p) of the eigenvalues of K divided by their sum",
    "η λ": "learning rate times the largest eigenvalue of the Gauss-Newton matrix; gradient descent is stable below 2",
    "Hessian": "operator norm of the second derivative of one output by all parameters, at the start",
    "κ": "‖Σ r ∇²f‖ / ‖Jᵀ H J‖ at the start, r the slopes and H the curvature of the loss: small is lazy",
    "verdict": f"lazy: drift and distance at most {LAZY:.0%}; rich: either {RICH:.0%} or more; features are not judged",
}


def number(value: float | None) -> str:
    """Three digits; an en dash for what is not known."""
    if value is None or not np.isfinite(value):
        return "–"
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        text = f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    else:
        text = f"{value:.1e}"
    return text.replace("-", "−")


def _training(found: Laziness) -> str:
    s = found.settings
    if s["training"] == "checkpoints":
        return f"{len(found.times) - 1} checkpoints, times {int(found.times[1])} to {int(found.times[-1])}"
    how = "" if s["learning_rate_given"] else ", half of the largest that is stable at the start"
    scale = "" if s["alpha"] is None else f", output α(f − f_0) with α = {s['alpha']:g}"
    return f"{s['steps']} full-batch steps, learning rate {number(s['learning_rate'])}{how}{scale}"


def _described(found: Laziness) -> list[tuple[str, str]]:
    s = found.settings
    test = f", {s['n_test']} to test" if s["n_test"] else ""
    return [
        (
            "Network",
            f"{s['parameters']:,} parameters in {len(s['shapes'])} arrays, {s['outputs']} output".replace(",", " ")
            + ("" if s["outputs"] == 1 else "s"),
        ),
        ("Data", f"{s['n']} examples to train{test}; kernel on {s['examples']}"),
        ("Training", f"{_LOSSES.get(s['loss'], s['loss'])} loss; {_training(found)}"),
        ("Computed", f"in double precision, in {s['seconds']:.0f} s"),
    ]


def _course(found: Laziness) -> dict[str, Any]:
    """Start, end and largest of each quantity."""
    f = found
    rows: list[tuple[str, Any, bool]] = [
        ("loss of an example", f.loss, False), ("  of the linearised network", f.loss_linear, False),
        ("loss of a test example", f.loss_test, False), ("  of the linearised network", f.loss_test_linear, False),
        ("accuracy", f.accuracy, True), ("  of the linearised network", f.accuracy_linear, True),
        ("test accuracy", f.accuracy_test, True), ("  of the linearised network", f.accuracy_test_linear, True),
        ("kernel drift", f.drift, True),
        ("distance to linearisation, of the outputs' change", f.gap / np.nanmax(f.change) if f.change.any() else
        f.gap, True), ("  on test examples", None if f.gap_test is None else f.gap_test / (np.nanmax(f.change) or 1),
        True), ("parameters ‖θ − θ_0‖", f.movement, False), ("  relative to ‖θ_0‖", f.movement_relative, True),
        ("features, most moved layer", np.max(list(f.features.values()), axis=0) if f.features else None, True),
        ("alignment of kernel and targets", f.alignment, False), ("  centred", f.alignment_centred, False),
        ("effective rank of the kernel", f.effective_rank, False),
        ("λ_max of the kernel", f.lambda_max, False), ("η λ (stable below 2)", f.instability, False),
    ]  # fmt: skip
    cells = []
    for name, values, share in rows:
        if values is None or not np.isfinite(values).any():
            continue
        shown = [values[0], values[-1], np.nanmax(values)]
        cells.append([name, *(_share(v) if share else number(v) for v in shown)])
    return {
        "title": "In training", "columns": ["", "start", "end", "largest"], "rows": cells,
        "note": "Per example; largest over the times at which it was measured.",
    }  # fmt: skip


def _share(value: float) -> str:
    if not np.isfinite(value):
        return "–"
    return "0 %" if value == 0 else f"{number(100 * value)} %"


def _by_parameter(found: Laziness) -> dict[str, Any]:
    rows = []
    for name, drift in found.drift_by_parameter.items():
        feature = found.features.get(name)
        operator, size = found.movement_operator_by_parameter[name][-1], found.settings["sizes_operator"][name]
        rows.append(
            [
                name, "×".join(map(str, found.settings["shapes"][name])) or "1",
                _share(found.trace_by_parameter[name][0]), _share(drift[-1]),
                number(found.movement_by_parameter[name][-1]), _share(found.movement_relative_by_parameter[name][-1]),
                _share(operator / size) if np.isfinite(operator) and size else "–",
                "–" if feature is None else "data" if not feature.any() else _share(feature[-1]),
                number(found.alignment_by_parameter[name][-1]),
            ]
        )  # fmt: skip
    return {
        "title": "By parameter, at the end",
        "columns": ["", "shape", "of trace", "drift", "‖Δθ‖", "rel.", "rel. op.", "input", "align."],
        "rows": rows,
        "note": "of trace: share of the kernel at the start; rel.: ‖Δθ‖/‖θ_0‖, Frobenius, and in the operator norm "
        "(matrices); input: movement of the features that the layer is given.",
    }  # fmt: skip


def _curvature(found: Laziness) -> str:
    if not found.hessian.size:
        return ""
    spread = f" (from {number(found.hessian.min())} to {number(found.hessian.max())})" if found.hessian.size > 1 else ""
    return (
        f"Hessian of an output at the start: operator norm {number(found.hessian.mean())} on average over "
        f"{found.hessian.size} examples{spread}; κ = {number(found.kappa)}."
    )


def document(found: Laziness, *, title: str = "How lazy is this network?", sweeps: Any = ()) -> dict[str, Any]:
    """Everything that the page shows, as plain values that JSON can hold."""
    from widelimit.diagnostics._sweep import sweep_figure, sweep_table

    # what a sweep has measured need not be extrapolated
    known = tuple({"width": "Width:", "alpha": "Output scale:"}[s.over] for s in sweeps if s.advice)
    advice = [line for line in found.advice if not line.startswith(known or ("\0",))]
    advice += [line for s in sweeps for line in s.advice]
    versions = {name: metadata.version(name) for name in ("widelimit", "jax", "numpy")}
    return plain(
        {
            "schema": SCHEMA, "kind": "laziness", "title": title, "verdict": found.verdict, "sentence": found.sentence,
            "advice": advice, "notes": list(found.notes), "described": [list(p) for p in _described(found)],
            "curvature": _curvature(found),
            "tables": [_course(found), _by_parameter(found), *map(sweep_table, sweeps)],
            "figures": figures_of(found) | {f["id"]: f for f in map(sweep_figure, sweeps)},
            "conventions": [{"name": k, "text": v} for k, v in CONVENTIONS.items()], "versions": versions,
            "result": found.to_dict(), "sweeps": [s.to_dict() for s in sweeps],
        }
    )  # fmt: skip


def text_of(made: dict[str, Any]) -> str:
    """The document as one page of text."""
    out = [f"{made['title']}  {made['verdict'].upper()}", "", *_wrapped(made["sentence"]), ""]
    out += [f"{name:<10}{text}" for name, text in made["described"]] + [""]
    for table in made["tables"]:
        rows, left = table["rows"], []
        if table["title"].startswith("By parameter") and len(rows) > _ROWS:
            left = [f"  and {len(rows) - _ROWS} more parameters (in the JSON and on the page)"]
            rows = rows[:_ROWS]
        out += [*_table({**table, "rows": rows}), *left, ""]
    out += [*_wrapped(made["curvature"]), ""] if made["curvature"] else []
    out += ["What would change it", *(line for text in made["advice"] for line in _wrapped(text, "- "))]
    if made["notes"]:
        out += ["", "Notes", *(line for text in made["notes"] for line in _wrapped(text, "- "))]
    return "\n".join(line.rstrip() for line in out)


def sweep_text(sweep: Any) -> str:
    """A sweep as a table and what it says."""
    from widelimit.diagnostics._sweep import sweep_table

    table = sweep_table(sweep)
    lines = [*_table(table), "", *_wrapped(table["note"]), "", *(li for a in sweep.advice for li in _wrapped(a, "- "))]
    return "\n".join(line.rstrip() for line in lines).rstrip()


def _wrapped(text: str, bullet: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=bullet, subsequent_indent=" " * len(bullet))


def _table(table: dict[str, Any]) -> list[str]:
    lines = [[*table["columns"]], *table["rows"]]
    lines[0][0] = table["title"]
    sizes = [max(len(row[i]) for row in lines) for i in range(len(lines[0]))]
    return [
        "  ".join(
            cell.ljust(n) if i == 0 else cell.rjust(n) for i, (cell, n) in enumerate(zip(row, sizes, strict=True))
        )
        for row in lines
    ]
