"""What every experiment is given: the settings, the data, the task, seeds, and a way to report progress."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import numpy as np

from widelimit.lab import _limit
from widelimit.lab._data import Dataset
from widelimit.lab._finite import Rule, Shape, Trained, train
from widelimit.lab._settings import Effort, Settings
from widelimit.lab._task import Task

A = TypeVar("A")
B = TypeVar("B")

# Looks at a network in training.
CHECKPOINTS = 24
# Small networks keep one core busy at most, and compiling keeps exactly one busy.
WORKERS = min(4, os.cpu_count() or 1)


def _silent(done: int, total: int) -> None:
    pass


@dataclass
class Context:
    """Settings are resolved; ``tick(done, total)`` reports progress inside one experiment."""

    settings: Settings
    data: Dataset
    task: Task
    tick: Callable[[int, int], None] = field(default=_silent)

    @property
    def sizes(self) -> Effort:
        return self.settings.sizes

    @property
    def widths(self) -> tuple[int, ...]:
        assert self.settings.widths is not None
        return self.settings.widths

    @property
    def upper_widths(self) -> tuple[int, ...]:
        """The widths without the narrowest (if three remain): for experiments about trends at large width."""
        return self.widths[1:] if len(self.widths) > 3 else self.widths

    def shape(self, width: int, **other) -> Shape:
        s = self.settings
        assert s.W_std is not None
        return Shape(self.data.d, width, s.depth, s.activation, s.W_std, s.b_std)._replace(**other)

    def seed(self, *what: str | int) -> int:
        """A seed that belongs to this experiment, width and repetition."""
        words = [self.settings.seed] + [int.from_bytes(str(w).encode(), "big") for w in what]
        return int(np.random.SeedSequence(words).generate_state(1)[0] >> 1)

    @cached_property
    def limit(self) -> tuple[np.ndarray, np.ndarray]:
        """NNGP and NTK (P, P) of the network at infinite width on every point of the task."""
        return _limit.limit_kernels(self.shape(self.widths[-1]), self.task.X)

    @property
    def ntk(self) -> np.ndarray:
        return self.limit[1]

    @property
    def lambda_max(self) -> float:
        """Largest eigenvalue of the limiting NTK on the training points."""
        n = self.task.n
        return float(np.linalg.eigvalsh(self.ntk[:n, :n])[-1])

    def map(self, function: Callable[[A], B], items: Iterable[A]) -> list[B]:
        """The function of each item, in order, a few at a time; the last item (the widest network) is begun
        first.
        """
        items = list(items)
        pool = ThreadPoolExecutor(WORKERS)
        try:
            futures = [pool.submit(function, item) for item in reversed(items)]
            for done, future in enumerate(as_completed(futures), 1):
                future.result()
                self.tick(done, len(items))
            return [future.result() for future in reversed(futures)]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def fewer_seeds(self, width: int) -> int:
        """Half the seeds, for experiments beside the main one."""
        return max(2, self.settings.seeds_at(width) // 2)

    def times(self, steps: int) -> np.ndarray:
        """Numbers of steps at which a training run is looked at: every one at first, then geometrically."""
        return checkpoints(steps)

    @staticmethod
    def ends(steps: int) -> np.ndarray:
        """The start and the end of a training run alone."""
        return np.array([0, steps])

    def train(
        self,
        width: int,
        seed: int,
        times: np.ndarray,
        rule: Rule,
        y: np.ndarray | None = None,
        *,
        operators: bool = False,
    ) -> Trained:
        target = self.task.y if y is None else y
        lengths = np.diff(times, prepend=0)
        shape, n = self.shape(width), self.task.n
        return train(shape, n, seed, self.task.X, target, lengths, rule, operators=operators)


def checkpoints(steps: int) -> np.ndarray:
    """``CHECKPOINTS`` increasing numbers from 0 to steps."""
    if steps < CHECKPOINTS:
        raise ValueError(f"steps must be at least {CHECKPOINTS}, not {steps}.")
    out = [0]
    for left in range(CHECKPOINTS - 1, 0, -1):
        last = max(out[-1], 1)
        out.append(max(out[-1] + 1, round(last * (steps / last) ** (1 / left))))
    out[-1] = steps
    return np.array(out)
