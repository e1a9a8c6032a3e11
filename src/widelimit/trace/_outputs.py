"""From the kernel of the output fields to that of the network's outputs: their mean, sum, diagonal or all pairs."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from widelimit.fields import Covariance
from widelimit.trace._values import Field, aligned

__all__ = ["OUTPUTS", "checked_output", "over_outputs"]

OUTPUTS = ("mean", "sum", "diag", "full")
_LARGEST = 4096


def checked_output(name: str, output: Any) -> str:
    """The output, if it is one of `OUTPUTS`."""
    if output not in OUTPUTS:
        raise ValueError(f"{name}: output must be one of {', '.join(OUTPUTS)}, not {output!r}.")
    return output


def over_outputs(covariance: Covariance, kind: str, first: Field, second: Field, output: str, dtype):
    """The kernel `kind` ("K" or "T") of two values of the network, by `output`; O outputs in the order of the array."""
    if output == "mean":
        return _mean(covariance, kind, first, second).astype(dtype)
    channels, finite = sum(n for _, n in first.blocks), math.prod(first.shape)
    if channels * finite > _LARGEST:
        raise ValueError(
            f"output={output!r}: the network has {channels * finite} outputs (an axis that grows with the width?), and "
            f"{_LARGEST} are the most. Remedy: output='mean', or a readout layer of fixed size."
        )
    full = _full(covariance, kind, first, second, channels, finite).astype(dtype)
    if output == "full":
        return full
    diagonal = jnp.diagonal(full)
    return diagonal if output == "diag" else diagonal.sum()


def _mean(covariance, kind, first, second):
    blocks = list(aligned([first, second]))
    channels = sum(n for _, n in blocks)
    total: Any = None
    for (a, b), n in blocks:
        value = covariance.pair(kind, a, b, tuple(range(len(a.shape))))
        if value is not None:
            value = _averaged(value, a.shape, float(n) / float(channels))
            total = value if total is None else total + value
    return jnp.zeros(()) if total is None else total


@functools.partial(jax.jit, static_argnums=(1, 2))
def _averaged(value, shape, part: float):
    return part * jnp.mean(jnp.broadcast_to(value, shape))


def _full(covariance, kind, first, second, channels, finite):
    """(O, O); channels of the wide axis are exchangeable, and different ones share only their means."""
    shape = first.shape
    out = jnp.zeros((finite, channels, finite, channels))
    means: list[list[Any]] = [[], []]
    start = 0
    for (a, b), n in aligned([first, second]):
        value = covariance.pair(kind, a, b, (None,) * len(shape))
        same = jnp.zeros((finite, finite)) if value is None else jnp.broadcast_to(value, shape * 2)
        same = jnp.reshape(same, (finite, finite))
        for side, node in enumerate((a, b)):
            mean = covariance.mean(node) if kind == "K" else None
            row = jnp.zeros(finite) if mean is None else jnp.broadcast_to(mean, shape).reshape(finite)
            means[side].append(jnp.repeat(row[:, None], n, axis=1))
        product = means[0][-1][:, :1] * means[1][-1][:, 0]
        block = jnp.arange(start, start + n)
        out = out.at[:, block, :, block].set(same - product)
        start += n
    left, right = (jnp.concatenate(m, axis=1) for m in means)
    out = out + left[:, :, None, None] * right[None, None]
    # the axis over channels goes where the output array has it
    axis = len(shape) if first.wide_axis is None else first.wide_axis
    out = out.reshape(*shape, channels, *shape, channels)
    half = len(shape)
    out = jnp.moveaxis(out, (half, 2 * half + 1), (axis, half + 1 + axis))
    return out.reshape(finite * channels, finite * channels)
