"""The prediction job and claim 12: infinite-width predictors against trained networks on held-out data."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from widelimit import dynamics
from widelimit.lab import _limit
from widelimit.lab._context import Context
from widelimit.lab._finite import Rule, Shape, draw, output
from widelimit.lab.experiments._base import Experiment

HELD_OUT = 500


class Clock:
    """Wall and CPU seconds since it was made."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        return {"seconds": time.perf_counter() - self.wall, "cpu_seconds": time.process_time() - self.cpu}


def _fitter(shape: Shape, steps: int):
    """Compiled ``(params, X, Y, X_test, rule) -> (f_test, f_train)``: outputs ``alpha (f - centre f_0)``,
    fixed rate.
    """

    def run(start, X, Y, X_test, rule):

        def read(params, Z):
            f, f0 = (output(shape, p, Z).reshape(len(Z), -1) for p in (params, start))
            return rule.alpha * (f - rule.centre * f0)

        shift = rule.centre * output(shape, start, X).reshape(Y.shape)

        def step(_, params):
            f, pull = jax.vjp(lambda p: output(shape, p, X).reshape(Y.shape), params)
            (grads,) = pull(rule.alpha * (rule.alpha * (f - shift) - Y))
            return jax.tree.map(lambda p, g: p - rule.fixed * g, params, grads)

        params = jax.lax.fori_loop(0, steps, step, start)
        return read(params, X_test), read(params, X)

    return jax.jit(run)


@lru_cache(maxsize=32)
def _compiled(shape: Shape, steps: int, *sizes: tuple[int, int]):
    arrays = [jax.ShapeDtypeStruct(size, jnp.float32) for size in sizes]
    params = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), draw(shape, 0))
    rule = Rule(*(jax.ShapeDtypeStruct((), jnp.float32) for _ in Rule._fields))
    return _fitter(shape, steps).lower(params, *arrays, rule).compile()


def fit_networks(
    shape: Shape, seeds: list[int], X, Y, X_test, steps: int, rule: Rule
) -> list[tuple[np.ndarray, np.ndarray, dict[str, float]]]:
    """Held-out and training outputs and the time of each network; compilation is not counted."""
    X, Y, X_test = (np.float32(a) for a in (X, Y, X_test))
    rule = Rule(*(np.float32(v) for v in rule))
    compiled = _compiled(shape, steps, X.shape, Y.shape, X_test.shape)
    out = []
    for seed in seeds:
        clock = Clock()
        f_test, f_train = (np.asarray(f, np.float64) for f in compiled(draw(shape, seed), X, Y, X_test, rule))
        out.append((f_test, f_train, clock.read()))
    return out


def score(f: np.ndarray, Y: np.ndarray, classes: bool) -> float:
    """Accuracy of the largest output, or R^2."""
    return float(np.mean(row_scores(f, Y, classes)))


def row_scores(f: np.ndarray, Y: np.ndarray, classes: bool) -> np.ndarray:
    """One number a held-out row, whose mean is the score."""
    if classes:
        return (f.argmax(1) == Y.argmax(1)).astype(np.float64)
    return 1.0 - len(Y) * np.sum((f - Y) ** 2, axis=1) / np.sum((Y - Y.mean(0)) ** 2)


def mse(f: np.ndarray, Y: np.ndarray) -> float:
    return float(np.mean((f - Y) ** 2))


def _kernels(shape: Shape, X, X_test) -> list[tuple[np.ndarray, np.ndarray]]:
    """NNGP and NTK, each of the training points, and of the held-out against the training points."""
    n = len(X)
    return [(K[:n, :n], K[n:, :n]) for K in _limit.limit_kernels(shape, np.concatenate([X, X_test]))]


