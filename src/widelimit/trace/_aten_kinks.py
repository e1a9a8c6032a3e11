"""ATen operations with kinks, whose derivatives at the kinks are PyTorch's: JAX takes others, such as means.

What is exactly at a kink is no accident: weights that start at 0, gains and biases of 0, and padding.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from widelimit.trace._aten import ATEN, aten

__all__ = ["absolute"]


def _with_slope(function, slope):
    """The function of an array and of numbers, with `slope` of these as its derivative."""

    @functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
    def kinked(x, low, high):
        return function(x, low, high)

    @kinked.defjvp
    def _(low, high, primals, tangents):
        (x,), (dx,) = primals, tangents
        return function(x, low, high), jnp.where(slope(x, low, high), dx, 0)

    return lambda x, low=None, high=None: kinked(x, low, high) if _is_real(x) else function(x, low, high)


def _is_real(x) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)


def _clipped(x, low, high):
    x = x if low is None else jnp.maximum(x, low)
    return x if high is None else jnp.minimum(x, high)


def _inside(x, low, high):
    """A bound itself is inside."""
    return ((x >= low) if low is not None else True) & ((x <= high) if high is not None else True)


_relu = _with_slope(lambda x, *_: jnp.maximum(x, 0), lambda x, *_: x > 0)
_hard = _with_slope(jnp.clip, lambda x, low, high: (x > low) & (x < high))
_clamped = _with_slope(_clipped, _inside)


@jax.custom_jvp
def _absolute(x):
    return jnp.abs(x)


@_absolute.defjvp
def _(primals, tangents):
    return jnp.abs(primals[0]), jnp.sign(primals[0]) * tangents[0]


def absolute(x):
    """``|x|``, with the derivative 0 at 0."""
    return _absolute(x) if _is_real(x) else jnp.abs(x)


@jax.custom_jvp
def _raised(x, low):
    return jnp.maximum(x, low)


@_raised.defjvp
def _(primals, tangents):
    (x, low), (dx, d_low) = primals, tangents
    return jnp.maximum(x, low), jnp.where(x < low, d_low, dx)


@aten("clamp", "clamp_min")
def _clamp(x, low=None, high=None):
    arrays = [b for b in (low, high) if isinstance(b, jax.Array)]
    if not arrays or not _is_real(x):
        return _clamped(x, low, high)
    low, high = (b if b is None else jnp.asarray(b, x.dtype) for b in (low, high))
    x = x if low is None else _raised(x, low)
    return x if high is None else -_raised(-x, -high)


@aten("softplus")
def _softplus(x, beta=1.0, threshold=20.0):
    smooth = jax.nn.softplus(beta * x) / beta
    # beyond the usual threshold the two differ by 2e-9 at most
    return smooth if threshold >= 20 else jnp.where(beta * x > threshold, x, smooth)


@aten("prelu")
def _prelu(x, w):
    return jnp.where(x > 0, x, jnp.reshape(w, (-1,) + (1,) * max(x.ndim - 2, 0)) * x)


ATEN |= {
    "abs": absolute,
    "relu": _relu,
    "relu6": lambda x: _hard(x, 0, 6),
    "hardtanh": lambda x, low=-1.0, high=1.0: _hard(x, low, high),
    "hardsigmoid": lambda x: _hard(x + 3, 0, 6) / 6,
    "hardswish": lambda x: x * _hard(x + 3, 0, 6) / 6,
    "leaky_relu": lambda x, slope=0.01: jnp.where(x > 0, x, slope * x),
    "softshrink": lambda x, at=0.5: _relu(x - at) - _relu(-x - at),
    "clamp_max": lambda x, high: _clamp(x, None, high),
    "copysign": lambda x, y: absolute(x) * jnp.where(jnp.signbit(jnp.asarray(y, x.dtype)), -1, 1),
    "sinc": jnp.sinc,
}
