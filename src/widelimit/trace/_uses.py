"""How one parameter has been used so far by the program of one input: what its next use must account for."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax.numpy as jnp

from widelimit.fields import Const, Linear, Mat, Merge, Node, Split, UnknownLimitError, is_elementwise, sensitivity

__all__ = ["Uses", "mean_shift", "reaction"]


@dataclasses.dataclass
class Uses:
    """vector: whether the parameter was used as a vector over channels; matrices: its contractions, in order; splits:
    which of its axes were seen as several; parts: the ranges along its axes that were contracted; roles: for the wide
    axis that is contracted (or none), which finite ones are contracted with it, and at which the value has its own;
    rolled: directions in which loops over time contract it; heads: its uses head by head, and
    which of its axes was that of heads.
    """

    heads: Uses | None = None
    axis_of_heads: int | None = None

    vector: bool = False
    rolled: set = dataclasses.field(default_factory=set)
    parts: list[list[tuple[int, int]]] = dataclasses.field(default_factory=list)
    splits: tuple | None = None
    roles: dict[tuple[int, ...], tuple] = dataclasses.field(default_factory=dict)
    matrices: list[tuple[tuple[int, ...], Mat]] = dataclasses.field(default_factory=list)

    def seen(self, splits: tuple) -> None:
        """Note how the axes are seen, which must be the same each time: entries are told apart by their places."""
        if self.splits not in (None, splits):
            raise UnknownLimitError(
                "one parameter is reshaped in different ways; which of its entries meet is not followed. Remedy: use "
                "one shape throughout."
            )
        self.splits = splits

    def contracted(self, direction: tuple[int, ...], wide: tuple[bool, ...], own: tuple[int, ...] = ()) -> None:
        """Note which axes are contracted, and which are positions of the value too: the same ones each time.

        Else entries meet whose places differ, ``sum_k W_k x_k`` and ``W_0 y``.
        """
        if self.vector:
            raise UnknownLimitError(
                "one parameter is used entry by entry over channels (a bias, a row of an embedding, a sum of its rows) "
                "and contracted too; which of its entries meet is not followed. Remedy: contract it with constants, "
                "ones @ W instead of W.sum(0), or take two parameters."
            )
        role = (direction, own)
        if self.roles.setdefault(tuple(a for a in direction if wide[a]), role) != role:
            raise UnknownLimitError(
                "one parameter is contracted along different ones of its axes of fixed size; which of its entries meet "
                "is not followed. Remedy: contract the same axes each time (with values that are 0 elsewhere), or take "
                "two parameters."
            )

    def took(self, part: list[tuple[int, int]], wide: tuple[bool, ...]) -> None:
        """Note a part that is contracted, which must be one taken before, or share no position with those."""
        part = [(0, 0) if w else p for p, w in zip(part, wide, strict=True)]
        for other in self.parts:
            apart = any(a[1] <= b[0] or b[1] <= a[0] for a, b, w in zip(part, other, wide, strict=True) if not w)
            if other != part and not apart:
                raise UnknownLimitError(
                    "parts of one parameter that overlap are contracted, W[:2] and W[1:], whose common entries are not "
                    "followed. Remedy: contract the whole parameter and take parts of the result."
                )
        if part not in self.parts:
            self.parts.append(part)


def reaction(interpreter, equation, weight, direction: tuple[int, ...], node: Mat) -> list[tuple[Any, Node]]:
    """Terms to add to ``W^T y`` where y depends on earlier ``g_i = W x_i``, beside a Gaussian as if W^T were fresh.

    ``W^T y = G + sum_i sigma^2 n E[dy/dg_i] x_i`` (Onsager's term; Yang 2020, Tensor Programs II, theorem 5.1 and
    III, Z-hat and Z-dot).  direction: the parameter's own axes that are contracted.  The term of a use in the same
    direction is none.
    """
    terms: list[tuple[Any, Node]] = []
    if any(d != direction for d in weight.uses.rolled) and not isinstance(node.child, Const):
        raise equation.refuse("a parameter of a loop over time is used in the other direction (W.T) after it.")
    for other, earlier in weight.uses.matrices:
        if other == direction or isinstance(node.child, Const):
            continue
        slope = sensitivity(interpreter.covariance, node.child, earlier)
        if slope is None:
            continue
        whole = all(weight.size[a] == weight.full[a] for a in range(len(weight.full)))
        plain = all(not m.free and m.rows == m.offset == 0 and not m.own for m in (node, earlier))
        taps = [m.child.shape[m.kept :] for m in (node, earlier)]  # offsets of a filter, the same of both
        if not plain or not whole or taps[0] != taps[1] or bool(node.shape) != bool(earlier.shape):
            raise equation.refuse(
                "a parameter is used in both directions (W and W.T) in parts, or with axes of its own that are left.",
                "Remedy: use whole matrices or filters, or compare finite networks with wl.monte_carlo.",
            )
        coefficient = weight.prior.variance * float(node.n) * slope
        if taps[0] or len(node.shape) > 1:
            terms.append((1.0, _over_positions(node, earlier, coefficient)))
            continue
        if node.shape and is_elementwise(node.child, earlier):
            coefficient = jnp.diagonal(coefficient)
        mixed = jnp.ndim(coefficient) > len(node.shape)
        terms.append((1.0, Linear(earlier.child, 0, coefficient)) if mixed else (coefficient, earlier.child))
    weight.uses.matrices.append((direction, node))
    return terms


def _over_positions(node: Mat, earlier: Mat, coefficient) -> Node:
    """``z_p = sum_qk c_pkq x_qk``: positions p, q and the offsets k of a filter, of which x is what it sees."""
    kept, seen, count = node.shape, earlier.child, len(node.child.shape)
    coefficient = jnp.broadcast_to(coefficient, node.child.shape + earlier.shape)
    order = [*range(node.kept), *range(count, count + len(earlier.shape)), *range(node.kept, count)]
    matrix = jnp.transpose(coefficient, order).reshape(math.prod(kept), math.prod(seen.shape))
    flat = Merge(seen, 0, len(seen.shape)) if len(seen.shape) > 1 else seen
    mixed = Linear(flat, 0, matrix)
    return Split(mixed, 0, kept) if len(kept) > 1 else mixed


def mean_shift(interpreter, weight, node: Mat) -> list[tuple[Any, Node]]:
    """``mean sum_i E[x_i]``: what the mean of a weight adds, the same in every channel."""
    mean = weight.prior.mean
    if isinstance(mean, float | int) and mean == 0:
        return []
    value = interpreter.covariance.mean(node.child)
    if value is None:
        return []
    value = jnp.broadcast_to(jnp.asarray(value, interpreter.dtype), node.child.shape)
    value = value.sum(axis=tuple(range(node.kept, node.kept + node.contracted))) * (mean * float(node.n))
    return [(1.0, Const(jnp.broadcast_to(value.reshape(value.shape + (1,) * len(node.free)), node.shape)))]