def _kernel_rows(context: Context, shape: Shape, X, Y, X_test, Y_test, steps: int) -> tuple[list[dict], float]:
    """Rows of the table for the three predictors of infinite width, and the learning rate of the networks."""
    classes = context.data.kind == "classes"
    _kernels(shape, X, X_test)  # what is compiled once is not counted, here and for the networks
    clock = Clock()
    (nngp, nngp_test), (ntk, ntk_test) = _kernels(shape, X, X_test)
    gram = clock.read()
    eta = float(dynamics.max_learning_rate(ntk)) / 2
    rows = []
    for family, predictor in (("ntk", "NTK, t → ∞"), ("ntk_t", "NTK, same steps"), ("nngp", "NNGP")):
        clock = Clock()
        K, K_test = (nngp, nngp_test) if family == "nngp" else (ntk, ntk_test)
        if family == "ntk_t":
            predict = dynamics.steps(K, Y, learning_rate=eta)
            t: float = steps
        else:
            predict = dynamics.flow(K, Y)
            t = np.inf
        f, f_train = np.asarray(predict(t, K_test)), np.asarray(predict(t))
        used = clock.read()
        rows.append(
            {
                "n": len(X), "predictor": predictor, "family": family, "width": None, "networks": None,
                "steps": steps if family == "ntk_t" else None, "score": score(f, Y_test, classes),
                "score_se": None,
                "mse": mse(f, Y_test), "mse_se": None, "train_mse": mse(f_train, Y), "ridge": 0.0,
                **{k: used[k] + gram[k] for k in used}, "per_row": row_scores(f, Y_test, classes),
            }
        )  # fmt: skip
    return rows, eta


def _network_row(
    context: Context, shape: Shape, X, Y, X_test, Y_test, steps: int, eta: float, centre: float
) -> dict[str, Any]:
    classes = context.data.kind == "classes"
    count = context.sizes.prediction_networks
    seeds = [context.seed("prediction", len(X), shape.width, i) for i in range(count)]
    runs = fit_networks(shape, seeds, X, Y, X_test, steps, Rule(fixed=eta, centre=centre))
    scores = np.array([score(f, Y_test, classes) for f, _, _ in runs])
    errors = np.array([mse(f, Y_test) for f, _, _ in runs])
    name = f"network, width {shape.width}"
    return {
        "n": len(X), "predictor": name if centre else f"{name}, random start",
        "family": "network" if centre else "network_random_start", "width": shape.width,
        "networks": count, "steps": steps, "score": scores.mean(),
        "score_se": scores.std(ddof=1) / np.sqrt(count),
        "mse": errors.mean(), "mse_se": errors.std(ddof=1) / np.sqrt(count),
        "train_mse": float(np.mean([mse(f, Y) for _, f, _ in runs])), "ridge": None,
        **{k: float(np.mean([used[k] for _, _, used in runs])) for k in ("seconds", "cpu_seconds")},
        "per_row": np.mean([row_scores(f, Y_test, classes) for f, _, _ in runs], axis=0),
    }  # fmt: skip


def split(context: Context) -> tuple[np.ndarray, list[np.ndarray]]:
    """Rows held out, and nested training sets of growing size."""
    n = context.data.n
    order = np.random.default_rng(context.seed("prediction")).permutation(n)
    held_out = min(HELD_OUT, n // 3)
    most = n - held_out
    sizes = sorted({min(size, most) for size in context.sizes.sizes})
    return order[:held_out], [order[held_out : held_out + size] for size in sizes]


def run(context: Context) -> dict[str, Any]:
    """The table of predictors; kernels and networks see the same rows.

    The networks are read out as f − f₀, so that they start from zero like the kernels' means; those of one
    width also with their random initial outputs, to show what those cost.
    """
    data, steps = context.data, context.sizes.prediction_steps
    test, trainings = split(context)
    widths = context.sizes.prediction_widths
    total, done = len(trainings) * (len(widths) + 2), 0
    rows: list[dict[str, Any]] = []
    for train in trainings:
        X, Y, X_test, Y_test = data.X[train], data.Y[train], data.X[test], data.Y[test]
        base = context.shape(widths[-1], outputs=Y.shape[1])
        kernel_rows, eta = _kernel_rows(context, base, X, Y, X_test, Y_test, steps)
        rows += kernel_rows
        context.tick(done := done + 1, total)
        for width, centre in [*((w, 1.0) for w in widths), (widths[len(widths) // 2], 0.0)]:
            shape = base._replace(width=width)
            rows.append(_network_row(context, shape, X, Y, X_test, Y_test, steps, eta, centre))
            context.tick(done := done + 1, total)
    per_row = {row["predictor"]: row.pop("per_row") for row in rows}  # the last size, the largest, stays
    return {"held_out": len(test), "sizes": [len(t) for t in trainings], "rows": rows, "per_row": per_row}


EXPERIMENT = Experiment("prediction", "Prediction of held-out data", run, (15, 70, 900))
