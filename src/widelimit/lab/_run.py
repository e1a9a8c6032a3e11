"""The main job: run the experiments that are needed, keep what is finished, judge the claims, describe the
figures.
"""

from __future__ import annotations

import datetime
import platform
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from widelimit.lab import _limit
from widelimit.lab._claims import CLAIMS, Claim
from widelimit.lab._context import Context
from widelimit.lab._data import Dataset, load_data
from widelimit.lab._errors import LabError, SettingsError
from widelimit.lab._settings import Settings
from widelimit.lab._store import Store, plain
from widelimit.lab._task import make_task
from widelimit.lab._verdicts import judge
from widelimit.lab.experiments import EXPERIMENTS, Experiment
from widelimit.lab.figures import FIGURES, make_figure

SCHEMA = 1
Progress = Callable[[dict[str, Any]], None]

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


def run(
    settings: Settings, out: Path | str | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Run the lab and return the results document (docs: results schema 1).

    With ``out`` every finished experiment is kept there at once, so that a run that was interrupted goes on
    where it was, and ``results.json`` is written at the end.  Raises SettingsError, DataError or OutputError
    before any work.
    """
    claims = [c for c in CLAIMS if settings.claims is None or c.id in settings.claims]
    needed = {name for c in claims for name in c.experiments}
    if settings.claims is None:
        needed |= {name for figure in FIGURES.values() for name in figure.experiments}
    session = _Session(settings, out, progress)
    session.perform(needed)
    figures = [f for f in FIGURES.values() if set(f.experiments) <= needed]
    document = session.document("lab", claims, [f.id for f in figures])
    session.store.write_results(document)
    return document


def run_figure(
    name: str, settings: Settings, out: Path | str | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Run what one figure needs and return a document of kind "figure" that holds it; raises as :func:`run`
    does.
    """
    by_name = {k.lower(): k for k in FIGURES}
    if str(name).lower() not in by_name:
        raise SettingsError(f"unknown figure {name!r}; there are {', '.join(FIGURES)}.")
    spec = FIGURES[by_name[str(name).lower()]]
    session = _Session(settings, out, progress)
    session.perform(spec.experiments)
    return session.document("figure", [], [spec.id])


class _Session:
    """One run: its context, its store, and what became of each experiment."""

    def __init__(self, settings: Settings, out: Path | str | None, progress: Progress | None) -> None:
        self.settings = settings.resolved()
        self.data: Dataset = load_data(self.settings.data, self.settings.target)
        self.context = Context(self.settings, self.data, make_task(self.data, self.settings.seed))
        chosen = {k: v for k, v in self.settings.as_dict().items() if k != "claims"}
        source = f"{self.data.name} (sha256 {self.data.sha256[:16]})"
        self.store = Store(out, {**chosen, "data": source, "version": _version("widelimit")})
        self.progress = progress or (lambda event: None)
        self.records: dict[str, dict[str, Any]] = {}
        self.rows: list[dict[str, Any]] = []
        self.errors: dict[str, str] = {}

    def perform(self, names: Iterable[str]) -> None:
        """Run every named experiment that is not there yet."""
        jobs = [e for name, e in EXPERIMENTS.items() if name in set(names)]
        clock = _Clock(jobs, self.settings.effort, self.progress)
        with warnings.catch_warnings():
            # A narrow network's own rate may exceed 2/lambda_max of the limit, its kernel may be singular,
            # and a diverging run overflows: all are results here, and reported as such.
            warnings.filterwarnings("ignore", category=RuntimeWarning)
            warnings.filterwarnings("ignore", ".*is singular to rounding")
            for index, experiment in enumerate(jobs):
                record = self.store.load(experiment.name, experiment.revision)
                clock.begin(index, resumed=record is not None)
                if record is None:
                    self._one(experiment, clock)
                else:
                    self._keep(experiment, record, resumed=True)
                    clock.end("resumed")
        clock.finish()

    def _one(self, experiment: Experiment, clock: _Clock) -> None:
        self.context.tick = clock.tick
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            result = experiment.run(self.context)
        except LabError:
            raise
        except Exception as error:
            # An experiment that fails must not take the others with it.
            message = f"{type(error).__name__}: {error}"
            self.errors[experiment.name] = message
            used = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
            self._row(experiment, used, resumed=False, error=message)
            clock.end("failed", message)
            return
        used = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
        record = self.store.save(experiment.name, experiment.revision, {"result": result, **used})
        self._keep(experiment, record, resumed=False)
        clock.end("done")

    def _keep(self, experiment: Experiment, record: dict[str, Any], *, resumed: bool) -> None:
        self.records[experiment.name] = record
        self._row(experiment, record, resumed=resumed, error=None)

    def _row(
        self, experiment: Experiment, used: Mapping[str, Any], *, resumed: bool, error: str | None
    ) -> None:
        self.rows.append(
            {
                "name": experiment.name,
                "title": experiment.title,
                "seconds": used["seconds"],
                "cpu_seconds": used["cpu_seconds"],
                "resumed": resumed,
                "error": error,
            }
        )

    def document(self, kind: str, claims: list[Claim], figures: list[str]) -> dict[str, Any]:
        """The results document."""
        results = {name: record["result"] for name, record in self.records.items()}
        s = self.settings
        judged = [judge(c, results, self.errors, self._seconds(c.experiments)) for c in claims]
        made = self._figures(figures, results)
        layers = "hidden layer" if s.depth == 1 else "hidden layers"
        return plain(
            {
                "schema": SCHEMA,
                "kind": kind,
                "title": f"widelimit lab: {self.data.name}, {s.depth} {layers}, {s.activation}",
                "complete": not self.errors,
                "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "seconds": sum(row["seconds"] for row in self.rows),
                "cpu_seconds": sum(row["cpu_seconds"] for row in self.rows),
                "seed": s.seed,
                "settings": s.as_dict(),
                "data": self._describe_data(),
                "network": self._describe_network(),
                "versions": _versions(),
                "conventions": [{"name": name, "text": text} for name, text in CONVENTIONS.items()],
                "experiments": self.rows,
                "claims": judged,
                "prediction": _prediction(results, self.data) if kind == "lab" else None,
                "figures": made,
            }
        )

    def _figures(self, names: list[str], results: Mapping[str, Any]) -> dict[str, Any]:
        """The figures that can be drawn; one that cannot is listed with its error like an experiment that
        failed.
        """
        made = {}
        for name in names:
            spec = FIGURES[name]
            if not set(spec.experiments) <= set(results):
                continue
            try:
                made[name] = make_figure(spec, results)
            except (ArithmeticError, LookupError, TypeError, ValueError) as error:
                self.errors[name] = f"{type(error).__name__}: {error}"
                row = Experiment(name, f"Figure {name}: {spec.title}", lambda _: {}, (0, 0, 0))
                self._row(row, {"seconds": 0.0, "cpu_seconds": 0.0}, resumed=False, error=self.errors[name])
        return made

    def _seconds(self, names: Iterable[str]) -> float:
        return sum(row["seconds"] for row in self.rows if row["name"] in names)

    def _describe_data(self) -> dict[str, Any]:
        d = self.data
        return {
            "name": d.name,
            "description": d.description,
            "normalisation": d.normalisation,
            "sha256": d.sha256,
            "kind": d.kind,
            "n": d.n,
            "d": d.d,
            "classes": d.classes,
            "target_note": self.context.task.note,
        }

    def _describe_network(self) -> dict[str, Any]:
        shape, s = self.context.shape(self.context.widths[-1]), self.settings
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
            "parameters": [
                {"width": w, "parameters": _count(shape._replace(width=w))} for w in self.context.widths
            ],
            "limit": self._describe_limit(),
        }

    def _describe_limit(self) -> dict[str, Any]:
        clock, n = time.perf_counter(), self.context.task.n
        nngp, ntk = (K[:n, :n] for K in self.context.limit)
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


