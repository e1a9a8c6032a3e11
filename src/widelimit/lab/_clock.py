"""Progress events with the time left."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from widelimit.lab.experiments import Experiment

Progress = Callable[[dict[str, Any]], None]


class Clock:
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
