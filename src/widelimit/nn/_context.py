"""What travels with the values of an example: the adjacency matrix of a graph, the mask of a padded one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

__all__ = [
    "Context", "apply_layer", "as_structs", "combined", "entered", "entered_shape", "init_layer", "mask_of",
    "output_shape", "shapes_of", "values_of", "with_values",
]  # fmt: skip


class Context(NamedTuple):
    """Values (positions..., C) with an adjacency matrix (N, N) and a mask (positions...), or the shapes of these."""

    values: Any
    adjacency: Any = None
    mask: Any = None


def values_of(x: Any) -> Any:
    """The values (or their shape), with or without a context."""
    return x.values if isinstance(x, Context) else x


def mask_of(x: Any) -> Any:
    """The mask, None without one."""
    return x.mask if isinstance(x, Context) else None


def with_values(layer: Any, x: Any, values: jax.Array) -> Any:
    """The output of a layer in the context of its input: masked positions are 0.

    Raises ValueError for a layer that changes the positions, or depends on their number, under a mask.
    """
    if not isinstance(x, Context):
        return values
    if x.mask is None:
        return x._replace(values=values)
    _check_positions(type(layer).__name__, values, x.mask)
    if getattr(layer, "padding", None) == "CIRCULAR" or getattr(layer, "normalize_edges", False):
        setting = "normalize_edges" if getattr(layer, "normalize_edges", False) else 'padding "CIRCULAR"'
        raise ValueError(
            f"{type(layer).__name__}: {setting} sees where the padded example ends, not the masked one. "
            'Remedy: padding "SAME" without normalize_edges.'
        )
    # written so that one channel takes the same operations as several: limits are read at two widths
    mask = jax.lax.broadcast_in_dim(x.mask, values.shape, tuple(range(x.mask.ndim)))
    return x._replace(values=jax.lax.select(mask, values, jnp.zeros_like(values)))


def _check_positions(name: str, values: jax.Array, mask: jax.Array) -> None:
    if values.ndim != mask.ndim + 1 or values.shape[:-1] != mask.shape:
        raise ValueError(
            f"{name}: it changes the positions of a masked example from {mask.shape} to {values.shape[:-1]}, for which "
            "there is no mask. Remedy: pool with GlobalAvgPool or GlobalSumPool first, or keep the positions "
            '(strides 1, padding "SAME").'
        )


def apply_layer(layer: Any, params: Any, x: Any, key: jax.Array | None) -> Any:
    """A layer's output in a context, whether the layer knows of contexts or not."""
    if not isinstance(x, Context) or layer.takes_context:
        return layer.apply(params, x, key=key)
    return with_values(layer, x, layer.apply(params, x.values, key=key))


def init_layer(layer: Any, key: jax.Array, shape: Any) -> Any:
    """A layer's parameters for an input of the given shape, which may be a context's."""
    return layer.init(key, shape if layer.takes_context else values_of(shape))


def output_shape(layer: Any, params: Any, shape: Any) -> Any:
    """Shape of what `apply_layer` returns; nothing is computed."""
    return shapes_of(jax.eval_shape(lambda p, x: apply_layer(layer, p, x, None), params, as_structs(shape)))


def as_structs(shape: Any) -> Any:
    """Descriptions of arrays from their shapes: one, or a tuple, dict or context of them."""
    if shape is None:
        return None
    if isinstance(shape, Context):
        mask = None if shape.mask is None else jax.ShapeDtypeStruct(shape.mask, jnp.bool_)
        return Context(as_structs(shape.values), as_structs(shape.adjacency), mask)
    if isinstance(shape, dict):
        return {name: as_structs(s) for name, s in shape.items()}
    if isinstance(shape, tuple) and any(isinstance(s, tuple | dict) for s in shape):
        return tuple(as_structs(s) for s in shape)
    return jax.ShapeDtypeStruct(tuple(shape), jnp.result_type(float))


def shapes_of(structs: Any) -> Any:
    """Shapes in place of arrays or their descriptions."""
    return jax.tree.map(lambda a: tuple(a.shape), structs)


def combined(layer: Any, function: Callable[[Sequence[jax.Array]], jax.Array], outputs: Sequence[Any]) -> Any:
    """A function of the values of several outputs, in their common context."""
    if not any(isinstance(y, Context) for y in outputs):
        return function(outputs)
    name, first = type(layer).__name__, outputs[0]
    if any(not isinstance(y, Context) or (y.mask is None) != (first.mask is None) for y in outputs):
        raise ValueError(f"{name}: one branch keeps the masked positions and another pools them. Remedy: pool in both.")
    values = function([y.values for y in outputs])
    if first.mask is not None:  # its masked positions are 0 already
        _check_positions(name, values, first.mask)
    return first._replace(values=values)


def entered(layer: str, values: Any, adjacency: Any, mask: Any) -> Context:
    """The context of an example: masked values are set to 0 whatever they were."""
    given = (values, adjacency, mask)
    values, adjacency, mask = (a if a is None or isinstance(a, jax.Array) else jnp.asarray(a) for a in given)
    shapes = [None if a is None else tuple(a.shape) for a in (values, adjacency, mask)]
    entered_shape(layer, shapes[0], shapes[1], shapes[2])
    if mask is None:
        return Context(values, adjacency)
    mask = mask if mask.dtype == bool else mask != 0
    return Context(jnp.where(mask if mask.ndim == values.ndim else mask[..., None], values, 0), adjacency, mask)


def entered_shape(layer: str, values: Any, adjacency: Any, mask: Any) -> Context:
    """The same of shapes; raises ValueError where they do not fit."""
    positions = values if mask is not None and len(mask) == len(values) else values[:-1]
    if mask is not None and tuple(mask) != tuple(positions):
        raise ValueError(
            f"{layer}: the mask has shape {tuple(mask)}, and the positions of values of shape {tuple(values)} have "
            f"shape {tuple(values[:-1])}. A mask has one entry for each position: 1 where it is real, 0 where padded."
        )
    if adjacency is not None and (len(adjacency) != 2 or set(adjacency) != {values[0] if values else None}):
        nodes = values[0] if values else 1
        raise ValueError(
            f"{layer}: the adjacency matrix has shape {tuple(adjacency)}, and {nodes} nodes (values of shape "
            f"{tuple(values)}) need ({nodes}, {nodes})."
        )
    return Context(values, adjacency, mask)
