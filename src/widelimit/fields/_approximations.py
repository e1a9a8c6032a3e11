"""What is not in closed form, with the error it makes: read by `Limit.explain`."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

__all__ = ["Approximations"]

Errors = tuple[object, ...]


class Approximations:
    """Notes ``(what, kind of figure, errors)``; the errors are computed only when they are read."""

    def __init__(self) -> None:
        self._notes: dict[tuple[str, str], list[Callable[[], Errors]]] = {}

    def note(self, what: str, figure: str, errors: Callable[[], Errors]) -> None:
        """Add one; figure: what the errors are, such as "relative error at most"."""
        self._notes.setdefault((what, figure), []).append(errors)

    def worst(self) -> dict[tuple[str, str], jax.Array]:
        """The largest error of each kind, as an array (inside a loop it is a result of the loop)."""
        return {
            kind: jnp.max(jnp.stack([jnp.max(jnp.asarray(e)) for thunk in errors for e in thunk()]))
            for kind, errors in self._notes.items()
        }

    def lines(self) -> list[str]:
        """One line for each kind of approximation, with the worst of its errors."""
        out = []
        for (what, figure), errors in self._notes.items():
            worst = max(float(jnp.max(jnp.asarray(e))) for thunk in errors for e in thunk())
            out.append(f"{what}: {figure} {worst:.1e}")
        return out
