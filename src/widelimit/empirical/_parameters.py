"""Parameters of a finite network: their names, which of them count, and their learning rates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["check_like", "check_parameters", "leaves_of", "names_of", "weights_of"]


def check_parameters(where: str, params) -> None:
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    if not leaves:
        raise ValueError(f"{where}: params holds no arrays, so there is nothing to differentiate by.")
    for path, leaf in leaves:
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TypeError(
                f"{where}: params{jax.tree_util.keystr(path)} holds {jnp.result_type(leaf)}, not real floating-point "
                "numbers. Remedy: convert it, or leave what is not trained out of params (close over it in f)."
            )


def leaves_of(params: Any) -> list[jax.Array]:
    """The arrays of parameters, in double precision where that is on."""
    double = jnp.result_type(float) == jnp.float64

    def cast(a):
        if isinstance(a, jax.Array):
            return a.astype(jnp.promote_types(a.dtype, jnp.float64)) if double else a
        a = np.asarray(a)
        # said outright: while JAX traces, NumPy's float64 does not always become float32
        wanted = np.float64 if double else np.float32 if a.dtype == np.float64 else a.dtype
        return jnp.asarray(a.astype(wanted))

    return [cast(a) for a in jax.tree.leaves(params)]


def names_of(params: Any) -> list[str]:
    """Paths of the parameters, such as "[0]['W']"."""
    return [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]


def _is_number(lr) -> bool:
    return isinstance(lr, float | int | np.number) or (isinstance(lr, jax.Array | np.ndarray) and lr.ndim == 0)


def weights_of(where: str, params: Any, lr: Any, parameters: Callable[[str], bool] | None) -> list[Any]:
    """A factor for each parameter: None for one that does not count, a number, or an array like it, raveled.

    Raises ValueError for an lr of another structure or shape, or a choice of no parameter at all.
    """
    leaves, names = jax.tree.leaves(params), names_of(params)
    if lr is None or _is_number(lr):
        rates = [1.0 if lr is None else lr] * len(leaves)
    elif jax.tree.structure(lr) != jax.tree.structure(params):
        raise ValueError(f"{where}: lr must be a number or a pytree of the same structure as params.")
    else:
        rates = jax.tree.leaves(lr)
    found = []
    for name, leaf, rate in zip(names, leaves, rates, strict=True):
        if jnp.ndim(rate) > 0:
            try:
                own = jnp if isinstance(rate, jax.Array) else np  # NumPy keeps float64 where JAX would not
                rate = own.ravel(own.broadcast_to(rate, jnp.shape(leaf)))
            except ValueError:
                raise ValueError(
                    f"{where}: lr{name} has shape {jnp.shape(rate)}, the parameter {jnp.shape(leaf)}."
                ) from None
        found.append(rate if parameters is None or parameters(name) else None)
    if all(rate is None for rate in found):
        raise ValueError(f"{where}: parameters chooses none of {', '.join(names)}.")
    return found


def check_like(theta, params) -> None:
    """Raise ValueError for parameters of another structure or other shapes than params."""
    if jax.tree.structure(theta) != jax.tree.structure(params):
        raise ValueError(
            "the parameters given have another structure than those that the network had at first; give them as those."
        )
    for (path, a), b in zip(jax.tree_util.tree_flatten_with_path(theta)[0], jax.tree.leaves(params), strict=True):
        if jnp.shape(a) != jnp.shape(b):
            raise ValueError(
                f"parameter {jax.tree_util.keystr(path)} has shape {jnp.shape(a)}, and had {jnp.shape(b)} at first."
            )
