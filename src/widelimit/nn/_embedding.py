"""Embeddings of tokens."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from widelimit.nn._module import Module, checked_number

__all__ = ["Embedding"]


@dataclasses.dataclass(frozen=True)
class Embedding(Module):
    """``z_t = W_std E[x_t]``, a trained random row for each token: rows of equal tokens are equal, others independent.

    The input is integer tokens from 0 to vocabulary - 1, of shape (T,) or (); others are rounded towards 0 and to the
    nearest token that there is.  Output (T, width) or (width,).  Parameters: (vocabulary, width), N(0, 1).
    Raises ValueError for a width or vocabulary below 1 or a negative W_std.
    Source: Bengio et al. 2003; Yang 2019.
    """

    width: int
    vocabulary: int
    W_std: Any = 1.0

    def __post_init__(self) -> None:
        for name in ("width", "vocabulary"):
            checked_number("Embedding", name, getattr(self, name), whole=True, least=1)
        checked_number("Embedding", "W_std", self.W_std, least=0)

    def init(self, key, shape):
        return jax.random.normal(key, (self.vocabulary, self.width))

    def apply(self, params, x, *, key=None):
        x = jnp.asarray(x)
        tokens = x if jnp.issubdtype(x.dtype, jnp.integer) else x.astype(jnp.int32)
        return self.W_std * params[jnp.clip(tokens, 0, self.vocabulary - 1)]
