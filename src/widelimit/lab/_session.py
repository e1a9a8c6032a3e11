"""One run: the experiments that are needed, what is finished kept, what fails listed."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from widelimit.lab._claims import Claim
from widelimit.lab._clock import Clock, Progress
from widelimit.lab._context import Context
from widelimit.lab._document import describe, prediction
from widelimit.lab._errors import LabError
from widelimit.lab._store import Store, plain
from widelimit.lab._verdicts import judge
from widelimit.lab.experiments import EXPERIMENTS, Experiment
from widelimit.lab.figures import FIGURES, make_figure

FigureMade = Callable[[dict[str, Any]], None]


class Session:
    """One run: its context, its store, and what became of each experiment."""

    def __init__(
        self, context: Context, store: Store, progress: Progress | None, figure_made: FigureMade | None = None
    ) -> None:
        self.context, self.store = context, store
        self.progress = progress or (lambda event: None)
        self.figure_made = figure_made or (lambda figure: None)
        self.figures: dict[str, dict[str, Any]] = {}
        self.records: dict[str, dict[str, Any]] = {}
        self.rows: list[dict[str, Any]] = []
        self.errors: dict[str, str] = {}

    def perform(self, names: Iterable[str], figures: Iterable[str]) -> None:
        """Run every named experiment that is not there yet, and make each figure as soon as its experiments are
        done.
        """
        waiting = list(figures)
        jobs = [e for name, e in EXPERIMENTS.items() if name in set(names)]
        clock = Clock(jobs, self.context.settings.effort, self.progress)
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
                waiting = [name for name in waiting if not self._figure(name)]
        clock.finish()

    def _one(self, experiment: Experiment, clock: Clock) -> None:
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

    def _row(self, experiment: Experiment, used: Mapping[str, Any], *, resumed: bool, error: str | None) -> None:
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

    def document(self, kind: str, claims: list[Claim]) -> dict[str, Any]:
        """The results document."""
        results = {name: record["result"] for name, record in self.records.items()}
        judged = [judge(c, results, self.errors, self._seconds(c.experiments)) for c in claims]
        return plain(
            {
                **describe(self.context, kind, self.rows, complete=not self.errors),
                "claims": judged,
                "prediction": prediction(results, self.context.data) if kind == "lab" else None,
                "figures": {name: self.figures[name] for name in FIGURES if name in self.figures},
            }
        )

    def _figure(self, name: str) -> bool:
        """Make the figure if its experiments are done; one that cannot be made is listed with its error like an
        experiment that failed.  True if there is no more to be done about it.
        """
        spec = FIGURES[name]
        if not set(spec.experiments) <= set(self.records):
            return False
        try:
            figure = make_figure(spec, {n: record["result"] for n, record in self.records.items()})
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            self.errors[name] = f"{type(error).__name__}: {error}"
            row = Experiment(name, f"Figure {name}: {spec.title}", lambda _: {}, (0, 0, 0))
            self._row(row, {"seconds": 0.0, "cpu_seconds": 0.0}, resumed=False, error=self.errors[name])
            return True
        self.figures[name] = figure
        self.figure_made(figure)
        return True

    def _seconds(self, names: Iterable[str]) -> float:
        return sum(row["seconds"] for row in self.rows if row["name"] in names)
