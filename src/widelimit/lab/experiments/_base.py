"""What an experiment is: a name, a function of the context that returns plain results, and what it costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from widelimit.lab._context import Context


@dataclass(frozen=True)
class Experiment:
    """``run(context)`` returns a dict of numbers, strings, lists and arrays; raise ``revision`` when its
    meaning changes.  ``cost``: rough seconds at (quick, default, full) effort, used for the time left only.
    """

    name: str
    title: str
    run: Callable[[Context], dict[str, Any]]
    cost: tuple[float, float, float]
    revision: int = 1
