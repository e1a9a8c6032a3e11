"""Maxima and minima whose derivatives go by the place of the extremum.

JAX's derivative of `jnp.max` goes to the entries that equal the maximum.  XLA may compute the entries twice, rounded
differently, once for the maximum and once to compare them with it (on a CPU in JAX 0.8 to 0.12, where an expression
with products is fused): then none is equal, or one too few, and the derivative is wrong.  The place of the maximum is
found whatever the rounding.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from widelimit._equations import replaced

__all__ = ["amax", "amin", "by_place", "first_max", "first_min"]


def _extremum(extremum, derivative):
    """The extremum over some axes, kept with size 1; derivative: of x, its tangent and the axes."""

    @functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
    def select(x, axes):
        return extremum(x, axes, keepdims=True)

    @select.defjvp
    def _(axes, primals, tangents):
        return select(primals[0], axes), derivative(primals[0], tangents[0], axes)

    return select


def _shared(extremum, place):
    """By all entries that have the extremum, evenly."""

    def derivative(x, dx, axes):
        kept = [1 if a in axes else n for a, n in enumerate(x.shape)]
        last = tuple(range(-len(axes), 0))
        sizes = [n for a, n in enumerate(x.shape) if a not in axes]
        x, dx = (jnp.moveaxis(a, axes, last).reshape(*sizes, -1) for a in (x, dx))
        own = place(x, -1, keepdims=True)
        same = (x == extremum(x, -1, keepdims=True)) | (jax.lax.broadcasted_iota(own.dtype, x.shape, x.ndim - 1) == own)
        return (jnp.where(same, dx, 0).sum(-1) / same.sum(-1).astype(x.dtype)).reshape(kept)

    return derivative


def _first(place):
    """By the first entry that has it; over one axis."""
    return lambda x, dx, axis: jnp.take_along_axis(dx, place(x, axis, keepdims=True), axis)


amax = _extremum(jnp.max, _shared(jnp.max, jnp.argmax))
amin = _extremum(jnp.min, _shared(jnp.min, jnp.argmin))
first_max, first_min = _extremum(jnp.max, _first(jnp.argmax)), _extremum(jnp.min, _first(jnp.argmin))


def by_place(f: Callable) -> Callable:
    """f of arrays and pytrees of them, with derivatives of its maxima and minima that are right when compiled."""
    return replaced(f, _rule)


def _rule(eqn) -> Callable[..., list] | None:
    select = {"reduce_max": amax, "reduce_min": amin}.get(eqn.primitive.name)
    if select is None or not jnp.issubdtype(eqn.outvars[0].aval.dtype, jnp.floating):
        return None
    if 0 in eqn.invars[0].aval.shape:  # of nothing, which has no place
        return None
    axes = tuple(eqn.params["axes"])
    return lambda x: [jnp.squeeze(select(x, axes), axes) if axes else x]
