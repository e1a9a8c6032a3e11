"""From positions to fewer or none: pools, flattening, cropping, resizing."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from widelimit.nn._context import Context, mask_of, values_of
from widelimit.nn._module import Module
from widelimit.nn._padding import checked_sizes, padded

__all__ = [
    "AvgPool", "Crop", "Flatten", "GlobalAvgPool", "GlobalSumPool", "ImageResize", "SumPool",
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class SumPool(Module):
    """``y_p = sum_k x_(p stride + k)`` over windows of positions, channels last.

    window: taps along each axis of positions; strides: the window if None; padding: as in `Conv`.
    Raises ValueError or TypeError for sizes below 1 or an input with other axes.
    """

    window: Any
    strides: Any = None
    padding: Any = "VALID"

    def __post_init__(self) -> None:
        name = type(self).__name__
        window = checked_sizes(name, "window", self.window)
        strides = window if self.strides is None else checked_sizes(name, "strides", self.strides, len(window))
        object.__setattr__(self, "window", window)
        object.__setattr__(self, "strides", strides)

    def apply(self, params, x, *, key=None):
        return self._sum(x)

    def _sum(self, x):
        window = self.window
        if x.ndim != len(window) + 1:
            raise ValueError(
                f"{type(self).__name__}: a window of shape {window} needs an input of {len(window) + 1} axes "
                f"(positions, then channels), and it has shape {x.shape}."
            )
        x, padding = padded(type(self).__name__, x, self.padding, window, self.strides, (1,) * len(window))
        return lax.reduce_window(x, 0.0, lax.add, (*window, 1), (*self.strides, 1), [*padding, (0, 0)])


@dataclasses.dataclass(frozen=True)
class AvgPool(SumPool):
    """`SumPool` divided by the size of the window, or with `normalize_edges` by the positions that it sees."""

    normalize_edges: bool = False

    def apply(self, params, x, *, key=None):
        if not self.normalize_edges or self.padding == "CIRCULAR":
            return self._sum(x) / math.prod(self.window)
        return self._sum(x) / self._sum(jnp.ones((*x.shape[:-1], 1), x.dtype))


@dataclasses.dataclass(frozen=True)
class GlobalSumPool(Module):
    """``sum_p x_p`` over all axes but the last; masked positions are left out."""

    takes_context = True

    def apply(self, params, x, *, key=None):
        values = values_of(x)  # 0 where masked
        total = jnp.sum(values, axis=tuple(range(values.ndim - 1)))
        return Context(total) if isinstance(x, Context) else total


@dataclasses.dataclass(frozen=True)
class GlobalAvgPool(Module):
    """The mean over all axes but the last, of the positions that are not masked."""

    takes_context = True

    def apply(self, params, x, *, key=None):
        values, mask = values_of(x), mask_of(x)
        positions = tuple(range(values.ndim - 1))
        if mask is None:
            mean = jnp.mean(values, axis=positions)
        else:
            count = jnp.maximum(jnp.sum(mask.astype(values.dtype)), 1)
            mean = jnp.sum(values, axis=positions) / count
        return Context(mean) if isinstance(x, Context) else mean


@dataclasses.dataclass(frozen=True)
class Flatten(Module):
    """All axes made one.  The kernel of what follows needs equal positions only, and costs as many pairs."""

    def apply(self, params, x, *, key=None):
        return x.reshape(-1)


@dataclasses.dataclass(frozen=True)
class Crop(Module):
    """``x[start:stop:step, ...]`` along axes of positions: one ``(start, stop, step)`` each, None as in a slice.

    Raises TypeError for entries that are not tuples.
    """

    slices: tuple[tuple[int | None, ...], ...]

    def __post_init__(self) -> None:
        if not all(isinstance(s, tuple | list) and 1 <= len(s) <= 3 for s in self.slices):
            raise TypeError(f"Crop: slices must be tuples (start, stop, step), not {self.slices!r}.")
        object.__setattr__(self, "slices", tuple(tuple(s) for s in self.slices))

    def apply(self, params, x, *, key=None):
        if len(self.slices) >= x.ndim:
            raise ValueError(
                f"Crop: {len(self.slices)} slices for an input of shape {x.shape}, whose last axis is kept."
            )
        return x[tuple(slice(*s) for s in self.slices)]


@dataclasses.dataclass(frozen=True)
class ImageResize(Module):
    """`jax.image.resize` along the axes of positions, to the sizes in `shape` (None: as it is).

    method: a linear one, such as "linear", "nearest", "cubic", "lanczos3"; antialias: as in JAX.
    """

    shape: tuple[int | None, ...]
    method: str = "linear"
    antialias: bool = True

    def apply(self, params, x, *, key=None):
        if len(self.shape) != x.ndim - 1:
            raise ValueError(f"ImageResize: shape {self.shape} does not fit positions of shape {x.shape[:-1]}.")
        shape = tuple(n if m is None else m for n, m in zip(x.shape, self.shape, strict=False))
        return jax.image.resize(x, (*shape, x.shape[-1]), self.method, antialias=self.antialias)
