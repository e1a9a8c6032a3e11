"""The kernel by products of Jacobians with vectors: little memory, many passes through the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["products"]


def products(f: Callable, other: Callable, leaves: Sequence[Any], weights: Sequence[Any], x1, x2, output: str):
    """``J(x) (lr J'(x')^T e_p)`` for one output p of one example x' after the other.

    weights: learning rates, None for a parameter that does not count.
    Returns (N, O, M, O) for "full", (O, N, M) for "diag", (N, M) for "sum".
    """
    counted = [i for i, w in enumerate(weights) if w is not None]

    def of(g, chosen, x):
        given = list(leaves)
        for i, a in zip(counted, chosen, strict=True):
            given[i] = a
        return g(given, x)

    chosen = [leaves[i] for i in counted]

    def column(x):
        out, pull = jax.vjp(lambda chosen: of(other, chosen, x), chosen)

        def along(cotangent):
            (gradient,) = pull(cotangent)
            vector = [
                g * jnp.reshape(jnp.broadcast_to(jnp.asarray(weights[i], g.dtype), (g.size,)), g.shape)
                for i, g in zip(counted, gradient, strict=True)
            ]
            return jax.vmap(lambda a: jax.jvp(lambda chosen: of(f, chosen, a), (chosen,), (vector,))[1])(x1)

        return jax.lax.map(along, jnp.eye(out.size, dtype=out.dtype))  # (p, N, O)

    whole = jax.lax.map(column, x2)  # (M, p, N, O)
    if output == "full":
        return jnp.transpose(whole, (2, 3, 0, 1))
    diagonal = jnp.diagonal(whole, axis1=1, axis2=3)  # (M, N, O)
    return jnp.transpose(diagonal, (2, 1, 0)) if output == "diag" else jnp.transpose(diagonal.sum(-1))
