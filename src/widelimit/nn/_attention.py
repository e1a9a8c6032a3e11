"""Attention over all positions, of an input or of another, with logits over the width or over its root."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from widelimit.nn._context import Context, apply_layer, init_layer, mask_of, output_shape, values_of, with_values
from widelimit.nn._module import Module, checked_number

__all__ = ["CrossAttention", "PositionalEmbedding", "SelfAttention"]

_MECHANISMS = {
    "softmax": jax.nn.softmax,
    "identity": lambda logits: logits,
    "relu": jax.nn.relu,
    "abs": jnp.abs,
}


@dataclasses.dataclass(frozen=True)
class PositionalEmbedding(Module):
    """``x_p + std R_p``, a trained random row for each position: ``E[R_p R_q] = exp(-decay |p - q|^2)`` per channel.

    The input is (positions, C).  decay None: independent rows.  concat: ``R`` is put beside x along the channels.
    Parameters: (positions, C), N(0, 1); R is the root of the covariance times them.
    Raises ValueError for a negative std or decay, or an input with other axes.  Source: Hron et al. 2020, section 4.
    """

    std: Any = 1.0
    decay: float | None = None
    concat: bool = False

    def __post_init__(self) -> None:
        checked_number("PositionalEmbedding", "std", self.std, least=0)
        if self.decay is not None:
            checked_number("PositionalEmbedding", "decay", self.decay, least=0)

    def init(self, key, shape):
        if len(shape) != 2:
            raise ValueError(f"PositionalEmbedding: the input must be (positions, C), and its shape is {shape}.")
        return jax.random.normal(key, shape)

    def apply(self, params, x, *, key=None):
        rows = params if self.decay is None else jnp.asarray(_root(x.shape[0], self.decay)) @ params
        return jnp.concatenate([x, self.std * rows], axis=-1) if self.concat else x + self.std * rows


def _root(n: int, decay: float) -> np.ndarray:
    """The square root of ``exp(-decay |p - q|^2)``."""
    at = np.arange(n)
    values, vectors = np.linalg.eigh(np.exp(-decay * (at[:, None] - at) ** 2))
    return vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T


@dataclasses.dataclass(frozen=True)
class _Attention(Module):
    """What both kinds have in common; each has its `scaling` last."""

    width: int
    heads: int = 1
    W_query_std: Any = 1.0
    W_key_std: Any = 1.0
    W_value_std: Any = 1.0
    W_out_std: Any = 1.0
    b_std: Any = None
    mechanism: str = "softmax"

    @property
    def widths(self) -> tuple[str, ...]:
        return ("width", "heads") if getattr(self, "scaling", "") == "root_width" else ("width",)


def _check_attention(layer: SelfAttention | CrossAttention) -> None:
    name = type(layer).__name__
    for field in ("width", "heads"):
        checked_number(name, field, getattr(layer, field), whole=True, least=1)
    for field in ("W_query_std", "W_key_std", "W_value_std", "W_out_std", "b_std"):
        if field != "b_std" or layer.b_std is not None:
            checked_number(name, field, getattr(layer, field), least=0)
    if layer.scaling not in ("width", "root_width"):
        raise ValueError(f"{name}: scaling must be 'width' or 'root_width', not {layer.scaling!r}.")
    if layer.mechanism not in _MECHANISMS:
        raise ValueError(f"{name}: mechanism must be one of {', '.join(_MECHANISMS)}, not {layer.mechanism!r}.")


def _parameters(layer: SelfAttention | CrossAttention, keys, channels: tuple[int, int, int]) -> dict:
    """Matrices of the heads; channels: those that queries, keys and values see."""
    queries, seen, C = channels
    shapes = {"K": (seen, layer.width), "V": (C, layer.width), "O": (layer.width, layer.width)}
    params = {n: jax.random.normal(k, (layer.heads, *s)) for k, (n, s) in zip(keys, shapes.items(), strict=False)}
    if layer.scaling == "root_width":
        params["Q"] = jax.random.normal(keys[5], (layer.heads, queries, layer.width))
    if layer.b_std is not None:
        params["b"] = jax.random.normal(keys[3], (layer.width,))
    return params


def _attended(layer: SelfAttention | CrossAttention, params, queries, keys, x, weights):
    """``sum_h weights(q_h k_h^T / width^power) (x V_h) O_h + b``; queries, keys: what these see."""
    own, power = ("Q", 0.5) if layer.scaling == "root_width" else ("K", 1.0)
    q = jnp.einsum("pc,hcd->hpd", queries, params[own]) / queries.shape[-1] ** 0.5
    k = q if keys is queries and own == "K" else jnp.einsum("pc,hcd->hpd", keys, params["K"]) / keys.shape[-1] ** 0.5
    values = jnp.einsum("pc,hcd->hpd", x, params["V"]) * (layer.W_value_std / x.shape[-1] ** 0.5)
    logits = jnp.einsum("hpd,hqd->hpq", q, k) * (layer.W_query_std * layer.W_key_std / layer.width**power)
    y = jnp.einsum("hpq,hqd->hpd", weights(logits), values)
    z = jnp.einsum("hpd,hdc->pc", y, params["O"]) * (layer.W_out_std / (layer.heads * layer.width) ** 0.5)
    return z if layer.b_std is None else z + layer.b_std * params["b"]


def _weights(layer: SelfAttention | CrossAttention, logits, seen):
    """The mechanism over the keys that are seen; None: all."""
    if seen is None:
        return _MECHANISMS[layer.mechanism](logits)
    if layer.mechanism == "softmax":
        return jax.nn.softmax(jnp.where(seen, logits, -jnp.inf))
    return jnp.where(seen, _MECHANISMS[layer.mechanism](logits), 0)


@dataclasses.dataclass(frozen=True)
class SelfAttention(_Attention):
    """``z = sum_h A_h (x V_h) O_h + b_std b`` with ``A_h = mechanism(q_h k_h^T / width)`` over pairs of positions.

    ``q_h = W_query_std / sqrt(C) x K_h``, ``k_h = W_key_std / sqrt(C) x K_h`` (one random matrix for both: with two
    the logits would vanish with the width), values ``W_value_std / sqrt(C) x V_h``, output
    ``W_out_std / sqrt(heads width)``; all parameters N(0, 1).  The input is (positions..., C); every head has `width`
    channels.  mechanism: "softmax", "identity", "relu" or "abs".  causal: a position sees itself and those before it
    (in the order of the flattened positions).  b_std None: no bias.  positions: a `PositionalEmbedding` that keys and
    queries see and values do not (for all three, put it before this layer).  Masked keys get no weight.

    scaling: "width", as above, or "root_width": ``A_h = mechanism(q_h k_h^T / sqrt(width))`` with a matrix Q_h for the
    queries of its own.  Logits stay random then, and the limit is that of infinitely many heads: `heads` grows as
    `width` does.  It is in closed form for all mechanisms but softmax, a quasi-Monte Carlo average for that.

    Raises ValueError for an unknown mechanism or scaling, heads or width below 1, negative standard deviations.
    Source: Hron et al. 2020, section 3 (linear scaling) and theorem 3 (root scaling).
    """

    takes_context = True
    causal: bool = False
    positions: PositionalEmbedding | None = None
    scaling: str = "width"

    def __post_init__(self) -> None:
        _check_attention(self)
        if not isinstance(self.positions, PositionalEmbedding | None):
            raise TypeError(f"SelfAttention: positions must be a PositionalEmbedding, not {self.positions!r}.")

    def init(self, key, shape):
        shape = values_of(shape)
        if len(shape) < 2:
            raise ValueError(f"SelfAttention: the input must be (positions..., C), and its shape is {shape}.")
        keys, C = jax.random.split(key, 6), shape[-1]
        seen = C if self.positions is None or not self.positions.concat else 2 * C
        params = _parameters(self, keys, (seen, seen, C))
        if self.positions is not None:
            params["positions"] = self.positions.init(keys[4], (math.prod(shape[:-1]), C))
        return params

    def apply(self, params, x, *, key=None):
        return with_values(self, x, self._attended(params, values_of(x), mask_of(x)))

    def _attended(self, params, x, mask):
        if x.ndim < 2:
            raise ValueError(f"SelfAttention: the input must be (positions..., C), and its shape is {x.shape}.")
        positions, C = x.shape[:-1], x.shape[-1]
        x = x.reshape(-1, C)
        seen = x if self.positions is None else self.positions.apply(params["positions"], x)
        keys = self._seen(len(x), None if mask is None else mask.reshape(-1))
        z = _attended(self, params, seen, seen, x, lambda logits: _weights(self, logits, keys))
        return z.reshape(*positions, self.width)

    def _seen(self, n: int, mask):
        """Which keys each query sees."""
        if mask is None and not self.causal:
            return None
        seen = jnp.tril(jnp.ones((n, n), bool)) if self.causal else jnp.ones((n, n), bool)
        # masked queries see whatever, for finite weights: their rows are set to 0
        return seen if mask is None else seen & (mask | ~mask[:, None])


@dataclasses.dataclass(frozen=True)
class CrossAttention(_Attention):
    """Attention to another array: ``z = sum_h A_h (c V_h) O_h + b_std b`` with ``A_h = mechanism(q_h k_h^T / width)``.

    The input is a tuple (x, context) of arrays (positions..., C) and (other positions..., C), which branches before
    this layer may have made (`Parallel`).  Queries are of x, keys and values of c = context; with an encoder, of
    ``encoder(x)`` and ``encoder(context)``, with the same parameters.  Of two that share none, and whose channels have
    mean 0, the logits are 0 in the limit, but for ``scaling="root_width"``, where the two may have other numbers of
    channels too.  The output has the positions and the mask of the queries; masked keys get no weight.  The rest is as
    in `SelfAttention`, which is the case context = x.
    Raises ValueError for an input that is no such tuple, and as `SelfAttention`; TypeError for an encoder that is no
    module.  Source: Vaswani et al. 2017, section 3.2.3; Hron et al. 2020, section 3 (linear scaling).
    """

    takes_context = True
    encoder: Module | None = None
    scaling: str = "width"

    def __post_init__(self) -> None:
        _check_attention(self)
        if not isinstance(self.encoder, Module | None):
            raise TypeError(f"CrossAttention: encoder must be an nn module, not {self.encoder!r}.")

    def init(self, key, shape):
        keys, shapes, encoder = jax.random.split(key, 6), self._parts(shape), ()
        if self.encoder is not None:
            encoder = init_layer(self.encoder, keys[4], shapes[0])
            shapes = [output_shape(self.encoder, encoder, s) for s in shapes]
        queries, C = self._checked([values_of(s) for s in shapes])
        return {**_parameters(self, keys, (queries, C, C)), "encoder": encoder}

    def apply(self, params, x, *, key=None):
        both = [part if isinstance(part, Context) else jnp.asarray(part) for part in self._parts(x)]
        if self.encoder is not None:
            keys = (None, None) if key is None else jax.random.split(key)
            both = [apply_layer(self.encoder, params["encoder"], a, k) for a, k in zip(both, keys, strict=True)]
        x, context = map(values_of, both)
        mask, channels = mask_of(both[1]), self._checked([x.shape, context.shape])
        seen = None if mask is None else mask.reshape(-1)
        queries, context = (part.reshape(-1, C) for part, C in zip((x, context), channels, strict=True))
        z = _attended(self, params, queries, context, context, lambda logits: _weights(self, logits, seen))
        return with_values(self, both[0], z.reshape(*x.shape[:-1], self.width))

    def _parts(self, x):
        several = isinstance(x, tuple | list) and not isinstance(x, Context)
        if not several or len(x) != 2 or any(isinstance(part, int) for part in x):
            raise ValueError("CrossAttention: the input must be a tuple (x, context) of two arrays.")
        return x

    def _checked(self, shapes) -> tuple[int, int]:
        """The channels of both, which one matrix for both needs to be the same."""
        if any(len(s) < 2 for s in shapes) or (self.scaling == "width" and shapes[0][-1] != shapes[1][-1]):
            same = " with the same C" if self.scaling == "width" else ""
            raise ValueError(
                f"CrossAttention: x and context must be (positions..., C){same}, and their shapes (after the encoder) "
                f"are {tuple(shapes[0])} and {tuple(shapes[1])}."
            )
        return shapes[0][-1], shapes[1][-1]
