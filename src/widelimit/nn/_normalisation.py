"""Normalisation by moments of an example (LayerNorm, RMSNorm, GroupNorm) or of a batch, without gain and shift."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp

from widelimit.nn._context import mask_of, values_of, with_values
from widelimit.nn._module import Module, checked_number

__all__ = ["BatchNorm", "GroupNorm", "LayerNorm", "RMSNorm"]


def _mean(x, axes: tuple[int, ...], mask):
    """Over axes of x; with a mask (as many axes as x) of the positions where it is 1."""
    positions = tuple(a for a in axes if a != x.ndim - 1)
    if mask is None or not positions:
        return jnp.mean(x, axis=axes, keepdims=True)
    count = jnp.maximum(jnp.sum(mask, axis=positions, keepdims=True), 1)
    seen = x * mask if len(positions) == len(axes) else jnp.mean(x * mask, axis=-1, keepdims=True)
    return jnp.sum(seen, axis=positions, keepdims=True) / count


def _normalised(x, axes: tuple[int, ...], mask, epsilon: float, centre: bool):
    """``(x - mean) / sqrt(mean((x - mean)^2) + epsilon)``, without the mean if not `centre`."""
    if centre:
        x = x - _mean(x, axes, mask)
    return x / jnp.sqrt(_mean(x**2, axes, mask) + epsilon)


def _checked_axis(layer: str, axis: Any) -> int | tuple[int, ...]:
    axes = axis if isinstance(axis, tuple | list) else (axis,)
    if not axes or any(isinstance(a, bool) or not isinstance(a, int) for a in axes):
        raise TypeError(f"{layer}: axis must be an integer or a tuple of integers, not {axis!r}.")
    return axis if isinstance(axis, int) else tuple(axes)


@dataclasses.dataclass(frozen=True)
class _Norm(Module):
    takes_context = True
    epsilon: float = 1e-12
    axis: int | tuple[int, ...] = -1

    def __post_init__(self) -> None:
        name = type(self).__name__
        checked_number(name, "epsilon", self.epsilon, least=0)
        object.__setattr__(self, "axis", _checked_axis(name, self.axis))

    def _of(self, x, centre: bool):
        values, mask = values_of(x), mask_of(x)
        axes = (self.axis,) if isinstance(self.axis, int) else self.axis
        if any(not -values.ndim <= a < values.ndim for a in axes):
            raise ValueError(f"{type(self).__name__}: axis {self.axis} of an input of shape {values.shape}.")
        axes = tuple(sorted({a % values.ndim for a in axes}))
        if axes[-1] != values.ndim - 1:
            raise ValueError(
                f"{type(self).__name__}: axis {self.axis} does not hold the last (channels) of an input of shape "
                f"{values.shape}, without which there is no limit. Remedy: axis=-1, or a tuple with -1 in it."
            )
        real = None if mask is None else mask.astype(values.dtype)[..., None]
        return with_values(self, x, _normalised(values, axes, real, self.epsilon, centre))


@dataclasses.dataclass(frozen=True)
class LayerNorm(_Norm):
    """``(x - mean(x)) / sqrt(var(x) + epsilon)`` over the given axes (Ba et al. 2016), without gain and shift.

    axis: one axis of the example or a tuple of them, the last (channels) among them.  Masked positions are left out.
    Raises ValueError for an epsilon below 0 or axes without the last, TypeError for an axis that is no integer.
    """

    def apply(self, params, x, *, key=None):
        return self._of(x, centre=True)


@dataclasses.dataclass(frozen=True)
class RMSNorm(_Norm):
    """``x / sqrt(mean(x^2) + epsilon)`` over the given axes, without gain.  Axes and errors as in `LayerNorm`.

    Source: Zhang and Sennrich 2019.
    """

    def apply(self, params, x, *, key=None):
        return self._of(x, centre=False)


@dataclasses.dataclass(frozen=True)
class GroupNorm(Module):
    """``(x - mean(x)) / sqrt(var(x) + epsilon)`` over all positions and one of `groups` parts of the channels.

    The input is (positions..., C) with C a multiple of `groups`; gain and shift are left out, masked positions too.
    In the limit every part has the same moments, and the cost of the kernel grows with the number of groups: 1, which
    normalises over all axes, has the same limit.
    Raises ValueError for groups below 1 or channels that do not divide, or an epsilon below 0.
    Source: Wu and He 2018.
    """

    takes_context = True
    groups: int
    epsilon: float = 1e-12

    def __post_init__(self) -> None:
        checked_number("GroupNorm", "groups", self.groups, whole=True, least=1)
        checked_number("GroupNorm", "epsilon", self.epsilon, least=0)

    def apply(self, params, x, *, key=None):
        values, mask = values_of(x), mask_of(x)
        shape, groups = values.shape, int(self.groups)
        if not shape or shape[-1] % groups:
            raise ValueError(f"GroupNorm: groups={groups} does not divide the channels of an input of shape {shape}.")
        real = None if mask is None else mask.astype(values.dtype)[..., None]
        axes = tuple(range(len(shape)))
        # parts of the channels by themselves: a reshape would merge an axis with the width, which pools do not take
        parts = jnp.split(values, groups, axis=-1) if groups > 1 else [values]
        parts = [_normalised(part, axes, real, self.epsilon, True) for part in parts]
        return with_values(self, x, jnp.concatenate(parts, axis=-1) if groups > 1 else parts[0])


@dataclasses.dataclass(frozen=True)
class BatchNorm(Module):
    """``(x - mean(x)) / sqrt(var(x) + epsilon)`` of each channel over a batch, without gain and shift.

    statistics "batch" (training): the input is one batch (B, positions..., C), whose mean and variance are taken over
    all axes but the last.  Each output depends on the whole batch, so that the kernel is one of pairs of batches, with
    an entry for each pair of examples under ``output="full"``.  Its moments are quasi-Monte Carlo averages
    (`Limit.explain` prints their error) over a Gaussian for each position of each example: at most 96, of which 24 take
    a minute to compile.  Fewer than some 8, or examples that depend on each other, make the NTK's heavy-tailed.
    statistics "running" (inference): mean 0 and variance 1, where the running ones start, so ``x / sqrt(1 + epsilon)``;
    the input is one example, as for other layers.

    Masked positions and examples are left out.  Raises ValueError for other statistics, an epsilon below 0, or a batch
    without an axis before the channels; the limit UnknownLimitError for a batch that is too large.
    Source: Ioffe and Szegedy 2015; Yang et al. 2019 (its limit).
    """

    takes_context = True
    epsilon: float = 1e-12
    statistics: str = "batch"

    def __post_init__(self) -> None:
        checked_number("BatchNorm", "epsilon", self.epsilon, least=0)
        if self.statistics not in ("batch", "running"):
            raise ValueError(f'BatchNorm: statistics must be "batch" or "running", not {self.statistics!r}.')

    def apply(self, params, x, *, key=None):
        values, mask = values_of(x), mask_of(x)
        if self.statistics == "running":
            return with_values(self, x, values / (1 + self.epsilon) ** 0.5)
        if values.ndim < 2:
            raise ValueError(
                f'BatchNorm: with statistics "batch" the input is a batch (B, positions..., C), and its shape is '
                f'{values.shape}. Remedy: give the kernel pairs of batches, or BatchNorm(statistics="running").'
            )
        real = None if mask is None else mask.astype(values.dtype)[..., None]
        return with_values(self, x, _normalised(values, tuple(range(values.ndim - 1)), real, self.epsilon, True))
