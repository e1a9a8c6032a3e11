"""ATen operations that are layers: convolutions, pools, norms, attention, dropout."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from widelimit.trace._aten import ATEN, RefusedOperation, aten

__all__ = ["each", "padded_pool"]

_LETTERS = "DHW"


def each(value, rank: int) -> tuple:
    value = [value] if isinstance(value, int) else list(value)
    return tuple(value * rank if len(value) == 1 else value)


def _dimensions(rank: int, kernel: str = "OI"):
    positions = _LETTERS[-rank:]
    return f"NC{positions}", f"{kernel}{positions}", f"NC{positions}"


def _biased(y, bias):
    return y if bias is None else y + jnp.reshape(bias, (-1,) + (1,) * (y.ndim - 2))


@aten("conv1d", "conv2d", "conv3d")
def _conv(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """Cross-correlation, channels first."""
    rank = weight.ndim - 2
    stride, dilation = each(stride, rank), each(dilation, rank)
    if padding == "same":  # PyTorch puts what is odd on the right
        reach = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        pairs = [(r // 2, r - r // 2) for r in reach]
    else:
        pairs = [(p, p) for p in each(0 if padding == "valid" else padding, rank)]
    y = lax.conv_general_dilated(
        x, weight, stride, pairs, rhs_dilation=dilation, dimension_numbers=_dimensions(rank),
        feature_group_count=groups,
    )  # fmt: skip
    return _biased(y, bias)


@aten("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _conv_transpose(x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """The transpose of a convolution in x: the same with x dilated and the filter reversed.

    The input and the output are reversed instead of the filter, so that the filter stays a parameter.
    """
    rank = weight.ndim - 2
    stride, padding, more, dilation = (each(v, rank) for v in (stride, padding, output_padding, dilation))
    reach = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    pairs = [(r - p + m, r - p) for r, p, m in zip(reach, padding, more, strict=True)]
    positions = tuple(range(2, 2 + rank))
    x = jnp.flip(x, positions)
    size = x.shape[1] // groups
    parts = []
    for g in range(groups):
        part, filters = (
            (x, weight) if groups == 1 else
            tuple(lax.slice_in_dim(a, g * size, (g + 1) * size, axis=axis) for a, axis in ((x, 1), (weight, 0)))
        )  # fmt: skip
        y = lax.conv_general_dilated(
            part, filters, (1,) * rank, pairs, lhs_dilation=stride, rhs_dilation=dilation,
            dimension_numbers=_dimensions(rank, "IO"),
        )  # fmt: skip
        parts.append(y)
    y = parts[0] if groups == 1 else jnp.concatenate(parts, 1)
    return _biased(jnp.flip(y, positions), bias)


@aten("convolution")
def _convolution(x, weight, bias, stride, padding, dilation, transposed, output_padding, groups):
    if transposed:
        return _conv_transpose(x, weight, bias, stride, padding, output_padding, groups, dilation)
    return _conv(x, weight, bias, stride, padding, dilation, groups)


# Pools


def padded_pool(x, rank, kernel, stride, padding, ceil):
    """Sizes of the windows, strides and paddings of all axes; `ceil` lets a last window reach over the edge."""
    kernel = each(kernel, rank)
    stride = kernel if stride is None or (isinstance(stride, list) and not stride) else each(stride, rank)
    pairs = []
    for n, k, s, p in zip(x.shape[-rank:], kernel, stride, each(padding, rank), strict=True):
        high = p
        if ceil:
            out = -(-(n + 2 * p - k) // s) + 1
            out -= (out - 1) * s >= n + p  # a window that starts beyond the input is left out
            high = max(p, (out - 1) * s + k - n - p)
        pairs.append((p, high))
    one = (1,) * (x.ndim - rank)
    return one + kernel, one + stride, [(0, 0)] * (x.ndim - rank) + pairs


def _average(rank: int):
    def rule(x, kernel, stride=None, padding=0, ceil=False, counts_padding=True, divisor=None):
        windows, strides, pairs = padded_pool(x, rank, kernel, stride, padding, ceil)
        total = lax.reduce_window(x, np.zeros((), x.dtype), lax.add, windows, strides, pairs)
        if divisor is not None:
            return total / divisor
        # entries of a window that count: those of the input, and of its padding on both sides if that is said
        inner = [p if counts_padding else (0, 0) for p in ([(p, p) for p in each(padding, rank)])]
        ones = np.ones([n + low + high for n, (low, high) in zip(x.shape[-rank:], inner, strict=True)])
        outer = [(low - a, high - b) for (low, high), (a, b) in zip(pairs[-rank:], inner, strict=True)]
        count = _window_counts(ones, windows[-rank:], strides[-rank:], outer)
        return total / (float(count.flat[0]) if np.ptp(count) == 0 else jnp.asarray(count, x.dtype))

    return rule


def _window_counts(ones: np.ndarray, kernel, stride, pairs) -> np.ndarray:
    padded = np.pad(ones, pairs)
    seen = np.lib.stride_tricks.sliding_window_view(padded, kernel)[tuple(slice(None, None, s) for s in stride)]
    return seen.sum(axis=tuple(range(-len(kernel), 0)))


def _largest(rank: int):
    def rule(x, kernel, stride=None, padding=0, dilation=1, ceil=False):
        if each(dilation, rank) != (1,) * rank:
            raise RefusedOperation("a dilated maximum has no rule.", "Remedy: average pooling.")
        windows, strides, pairs = padded_pool(x, rank, kernel, stride, padding, ceil)
        return lax.reduce_window(x, np.asarray(-np.inf, x.dtype), lax.max, windows, strides, pairs)

    return rule


for _rank in (1, 2, 3):
    ATEN[f"avg_pool{_rank}d"] = _average(_rank)
    ATEN[f"max_pool{_rank}d"] = _largest(_rank)


def _adaptive(rank: int):
    def rule(x, sizes):
        sizes = each(sizes, rank)
        for axis, size in zip(range(x.ndim - rank, x.ndim), sizes, strict=True):
            n = x.shape[axis]
            if size == n:
                continue
            if size == 1:
                x = jnp.mean(x, axis, keepdims=True)
                continue
            parts = [(i * n // size, -(-(i + 1) * n // size)) for i in range(size)]
            means = [jnp.mean(lax.slice_in_dim(x, a, b, axis=axis), axis, keepdims=True) for a, b in parts]
            x = jnp.concatenate(means, axis)
        return x

    return rule


for _rank in (1, 2, 3):
    ATEN[f"adaptive_avg_pool{_rank}d"] = _adaptive(_rank)


def _nearest(rank: int):
    def rule(x, sizes, scales=None):
        scales = [None] * rank if scales is None else scales
        sizes = [int(n * s) for n, s in zip(x.shape[-rank:], scales, strict=True)] if sizes is None else sizes
        for axis, size, scale in zip(range(x.ndim - rank, x.ndim), sizes, scales, strict=True):
            n = x.shape[axis]
            at = np.floor(np.arange(size) * (n / size if scale is None else 1 / scale)).astype(int)
            x = jnp.take(x, np.minimum(at, n - 1), axis=axis, mode="clip")
        return x

    return rule


for _rank in (1, 2, 3):
    ATEN[f"upsample_nearest{_rank}d.vec"] = _nearest(_rank)


# Norms


def _normalised(x, axes, eps):
    centred = x - jnp.mean(x, axes, keepdims=True)
    return centred / jnp.sqrt(jnp.mean(jnp.square(centred), axes, keepdims=True) + eps)


def _scaled(y, weight, bias):
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


@aten("layer_norm")
def _layer_norm(x, shape, weight=None, bias=None, eps=1e-5, fast=True):
    return _scaled(_normalised(x, tuple(range(x.ndim - len(shape), x.ndim)), eps), weight, bias)


@aten("rms_norm")
def _rms_norm(x, shape, weight, eps):
    axes = tuple(range(x.ndim - len(shape), x.ndim))
    return _scaled(x / jnp.sqrt(jnp.mean(jnp.square(x), axes, keepdims=True) + eps), weight, None)


def _channels(vector, rank) -> Any:
    return None if vector is None else jnp.reshape(vector, (-1,) + (1,) * (rank - 2))


@aten("group_norm")
def _group_norm(x, groups, weight=None, bias=None, eps=1e-5, fast=True):
    if groups == 1:
        y = _normalised(x, tuple(range(1, x.ndim)), eps)
    else:
        parts = jnp.reshape(x, (x.shape[0], groups, x.shape[1] // groups, *x.shape[2:]))
        parts = _normalised(parts, tuple(range(2, parts.ndim)), eps)
        # beside each other along the channels, not reshaped: groups are not positions
        pieces = [lax.slice_in_dim(parts, g, g + 1, axis=1) for g in range(groups)]
        y = jnp.concatenate([jnp.squeeze(piece, 1) for piece in pieces], 1)
    return _scaled(y, _channels(weight, x.ndim), _channels(bias, x.ndim))


@aten("batch_norm")
def _batch_norm(x, weight, bias, mean, variance, training, momentum=0.1, eps=1e-5, fast=True):
    if training:
        raise _of_a_batch()
    y = (x - _channels(mean, x.ndim)) / jnp.sqrt(_channels(variance, x.ndim) + eps)
    return _scaled(y, _channels(weight, x.ndim), _channels(bias, x.ndim))


@aten("instance_norm")
def _instance_norm(x, weight, bias, mean, variance, own, momentum=0.1, eps=1e-5, fast=True):
    """Each channel over its own positions, or (own False) by running averages."""
    if not own:
        return _batch_norm(x, weight, bias, mean, variance, False, momentum, eps)
    y = _normalised(x, tuple(range(2, x.ndim)), eps)
    return _scaled(y, _channels(weight, x.ndim), _channels(bias, x.ndim))


def _of_a_batch() -> RefusedOperation:
    return RefusedOperation(
        "batch normalisation in training mode makes the output depend on the other examples.",
        "Remedy: return module.eval() from the builder, which uses the running averages, or write the network in JAX.",
    )


@aten("_native_batch_norm_legit", "_native_batch_norm_legit_functional")
def _native_batch_norm_of_a_batch(*arguments):
    raise _of_a_batch()


@aten("_native_batch_norm_legit_no_training")
def _native_batch_norm(x, weight, bias, mean, variance, momentum, eps):
    return (_batch_norm(x, weight, bias, mean, variance, False, momentum, eps),)


# Attention and dropout


@aten("scaled_dot_product_attention")
def _attention(q, k, v, mask=None, dropout=0.0, causal=False, scale=None, enable_gqa=False):
    """``softmax(scale q k^T + mask) v``, scale ``1 / sqrt(d)`` unless it is given."""
    _no_dropout(dropout, True)
    if enable_gqa:
        k, v = (jnp.repeat(a, q.shape[-3] // a.shape[-3], axis=-3) for a in (k, v))
    logits = jnp.matmul(q, jnp.swapaxes(k, -1, -2)) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    if causal:
        logits = jnp.where(jnp.tril(jnp.ones(logits.shape[-2:], bool)), logits, -jnp.inf)
    if mask is not None:
        logits = jnp.where(mask, logits, -jnp.inf) if mask.dtype == jnp.bool_ else logits + mask
    return jnp.matmul(jax.nn.softmax(logits, -1), v)


def _no_dropout(p, training) -> None:
    if training and p:
        raise RefusedOperation(
            "dropout in training mode makes the module random.",
            "Remedy: return module.eval() from the builder, or write the network with nn.Dropout of widelimit.",
        )


@aten("dropout", "feature_dropout", "alpha_dropout")
def _dropout(x, p, training):
    _no_dropout(p, training)
    return x


@aten("native_dropout")
def _native_dropout(x, p, training):
    _no_dropout(p, training)
    return x, None