class _Clock:
    """Turns what happens into progress events, with the time left from the pace so far."""

    def __init__(self, jobs: list[Experiment], effort: str, progress: Progress) -> None:
        column = ("quick", "default", "full").index(effort)
        self.jobs, self.progress = jobs, progress
        self.costs = [e.cost[column] for e in jobs]
        self.saved = 0.0  # cost of what was there already: it says nothing about the pace
        self.start = time.perf_counter()
        self.index = 0

    def begin(self, index: int, *, resumed: bool) -> None:
        self.index = index
        if resumed:
            self.saved += self.costs[index]
        else:
            self._send("start", 0, 1)

    def tick(self, done: int, total: int) -> None:
        self._send("progress", done, total)

    def end(self, event: str, message: str = "") -> None:
        self._send(event, 1, 1, message)

    def finish(self) -> None:
        self.index = len(self.jobs)
        self._send("finished", 1, 1)

    def _send(self, event: str, done: int, total: int, message: str = "") -> None:
        over = self.index >= len(self.jobs)
        before = sum(self.costs[: self.index])
        now = before + (0.0 if over else self.costs[self.index] * done / max(total, 1))
        whole = sum(self.costs) or 1.0
        elapsed, worked = time.perf_counter() - self.start, now - self.saved
        pace = elapsed / worked if worked > 0.02 * whole else None
        job = None if over else self.jobs[self.index]
        self.progress(
            {
                "event": event,
                "job": job.name if job else "",
                "title": job.title if job else "",
                "job_index": min(self.index + 1, len(self.jobs)),
                "jobs": len(self.jobs),
                "done": done,
                "total": total,
                "fraction": 1.0 if over else now / whole,
                "seconds_left": 0.0 if over else None if pace is None else pace * (whole - now),
                "message": message,
            }
        )


def _count(shape) -> int:
    pairs = zip(shape.sizes[:-1], shape.sizes[1:], strict=True)
    return sum(i * o + (o if shape.b_std else 0) for i, o in pairs)


def _prediction(results: Mapping[str, Any], data: Dataset) -> dict[str, Any] | None:
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

    kernel, network = best("ntk", "nngp"), best("network")
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


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def _versions() -> dict[str, str]:
    names = ("widelimit", "jax", "jaxlib", "numpy", "scipy", "scikit-learn")
    return {"python": platform.python_version(), **{name: _version(name) for name in names}}
