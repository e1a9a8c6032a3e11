"""Functions whose convolutions are sums of products of matrices, for loops on a CPU.

In the body of a loop XLA compiles the derivatives of convolutions, and convolutions of channels-first images, to code
that is up to 100 times slower on a CPU (jax 0.10.2).  Products of matrices are fast everywhere:

    y[n, i, j, o] = sum over offsets (a, b) of  x[n, i s + a d, j s + b d, :] . W[a, b, :, o].
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from widelimit._equations import replaced

__all__ = ["by_products"]

_OFFSETS = 49  # of a filter, up to which its terms are written out


def by_products(f: Callable) -> Callable:
    """f itself, or, on a CPU, the same function without convolutions, to rounding; of arrays and pytrees of them."""
    return replaced(f, _rule) if jax.default_backend() == "cpu" else f


def _rule(eqn) -> Callable[..., list] | None:
    if eqn.primitive.name != "conv_general_dilated" or not _written_out(eqn):
        return None
    return lambda x, W: [_convolution(x, W, eqn.params, eqn.outvars[0].aval)]


def _written_out(eqn) -> bool:
    p = eqn.params
    window = [eqn.invars[1].aval.shape[i] for i in p["dimension_numbers"].rhs_spec[2:]]
    plain = p["batch_group_count"] == 1 and all(d == 1 for d in p["lhs_dilation"])
    return plain and min(map(min, p["padding"]), default=0) >= 0 and math.prod(window) <= _OFFSETS


def _convolution(x, W, p, out):
    dims, groups = p["dimension_numbers"], p["feature_group_count"]
    x = jnp.transpose(x, (dims.lhs_spec[0], *dims.lhs_spec[2:], dims.lhs_spec[1]))  # channels last
    W = jnp.transpose(W, (*dims.rhs_spec[2:], dims.rhs_spec[1], dims.rhs_spec[0]))
    x = jnp.pad(x, [(0, 0), *p["padding"], (0, 0)])
    sizes, rank = [out.shape[i] for i in dims.out_spec[2:]], len(p["padding"])
    x = x.reshape(*x.shape[:-1], groups, -1)
    W = W.reshape(*W.shape[:-1], groups, -1)
    total: Any = 0.0
    short = jnp.issubdtype(out.dtype, jnp.floating) and out.dtype.itemsize < 4
    within = jnp.float32 if short else out.dtype  # sums of 16-bit numbers are rounded once
    for offset in itertools.product(*map(range, W.shape[:rank])):
        starts = [a * d for a, d in zip(offset, p["rhs_dilation"], strict=True)]
        ends = [b + (n - 1) * s + 1 for b, n, s in zip(starts, sizes, p["window_strides"], strict=True)]
        part = lax.slice(
            x, [0, *starts, 0, 0], [x.shape[0], *ends, *x.shape[-2:]], [1, *p["window_strides"], 1, 1]
        )  # fmt: skip
        total = total + jnp.einsum(
            "...gc,cgo->...go", part, W[offset], precision=p["precision"], preferred_element_type=within
        )
    total = total.reshape(*total.shape[:-2], -1).astype(out.dtype)
    order = [dims.out_spec.index(i) for i in range(rank + 2)]  # of (batch, channels, positions)
    return jnp.moveaxis(total, -1, 1).transpose(order)
