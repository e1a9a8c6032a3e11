"""Paddings of filters and pools, and the sizes that describe them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

__all__ = ["checked_sizes", "padded"]


def checked_sizes(layer: str, name: str, value: Any, rank: int | None = None) -> tuple[int, ...]:
    """The value as a tuple of integers >= 1; an integer stands for `rank` equal ones."""
    sizes: Any = (value,) * (rank or 1) if isinstance(value, int) and not isinstance(value, bool) else value
    good = isinstance(sizes, tuple | list) and all(isinstance(n, int) and not isinstance(n, bool) for n in sizes)
    if not good:
        raise TypeError(f"{layer}: {name} must be an integer or a tuple of integers, not {value!r}.")
    if any(n < 1 for n in sizes) or not sizes or (rank is not None and len(sizes) != rank):
        wanted = "integers >= 1" if rank is None else f"{rank} integers >= 1, one for each axis of positions"
        raise ValueError(f"{layer}: {name} must be {wanted}, not {value!r}.")
    return tuple(sizes)


def padded(layer: str, x: jax.Array, padding: Any, filter_shape, strides, dilation) -> tuple[jax.Array, list]:
    """The input wrapped around if the padding says so, and the (low, high) zeros that remain to be added."""
    rank = len(filter_shape)
    reach = [(k - 1) * d + 1 for k, d in zip(filter_shape, dilation, strict=True)]
    if padding == "VALID":
        return x, _fitting(layer, x, [(0, 0)] * rank, reach)
    if padding in ("SAME", "CIRCULAR"):
        pairs = [(int(a), int(b)) for a, b in lax.padtype_to_pads(x.shape[:rank], reach, strides, "SAME")]
        return (x, pairs) if padding == "SAME" else (_wrapped(x, pairs), [(0, 0)] * rank)
    try:
        pairs = [(int(a), int(b)) for a, b in padding]
    except (TypeError, ValueError):
        pairs = []
    if len(pairs) != rank:
        raise ValueError(
            f'{layer}: padding must be "SAME", "VALID", "CIRCULAR" or a pair (low, high) for each of the {rank} axes '
            f"of positions, not {padding!r}."
        )
    return x, _fitting(layer, x, pairs, reach)


def _fitting(layer: str, x: jax.Array, pairs: list, reach) -> list:
    """The pairs, if a filter that reaches over so many positions fits into the padded input."""
    sizes = [n + low + high for n, (low, high) in zip(x.shape, pairs, strict=False)]
    if any(n < r for n, r in zip(sizes, reach, strict=True)):
        raise ValueError(
            f"{layer}: windows over {tuple(reach)} positions do not fit into {tuple(sizes)}. Remedy: smaller ones, or "
            'padding="SAME".'
        )
    return pairs


def _wrapped(x: jax.Array, pairs) -> jax.Array:
    for axis, (low, high) in enumerate(pairs):
        n = x.shape[axis]
        parts = [lax.slice_in_dim(x, n - low, n, axis=axis)] * (low > 0) + [x]
        parts += [lax.slice_in_dim(x, 0, high, axis=axis)] * (high > 0)
        x = jnp.concatenate(parts, axis) if len(parts) > 1 else x
    return x
