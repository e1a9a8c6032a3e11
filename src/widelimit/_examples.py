"""What an example is: an array, or a tuple or dict of arrays (a graph as nodes and adjacency, values and a mask)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["as_example", "described", "floating", "holds_jax", "in_one_precision", "in_double", "signature"]


def as_example(x: Any) -> Any:
    """Lists and numbers as arrays; tuples and dicts of arrays as they are, their entries as arrays.

    A tuple of numbers is an array like a list of them.
    """
    if isinstance(x, dict):
        return {k: as_example(v) for k, v in x.items()}
    if isinstance(x, tuple) and any(isinstance(e, tuple | dict) or jnp.ndim(e) for e in x if not isinstance(e, list)):
        return tuple(as_example(e) for e in x)
    return x if isinstance(x, jax.Array | np.ndarray) else np.asarray(x)


def floating(x: Any) -> Any:
    """Integers of an example as floating-point numbers; booleans (masks) as they are."""

    def cast(a):
        if not jnp.issubdtype(a.dtype, jnp.integer):
            return a
        return a.astype(jnp.result_type(float) if isinstance(a, jax.Array) else np.float64)

    return jax.tree.map(cast, x)


def holds_jax(*xs: Any) -> bool:
    """Whether any of the arrays is JAX's."""
    return any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(xs))


def in_one_precision(*xs: Any) -> list[Any]:
    """Examples as JAX arrays: floating ones in their common precision of at least 32 bits, integers of as many."""
    floats = [a for a in jax.tree.leaves(xs) if jnp.issubdtype(a.dtype, jnp.floating)]
    dtype = jnp.result_type(*floats) if floats else jnp.result_type(float)
    return [_cast(x, jnp.promote_types(dtype, jnp.float32)) for x in xs]


def in_double(x: Any) -> Any:
    """An example as JAX arrays with 64-bit numbers (inside `enable_x64`); integers stay integers."""
    return _cast(x, jnp.float64)


def _cast(x, dtype):
    def cast(a):
        if a.dtype == bool:
            return jnp.asarray(a)
        if jnp.issubdtype(a.dtype, jnp.integer):
            return jnp.asarray(a).astype(jnp.promote_types(a.dtype, jnp.int32))
        if not jnp.issubdtype(a.dtype, jnp.floating):
            raise TypeError(f"an example must hold numbers, not {a.dtype}.")
        return jnp.asarray(a).astype(dtype)

    return jax.tree.map(cast, x)


def described(x: Any) -> Any:
    """Shapes and types of an example."""
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(jnp.shape(a), a.dtype), x)


def signature(x: Any) -> tuple:
    """The same, as something that can be compared and hashed."""
    leaves, structure = jax.tree.flatten(x)
    return structure, tuple((tuple(jnp.shape(a)), str(a.dtype)) for a in leaves)
