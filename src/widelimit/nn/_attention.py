"""Self-attention over all positions, with logits scaled by the inverse width or by its root."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from widelimit.nn._context import mask_of, values_of, with_values
from widelimit.nn._module import Module, checked_number

__all__ = ["PositionalEmbedding", "SelfAttention"]

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
class SelfAttention(Module):
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
    width: int
    heads: int = 1
    W_query_std: Any = 1.0
    W_key_std: Any = 1.0
    W_value_std: Any = 1.0
    W_out_std: Any = 1.0
    b_std: Any = None
    mechanism: str = "softmax"
    causal: bool = False
    positions: PositionalEmbedding | None = None
    scaling: str = "width"

    @property
    def widths(self):
        return ("width", "heads") if self.scaling == "root_width" else ("width",)

    def __post_init__(self) -> None:
        if self.scaling not in ("width", "root_width"):
            raise ValueError(f"SelfAttention: scaling must be 'width' or 'root_width', not {self.scaling!r}.")
        for name in ("width", "heads"):
            checked_number("SelfAttention", name, getattr(self, name), whole=True, least=1)
        if not isinstance(self.positions, PositionalEmbedding | None):
            raise TypeError(f"SelfAttention: positions must be a PositionalEmbedding, not {self.positions!r}.")
        for name in ("W_query_std", "W_key_std", "W_value_std", "W_out_std", "b_std"):
            if name != "b_std" or self.b_std is not None:
                checked_number("SelfAttention", name, getattr(self, name), least=0)
        if self.mechanism not in _MECHANISMS:
            raise ValueError(
                f"SelfAttention: mechanism must be one of {', '.join(_MECHANISMS)}, not {self.mechanism!r}."
            )

    def init(self, key, shape):
        shape = values_of(shape)
        if len(shape) < 2:
            raise ValueError(f"SelfAttention: the input must be (positions..., C), and its shape is {shape}.")
        keys, C = jax.random.split(key, 6), shape[-1]
        seen = C if self.positions is None or not self.positions.concat else 2 * C
        shapes = {"K": (seen, self.width), "V": (C, self.width), "O": (self.width, self.width)}
        params = {n: jax.random.normal(k, (self.heads, *s)) for k, (n, s) in zip(keys, shapes.items(), strict=False)}
        if self.scaling == "root_width":
            params["Q"] = jax.random.normal(keys[5], (self.heads, seen, self.width))
        if self.b_std is not None:
            params["b"] = jax.random.normal(keys[3], (self.width,))
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
        k = jnp.einsum("pc,hcd->hpd", seen, params["K"]) / seen.shape[-1] ** 0.5
        values = jnp.einsum("pc,hcd->hpd", x, params["V"]) * (self.W_value_std / C**0.5)
        q, power = k, 1.0
        if self.scaling == "root_width":
            q, power = jnp.einsum("pc,hcd->hpd", seen, params["Q"]) / seen.shape[-1] ** 0.5, 0.5
        logits = jnp.einsum("hpd,hqd->hpq", q, k) * (self.W_query_std * self.W_key_std / self.width**power)
        weights = self._weights(logits, None if mask is None else mask.reshape(-1))
        y = jnp.einsum("hpq,hqd->hpd", weights, values)
        z = jnp.einsum("hpd,hdc->pc", y, params["O"]) * (self.W_out_std / (self.heads * self.width) ** 0.5)
        z = z if self.b_std is None else z + self.b_std * params["b"]
        return z.reshape(*positions, self.width)

    def _weights(self, logits, mask):
        if mask is None and not self.causal:
            return _MECHANISMS[self.mechanism](logits)
        seen = jnp.tril(jnp.ones(logits.shape[-2:], bool)) if self.causal else jnp.ones(logits.shape[-2:], bool)
        if mask is not None:  # masked queries see whatever, for finite weights: their rows are set to 0
            seen = seen & (mask | ~mask[:, None])
        if self.mechanism == "softmax":
            return jax.nn.softmax(jnp.where(seen, logits, -jnp.inf))
        return jnp.where(seen, _MECHANISMS[self.mechanism](logits), 0)
