"""Progress in the terminal: one bar with the time left; plain lines where the output is not a terminal."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
from rich.text import Text

__all__ = ["LabProgress", "LazyProgress"]


class _TimeLeft(ProgressColumn):
    """The lab's own estimate: it knows how unequal its experiments are."""

    def render(self, task) -> Text:
        left = task.fields.get("left")
        if left is None:
            return Text("", style="dim")
        minutes, seconds = divmod(round(left), 60)
        return Text(f"{minutes} min {seconds:02d} s left" if minutes else f"{seconds} s left", style="dim")


class LabProgress:
    """Context manager; call it with the lab's events."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.lines = not self.console.is_terminal
        self.bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"),
            _TimeLeft(),
            console=self.console,
            transient=True,
        )
        self.interrupted = False
        self.before: Any = None
        self.task = self.bar.add_task("preparing", total=1.0, left=None)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self.before = signal.signal(signal.SIGINT, self._interrupt)
        if not self.lines:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.lines:
            self.bar.stop()
        if self.before is not None:
            signal.signal(signal.SIGINT, self.before)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.interrupted = True
        raise KeyboardInterrupt

    def __call__(self, event: dict[str, Any]) -> None:
        # Ctrl-C that falls into a callback of the garbage collector or of XLA is swallowed there: raise it again.
        if self.interrupted:
            raise KeyboardInterrupt
        what = f"{event['job_index']}/{event['jobs']} {event['title']}" if event["title"] else "done"
        self.bar.update(self.task, completed=event["fraction"], description=what, left=event.get("seconds_left"))
        if event["event"] == "failed":
            self.console.print(f"{what}: failed. {event['message']}", style="red", markup=False, soft_wrap=True)
        elif self.lines and event["event"] in ("done", "resumed"):
            tail = " (from an earlier start)" if event["event"] == "resumed" else ""
            print(what + tail, file=sys.stderr, flush=True)

    def drawing(self, name: str, done: int, total: int) -> None:
        """Told by the report as it draws figure after figure."""
        self.bar.update(self.task, description=f"drawing {name}", completed=done, total=total, left=None)


class LazyProgress(LabProgress):
    """The same for the laziness report; call it with (done, total, what)."""

    said = ""

    def __call__(self, done: int, total: int, what: str) -> None:  # type: ignore[override]
        if self.interrupted:
            raise KeyboardInterrupt
        self.bar.update(self.task, completed=done, total=total, description=what)
        if self.lines and what != self.said:
            self.said = what
            print(what, file=sys.stderr, flush=True)
