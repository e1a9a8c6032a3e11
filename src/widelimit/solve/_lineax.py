"""Operators of lineax on flat vectors.  Imported on use, as lineax and matfree are optional."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jax.flatten_util import ravel_pytree
from matfree import decomp

from widelimit.solve._gram_operator import GramOperator

__all__ = ["multiplied", "tridiagonalised"]


def _flat(operator: lx.AbstractLinearOperator):
    """``v -> A v`` of flat vectors."""
    example = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), operator.in_structure())
    unravel = ravel_pytree(example)[1]
    return lambda v: ravel_pytree(operator.mv(unravel(v)))[0]


@eqx.filter_jit
def multiplied(operator: lx.AbstractLinearOperator, V: jax.Array) -> Any:
    """``A V``, V (size, C)."""
    if isinstance(operator, GramOperator):
        shape = operator.in_structure().shape
        return operator.mv(V.reshape(*shape, V.shape[1])).reshape(-1, V.shape[1])
    return jax.vmap(_flat(operator), 1, 1)(V)


@eqx.filter_jit
def tridiagonalised(operator: lx.AbstractLinearOperator, V: jax.Array, steps: int, together: bool) -> Any:
    """Lanczos from each row of V (p, size) with full reorthogonalisation: (p, steps, steps), of which the
    diagonal and that below are those of the tridiagonal matrices.

    together: all at once, which takes p times the memory, or one after the other.
    """
    # not tridiag_sym, whose mean with the transpose hides where the Krylov space is exhausted
    lanczos = decomp.hessenberg(steps, reortho="full", custom_vjp=False)
    product = _flat(operator)

    def of_vector(v):
        return lanczos(product, v)[1]

    return jax.vmap(of_vector)(V) if together else jax.lax.map(of_vector, V)
