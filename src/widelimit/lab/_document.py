"""What the results document says about the run besides its results."""

from __future__ import annotations

import datetime
import platform
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import numpy as np

from widelimit.lab import _limit
from widelimit.lab._context import Context
from widelimit.lab._data import Dataset

SCHEMA = 1

CONVENTIONS = {
    "network": "f(x) with z = W_std/√fan_in · a W + b_std · b, W, b ~ N(0, 1) (NTK parameterisation)",
    "depth": "number of hidden layers; the activation follows each of them, not the input",
    "loss": "½ Σ (f − y)² over the training points; the logistic loss is Σ log(1 + e^(−y f)) with y = ±1",
    "learning rate": "θ ← θ − η ∇loss; η in units of 1/λmax of the network's own first NTK unless said",
    "time": "t in steps; the time of the flow is η·t",
    "kernel": "K(x, x') = ∇f(x)·∇f(x') of one output; distances: Frobenius norm, training points",
    "exponent": "weighted least squares of log y on log N over all seeds, with 95 % interval",
    "upper widths": "from an eighth of the widest on (128 to 1024 by default), at least three",
    "verdict": "holds: every judged measure lies in its band (point estimates; intervals are beside)",
    "prediction": "ridge 0; classes are one-hot minus 1/classes, the largest output wins; else standardised",
}


def describe(context: Context, kind: str, rows: Sequence[Mapping[str, Any]], *, complete: bool) -> dict[str, Any]:
    """The document without claims, prediction and figures; rows: what became of each experiment."""
    s, data = context.settings, context.data
    layers = "hidden layer" if s.depth == 1 else "hidden layers"
    return {
        "schema": SCHEMA,
        "kind": kind,
        "title": f"widelimit lab: {data.name}, {s.depth} {layers}, {s.activation}",
        "complete": complete,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": sum(row["seconds"] for row in rows),
        "cpu_seconds": sum(row["cpu_seconds"] for row in rows),
        "seed": s.seed,
        "settings": s.as_dict(),
        "data": _describe_data(context),
        "network": _describe_network(context),
        "versions": _versions(),
        "conventions": [{"name": name, "text": text} for name, text in CONVENTIONS.items()],
        "experiments": list(rows),
    }


def _describe_data(context: Context) -> dict[str, Any]:
    d = context.data
    return {
        "name": d.name,
        "description": d.description,
        "normalisation": d.normalisation,
        "sha256": d.sha256,
        "kind": d.kind,
        "n": d.n,
        "d": d.d,
        "classes": d.classes,
        "target_note": context.task.note,
    }


def _describe_network(context: Context) -> dict[str, Any]:
    shape, s = context.shape(context.widths[-1]), context.settings
    b = f", b_std={shape.b_std:g}" if shape.b_std else ""
    name = type(_limit.network(shape).layers[1]).__name__
    hidden = [f"Dense(N, W_std={shape.W_std:.6g}{b})", f"{name}()"] * s.depth
    layers = [*hidden, f"Dense(1, W_std={shape.W_std:.6g}{b})"]
    body = ", ".join(f"nn.{layer}" for layer in layers)
    layer = "hidden layer" if s.depth == 1 else "hidden layers"
    return {
        "description": f"Fully connected, {shape.d} inputs, {s.depth} {layer} of width N, "
        f"{s.activation}, one output (one a class in the prediction job), NTK parameterisation.",
        "layers": layers,
        "code": f"from widelimit import nn\n\nN = {shape.width}\nnet = nn.Sequential({body})\n",
        "parameters": [{"width": w, "parameters": _count(shape._replace(width=w))} for w in context.widths],
        "limit": _describe_limit(context),
    }


def _describe_limit(context: Context) -> dict[str, Any]:
    clock, n = time.perf_counter(), context.task.n
    nngp, ntk = (K[:n, :n] for K in context.limit)
    values = np.linalg.eigvalsh(ntk)
    positive = values[0] > 1e-12 * values[-1]
    return {
        "n": n,
        "nngp_diag": float(np.mean(np.diag(nngp))),
        "ntk_diag": float(np.mean(np.diag(ntk))),
        "lambda_max": values[-1],
        "lambda_min": values[0],
        "condition": values[-1] / values[0] if positive else None,
        "max_learning_rate": 2.0 / values[-1],
        "seconds": time.perf_counter() - clock,
    }


def _count(shape) -> int:
    pairs = zip(shape.sizes[:-1], shape.sizes[1:], strict=True)
    return sum(i * o + (o if shape.b_std else 0) for i, o in pairs)


def prediction(results: Mapping[str, Any], data: Dataset) -> dict[str, Any] | None:
    if "prediction" not in results:
        return None
    r = results["prediction"]
    classes = data.kind == "classes"
    metric = "accuracy" if classes else "R²"
    n = max(row["n"] for row in r["rows"])
    here = [row for row in r["rows"] if row["n"] == n and row["score"] is not None]

    def best(*families: str) -> dict[str, Any] | None:
        rows = [row for row in here if row["family"] in families]
        return max(rows, key=lambda row: row["score"]) if rows else None

    def say(row: dict[str, Any]) -> str:
        score = f"{row['score']:.1%}" if classes else f"R² {row['score']:.3f}"
        return f"{score} in {row['seconds']:.2g} s"

    kernel, network = best("ntk", "ntk_t", "nngp"), best("network")
    sentence = f"With {n} training rows no predictor gave a finite score."
    if kernel and network:
        sentence = (
            f"With {n} training rows the infinite-width {kernel['predictor'].split(',')[0]} predictor "
            f"reaches "
            f"{say(kernel)} without training, the best trained networks ({network['predictor']}) "
            f"{say(network)}."
        )
    return {
        "task": data.kind,
        "metric": metric,
        "held_out": r["held_out"],
        "held_out_note": f"{r['held_out']} rows drawn at random, the same for every predictor and size",
        **{k: r[k] for k in ("sizes", "rows")},
        "sentence": sentence,
    }


def version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def _versions() -> dict[str, str]:
    names = ("widelimit", "jax", "jaxlib", "numpy", "scipy", "scikit-learn")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
