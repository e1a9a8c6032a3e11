"""ATen operations that move, cut, join or sum axes, and products of matrices."""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

from widelimit.trace._aten import ATEN, RefusedOperation, aten, dtype_of
from widelimit.trace._aten_kinks import absolute
from widelimit.trace._aten_order import amax

__all__ = ["power_norm", "root"]


@aten("view", "reshape", "_unsafe_view")
def _view(x, shape):
    if isinstance(shape, str):  # another type of the same bits
        raise RefusedOperation("the bits of an array are read as another type.", "Remedy: convert it with .to(dtype).")
    shape = _sizes(x, shape)
    if [n for n in x.shape if n != 1] != [n for n in shape if n != 1]:
        kept = 1 if x.ndim and len(shape) and x.shape[0] == shape[0] == 1 else 0  # the batch
        x = jnp.squeeze(x, tuple(a for a, n in enumerate(x.shape) if n == 1 and a >= kept))  # only real axes meet
        x = jnp.reshape(x, shape[:kept] + tuple(n for n in shape if n != 1))
    return jnp.reshape(x, shape)


def _sizes(x, shape) -> tuple[int, ...]:
    """The shape, with a side of -1 filled in."""
    known = math.prod(n for n in shape if n != -1)
    return tuple(math.prod(x.shape) // known if n == -1 else n for n in shape)


@aten("flatten")
def _flatten(x, start=0, end=-1):
    start, end = start % x.ndim, end % x.ndim
    return _view(x, (*x.shape[:start], -1, *x.shape[end + 1 :]))


@aten("permute")
def _permute(x, order):
    return jnp.transpose(x, [a % x.ndim for a in order])


@aten("transpose", "swapaxes")
def _transpose(x, a, b):
    return jnp.swapaxes(x, a, b)


@aten("t", "numpy_T", "mT")
def _t(x):
    return jnp.swapaxes(x, -1, -2) if x.ndim > 1 else x


@aten("unsqueeze")
def _unsqueeze(x, axis):
    return jnp.expand_dims(x, axis)


@aten("squeeze")
def _squeeze(x, axes=None):
    axes = range(x.ndim) if axes is None else [axes] if isinstance(axes, int) else axes
    return jnp.squeeze(x, tuple(a % x.ndim for a in axes if x.shape[a] == 1))


@aten("expand", "broadcast_to")
def _expand(x, shape, implicit=False):
    shape = list(shape)
    new = len(shape) - x.ndim
    shape = [x.shape[i - new] if n == -1 else n for i, n in enumerate(shape)]
    return x if tuple(shape) == x.shape else jnp.broadcast_to(x, shape)


@aten("expand_as")
def _expand_as(x, y):
    return jnp.broadcast_to(x, y.shape)


@aten("repeat")
def _repeat(x, times):
    return jnp.tile(x, tuple(times))


@aten("slice")
def _slice(x, axis=0, start=None, end=None, step=1):
    n = x.shape[axis]
    start, end, step = slice(start, end, step).indices(n)
    end = max(start, end)
    return x if (start, end, step) == (0, n, 1) else jax.lax.slice_in_dim(x, start, end, step, axis % x.ndim)


@aten("select")
def _select(x, axis, index):
    index, axis = index % x.shape[axis], axis % x.ndim
    return jnp.squeeze(jax.lax.slice_in_dim(x, index, index + 1, 1, axis), axis)


@aten("narrow")
def _narrow(x, axis, start, length):
    return _slice(x, axis, start, start + length)


@aten("cat", "concat")
def _cat(xs, axis=0):
    return jnp.concatenate([x for x in xs if x.shape != (0,)], axis)


@aten("stack")
def _stack(xs, axis=0):
    return jnp.stack(xs, axis)


@aten("split", "split_with_sizes")
def _split(x, size, axis=0):
    n = x.shape[axis]
    sizes = [min(size, n - i) for i in range(0, n, size)] if isinstance(size, int) else size
    starts = [0, *(int(s) for s in np.cumsum(sizes))]
    return [_slice(x, axis, a, b) for a, b in itertools.pairwise(starts)]


@aten("chunk")
def _chunk(x, count, axis=0):
    return _split(x, -(-x.shape[axis] // count), axis)


@aten("unbind")
def _unbind(x, axis=0):
    return [_select(x, axis, i) for i in range(x.shape[axis])]


@aten("flip")
def _flip(x, axes):
    return jnp.flip(x, tuple(axes))


@aten("roll")
def _roll(x, shifts, axes=()):
    return jnp.roll(x, tuple(shifts), tuple(axes)) if axes else jnp.roll(x, shifts[0])


@aten("pad", "constant_pad_nd")
def _pad(x, widths, mode="constant", value=None):
    """Axes are listed from the last."""
    pairs = [(0, 0)] * x.ndim
    for i in range(len(widths) // 2):
        pairs[x.ndim - 1 - i] = (widths[2 * i], widths[2 * i + 1])
    if not isinstance(mode, str):  # constant_pad_nd(x, pad, value)
        mode, value = "constant", mode
    if mode == "constant":
        return jax.lax.pad(x, jnp.asarray(value or 0, x.dtype), [(low, high, 0) for low, high in pairs])
    if any(n < 0 for pair in pairs for n in pair):
        raise RefusedOperation("negative padding has no rule in this mode.", "Remedy: slice instead.")
    return jnp.pad(x, pairs, mode={"circular": "wrap", "replicate": "edge", "reflect": "reflect"}[mode])


@aten("index_select")
def _index_select(x, axis, index):
    return jnp.take(x, index, axis=axis)


# Sums over axes


def _axes(x, axes):
    if axes is None or (isinstance(axes, list) and not axes):
        return tuple(range(x.ndim))
    return tuple(a % x.ndim for a in ([axes] if isinstance(axes, int) else axes))


@aten("sum")
def _sum(x, axes=None, keepdim=False, dtype=None):
    x = x.astype(dtype_of("int")) if x.dtype == jnp.bool_ else x
    return jnp.sum(x, _axes(x, axes), keepdims=keepdim)


@aten("mean")
def _mean(x, axes=None, keepdim=False, dtype=None):
    return jnp.mean(x, _axes(x, axes), keepdims=keepdim)


def _variance(x, axes=None, *, correction=1, keepdim=False):
    axes = _axes(x, axes)
    count = float(np.prod([float(x.shape[a]) for a in axes]))
    centred = x - jnp.mean(x, axes, keepdims=True)
    mean = jnp.mean(jnp.square(centred), axes, keepdims=keepdim)
    return mean if not correction else mean * (count / (count - correction))


ATEN |= {
    "var.correction": _variance,
    "std.correction": lambda x, axes=None, **how: root(_variance(x, axes, **how)),
    "var_mean.correction": lambda x, axes=None, keepdim=False, **how: (
        _variance(x, axes, keepdim=keepdim, **how), _mean(x, axes, keepdim)
    ),
    "any": lambda x, axes=None, keepdim=False: jnp.any(x, _axes(x, axes), keepdims=keepdim),
    "all": lambda x, axes=None, keepdim=False: jnp.all(x, _axes(x, axes), keepdims=keepdim),
    "prod": lambda x, axis=None, keepdim=False, dtype=None: jnp.prod(x, axis, keepdims=keepdim),
    "cumsum": lambda x, axis, dtype=None: jnp.cumsum(x, axis),
    "softmax": lambda x, axis, dtype=None: jax.nn.softmax(x, axis),
    "_softmax": lambda x, axis, half=False: jax.nn.softmax(x, axis),
    "log_softmax": lambda x, axis, dtype=None: jax.nn.log_softmax(x, axis),
    "_log_softmax": lambda x, axis, half=False: jax.nn.log_softmax(x, axis),
    "logsumexp": lambda x, axes, keepdim=False: jax.nn.logsumexp(x, _axes(x, axes), keepdims=keepdim),
}  # fmt: skip


@jax.custom_jvp
def root(x):
    """The square root, with the gradient 0 that norms have in PyTorch at 0."""
    return jnp.sqrt(x)


@root.defjvp
def _(primals, tangents):
    root = jnp.sqrt(primals[0])
    return root, jnp.where(root == 0, 0.0, tangents[0] / jnp.where(root == 0, 1.0, 2 * root))


def power_norm(x, p: float, axes, keepdim: bool):
    """``(sum |x|^p)^(1/p)``."""
    if p == 2:
        square = jnp.square(x) if not jnp.iscomplexobj(x) else jnp.real(x * jnp.conj(x))
        return root(jnp.sum(square, axes, keepdims=keepdim))
    size = absolute(x)
    if p == 0:
        return jnp.sum((size != 0).astype(size.dtype), axes, keepdims=keepdim)
    if p == 1:
        return jnp.sum(size, axes, keepdims=keepdim)
    if math.isinf(p):
        return amax(size, axes, keepdim) if p > 0 else -amax(-size, axes, keepdim)
    if p < 1:
        raise RefusedOperation(f"the norm of order {p} has no rule.", "Remedy: write it with sums.")
    total = jnp.sum(size**p, axes, keepdims=keepdim)
    return jnp.where(total == 0, 0.0, jnp.where(total == 0, 1.0, total) ** (1 / p))


@aten("linalg_vector_norm")
def _norm(x, p=2, axes=None, keepdim=False, dtype=None):
    return power_norm(x, p, _axes(x, axes), keepdim)


# Products of matrices


@aten("linear")
def _linear(x, weight, bias=None):
    """``x W^T + b`` without transposing W: a contraction of the last axes."""
    y = jax.lax.dot_general(x, weight, (((x.ndim - 1,), (weight.ndim - 1,)), ((), ())))
    return y if bias is None else y + bias


@aten("matmul", "mm", "bmm", "mv", "dot")
def _matmul(a, b):
    if b.ndim == 2 and a.ndim > 2:  # no batch of matrices: a contraction
        return jax.lax.dot_general(a, b, (((a.ndim - 1,), (0,)), ((), ())))
    return jnp.matmul(a, b)


@aten("addmm", "addmv", "baddbmm")
def _addmm(bias, a, b, beta=1, alpha=1):
    y = _matmul(a, b)
    y = y if alpha == 1 else alpha * y
    return y + (bias if beta == 1 else beta * bias)


@aten("einsum")
def _einsum(equation, operands, path=None):
    return jnp.einsum(equation, *operands)
