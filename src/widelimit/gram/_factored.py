"""Tiles of kernels that are made of what is computed once for each example, as an empirical NTK is of gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

__all__ = ["factored_tiles", "is_factored"]


def is_factored(k: Any) -> bool:
    """Whether k has `plan(x1, x2, memory=, largest=)`, `factors(plan, x, side)` and `pairs(plan, a, b)`."""
    return all(hasattr(k, name) for name in ("plan", "factors", "pairs"))


def factored_tiles(
    k: Any, x1: Any, x2: Any, batch_size: int | None, memory: float
) -> tuple[int, Callable[[int, int, Callable, Callable], Any]]:
    """Examples in a tile, and a function giving the block of two tiles by their numbers and functions that make them.

    Factors of as many tiles as fit into what `memory` leaves are kept, those of others computed again.
    """
    plan = k.plan(x1, x2, memory=memory, largest=batch_size)
    kept: dict[tuple[int, int], Any] = {}
    left = memory - plan.bytes

    def factors(side: int, number: int, make: Callable[[], Any]):
        nonlocal left
        key = (0 if x2 is None and k.symmetric else side, number)
        if key in kept:
            return kept[key]
        found = k.factors(plan, make(), side)
        size = sum(a.nbytes for a in jax.tree.leaves(found))
        if size <= left:
            kept[key] = found
            left -= size
        return found

    def block(i: int, j: int, rows: Callable[[], Any], columns: Callable[[], Any]):
        a = factors(0, i, rows)
        same = i == j and x2 is None and k.symmetric
        return k.pairs(plan, a, a if same else factors(1, j, columns))

    return plan.tile, block
