"""Convolutions over the axes of positions, channels last: shared, transposed, locally connected."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax

from widelimit.nn._affine import affine, check_affine, draw_affine, weight_of
from widelimit.nn._module import Module
from widelimit.nn._padding import checked_sizes, padded

__all__ = ["Conv", "ConvLocal", "ConvTranspose"]


@dataclasses.dataclass(frozen=True)
class _Filter(Module):
    width: int
    filter_shape: Any
    strides: Any = 1
    padding: Any = "SAME"
    W_std: Any = 1.0
    b_std: Any = None
    parameterization: Literal["ntk", "standard"] = "ntk"
    W_lr: float = 1.0
    b_lr: float = 1.0

    def __post_init__(self) -> None:
        name = type(self).__name__
        check_affine(self)
        shape = checked_sizes(name, "filter_shape", self.filter_shape)
        object.__setattr__(self, "filter_shape", shape)
        object.__setattr__(self, "strides", checked_sizes(name, "strides", self.strides, len(shape)))

    def _checked(self, shape: tuple[int, ...]) -> None:
        rank = len(self.filter_shape) + 1
        if len(shape) != rank:
            raise ValueError(
                f"{type(self).__name__}: a filter of shape {self.filter_shape} needs an input of {rank} axes "
                f"(positions, then channels), and it has shape {shape}. Inputs are single examples."
            )

    def _fan_in(self, channels: int) -> int:
        return math.prod(self.filter_shape) * channels

    def init(self, key, shape):
        self._checked(shape)
        return draw_affine(self, key, (*self.filter_shape, shape[-1], self.width), self._fan_in(shape[-1]))


def _dimensions(rank: int) -> tuple[str, str, str]:
    positions = "DHW"[-rank:] if rank <= 3 else "".join(chr(ord("a") + i) for i in range(rank))
    return f"N{positions}C", f"{positions}IO", f"N{positions}C"


@dataclasses.dataclass(frozen=True)
class Conv(_Filter):
    """``z_p = W_std / sqrt(fan_in) sum_k x_(p stride + k dilation) @ W_k + b_std b``, channels last.

    The input is one example (positions..., C), ``fan_in = prod(filter_shape) C``.
    filter_shape: taps along each axis of positions; an integer: one axis.
    padding: "SAME", "VALID" (both as in JAX), "CIRCULAR" (as many positions as "SAME", wrapped around), or a pair
    (low, high) of zeros for each axis.  dilation: distance of the taps.  width, W_std, b_std, parameterization, W_lr,
    b_lr: as in `Dense`.

    Parameters: ``{"W": (*filter_shape, C, width), "b": (width,)}``.  Raises ValueError or TypeError for sizes below 1,
    an unknown padding, or an input with other axes.  Source: Novak et al. 2019, eq. 1; Arora et al. 2019, section 4.
    """

    dilation: Any = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        rank = len(self.filter_shape)
        object.__setattr__(self, "dilation", checked_sizes("Conv", "dilation", self.dilation, rank))

    def apply(self, params, x, *, key=None):
        self._checked(x.shape)
        fan_in = self._fan_in(x.shape[-1])
        x, padding = padded("Conv", x, self.padding, self.filter_shape, self.strides, self.dilation)
        z = lax.conv_general_dilated(
            x[None], weight_of(self, params), self.strides, padding, rhs_dilation=self.dilation,
            dimension_numbers=_dimensions(x.ndim - 1),
        )  # fmt: skip
        return affine(self, params, z[0], fan_in)


@dataclasses.dataclass(frozen=True)
class ConvTranspose(_Filter):
    """`Conv` of the input with ``stride - 1`` zeros put between its positions: the output is stride times as large.

    padding: "SAME" (output ``stride n``), "VALID" (``stride n + max(filter - stride, 0)``) or "CIRCULAR" ("SAME",
    wrapped around).  Everything else as in `Conv`.  Source: Dumoulin and Visin 2016.
    """

    def apply(self, params, x, *, key=None):
        self._checked(x.shape)
        if self.padding not in ("SAME", "VALID", "CIRCULAR"):
            raise ValueError(f'ConvTranspose: padding must be "SAME", "VALID" or "CIRCULAR", not {self.padding!r}.')
        fan_in, W = self._fan_in(x.shape[-1]), weight_of(self, params)
        if self.padding == "CIRCULAR":
            z = self._circular(x, W)
        else:
            z = lax.conv_transpose(
                x[None], W, self.strides, self.padding, dimension_numbers=_dimensions(x.ndim - 1)
            )[0]  # fmt: skip
        return affine(self, params, z, fan_in)

    def _circular(self, x, W):
        """The input wrapped around by as many positions as reach into the output, whose middle is kept."""
        sizes = x.shape[:-1]
        for axis, (taps, stride) in enumerate(zip(self.filter_shape, self.strides, strict=True)):
            more = -(-taps // stride)
            x = jnp.concatenate([lax.slice_in_dim(x, x.shape[axis] - more, None, axis=axis), x,
                                 lax.slice_in_dim(x, 0, more, axis=axis)], axis)  # fmt: skip
        z = lax.conv_transpose(x[None], W, self.strides, "SAME", dimension_numbers=_dimensions(x.ndim - 1))[0]
        for axis, (n, taps, stride) in enumerate(zip(sizes, self.filter_shape, self.strides, strict=True)):
            z = lax.slice_in_dim(z, -(-taps // stride) * stride, -(-taps // stride) * stride + n * stride, axis=axis)
        return z


@dataclasses.dataclass(frozen=True)
class ConvLocal(_Filter):
    """`Conv` with a weight of its own at every position (locally connected).

    Parameters: ``{"W": (*output positions, *filter_shape, C, width), "b": (*output positions, width)}``.
    Source: Novak et al. 2019, section 4.
    """

    def _positions(self, shape) -> tuple[int, ...]:
        x = jax.ShapeDtypeStruct(shape, jnp.result_type(float))
        return jax.eval_shape(self._patches, x).shape[: len(self.filter_shape)]

    def init(self, key, shape):
        self._checked(shape)
        at = self._positions(shape)
        W = (*at, *self.filter_shape, shape[-1], self.width)
        return draw_affine(self, key, W, self._fan_in(shape[-1]), (*at, self.width))

    def apply(self, params, x, *, key=None):
        self._checked(x.shape)
        rank = x.ndim - 1
        seen, W = self._patches(x), weight_of(self, params)
        contract = (tuple(range(rank, 2 * rank + 1)),) * 2
        own = (tuple(range(rank)),) * 2
        z = lax.dot_general(seen, W, (contract, own))  # type: ignore[arg-type]
        return affine(self, params, z, self._fan_in(x.shape[-1]))

    def _patches(self, x):
        """(*positions, *filter_shape, C): what each filter sees."""
        rank, C = x.ndim - 1, x.shape[-1]
        x, padding = padded("ConvLocal", x, self.padding, self.filter_shape, self.strides, (1,) * rank)
        x = jnp.pad(x, [*padding, (0, 0)])
        sizes = [(n - k) // s + 1 for n, k, s in zip(x.shape, self.filter_shape, self.strides, strict=False)]
        out = []
        for offset in itertools.product(*map(range, self.filter_shape)):
            stop = [o + (n - 1) * s + 1 for o, n, s in zip(offset, sizes, self.strides, strict=True)]
            out.append(lax.slice(x, (*offset, 0), (*stop, C), (*self.strides, 1)))
        seen = out
        for taps in reversed(self.filter_shape):
            seen = [jnp.stack(seen[i : i + taps], axis=rank) for i in range(0, len(seen), taps)]
        return seen[0]
