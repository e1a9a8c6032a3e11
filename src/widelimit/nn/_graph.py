"""Graphs and masked examples: what takes them in, and the sum over neighbours."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from widelimit.nn._combinators import Sequential
from widelimit.nn._context import Context, entered, entered_shape, values_of, with_values
from widelimit.nn._module import Module

__all__ = ["Aggregate", "Graph", "Masked"]

_ARRAY = (jax.Array, np.ndarray, tuple, list)  # or its shape


@dataclasses.dataclass(frozen=True)
class Aggregate(Module):
    """``y_i = sum_j A_ij x_j``, the sum over a node's neighbours; A is the adjacency matrix of the `Graph` around it.

    A is used as it is given: weights, self loops (ones on the diagonal) and normalisation are the input's.
    Raises ValueError outside a `Graph`.  Source: Kipf and Welling 2017, eq. 2; Du et al. 2019.
    """

    takes_context = True

    def init(self, key, shape):
        self._checked(shape)
        return ()

    def apply(self, params, x, *, key=None):
        self._checked(x)
        return with_values(self, x, jnp.dot(x.adjacency.astype(x.values.dtype), x.values))

    def _checked(self, x) -> None:
        if not isinstance(x, Context) or x.adjacency is None:
            raise ValueError(
                "Aggregate: there is no adjacency matrix. Remedy: put it inside nn.Graph(...), before any pooling; the "
                "input is then (nodes, adjacency)."
            )


@dataclasses.dataclass(frozen=True, init=False)
class _Entrance(Module):
    body: Sequential

    def __init__(self, *layers: Module):
        object.__setattr__(self, "body", Sequential(*layers))

    def init(self, key, shape):
        return self.body.init(key, self._entered(shape, entered_shape))

    def apply(self, params, x, *, key=None):
        out = self.body.apply(params, self._entered(x, entered), key=key)
        return jax.tree.map(values_of, out, is_leaf=lambda y: isinstance(y, Context))

    def _entered(self, x: Any, enter: Callable) -> Any:
        """The example, or its shapes, in their context."""
        return enter(type(self).__name__, *self._parts(x))

    def _parts(self, x: Any) -> tuple:
        """Values, adjacency, mask."""
        raise NotImplementedError


class Graph(_Entrance):
    """A chain of layers on a graph ``(nodes, adjacency)`` or ``(nodes, adjacency, mask)``; returns the values.

    nodes: (N, C), or (N,) integers before an `Embedding`; adjacency: (N, N), for `Aggregate`; mask: (N,), 1 where a
    node is real and 0 where the graph is padded.  A padded graph has exactly the kernel of the graph itself: masked
    nodes are 0 after every layer, pools and attention leave them out.
    Raises ValueError for shapes that do not fit, or a layer that changes the positions under a mask.
    Source: Kipf and Welling 2017; Du et al. 2019.
    """

    def _parts(self, x):
        if not isinstance(x, tuple | list) or len(x) not in (2, 3) or not all(isinstance(s, _ARRAY) for s in x):
            raise ValueError("Graph: the input must be a tuple (nodes, adjacency) or (nodes, adjacency, mask).")
        return (*x, None)[:3]


class Masked(_Entrance):
    """A chain of layers on a padded example ``(x, mask)``; returns the values.

    x: (positions..., C), or integers (positions...) before an `Embedding`; mask: (positions...), 1 where a position
    is real and 0 where it is padded.  A padded example has exactly the kernel of the example itself: masked positions
    are 0 after every layer (so that convolutions see what they see beyond an edge), and pools, attention and
    normalisation over positions leave them out.
    An example of several parts, for `Parallel`, is a tuple of such pairs and of arrays without a mask:
    ``Masked(Parallel(decoder, encoder), CrossAttention(width))`` takes ``((x, mask), (context, context_mask))``.
    Raises ValueError for a mask that does not fit, or a layer that changes the positions (strides, `Flatten`).
    """

    def _entered(self, x, enter):
        if not isinstance(x, tuple) or not any(map(_is_pair, x)):
            return super()._entered(x, enter)
        return tuple(super(Masked, self)._entered(part, enter) if _is_pair(part) else part for part in x)

    def _parts(self, x):
        if not isinstance(x, tuple | list) or len(x) != 2 or not all(isinstance(s, _ARRAY) for s in x):
            raise ValueError("Masked: the input must be a tuple (x, mask), or a tuple of such pairs and of arrays.")
        return x[0], None, x[1]


def _is_pair(part: Any) -> bool:
    """Whether it is an array with its mask, or the shapes of these."""
    return isinstance(part, tuple) and len(part) == 2 and all(isinstance(a, _ARRAY) for a in part)
