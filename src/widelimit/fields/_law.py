"""The Gaussian vector that functions of several fields of both sides depend on, and averages over it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from widelimit.duals import gaussian_average
from widelimit.fields._errors import UnknownLimitError
from widelimit.fields._expanding import as_joint, same_field
from widelimit.fields._expression import evaluate
from widelimit.fields._linear_form import Part, Slot, linear_forms
from widelimit.fields._node import Frozen, Joint, Node
from widelimit.fields._placing import place_x, place_y, untied

__all__ = ["DEPENDENT", "Law"]

_FEW = 16  # pairs of partial derivatives that are multiplied out; more as a product with a matrix
_MORE = 16  # times the points of an average that serves all pairs of positions, which costs little there

DEPENDENT = (
    "a product of dependent fields, one of them a dropout mask or a sum over many positions of nonlinear functions, "
    "has no rule. Remedy: put a dense layer in between, or compare finite networks with wl.monte_carlo."
)


class Law:
    """Fields that some functions of X (side 0) and Y (side 1) depend on, in the layout of pairs of positions."""

    def __init__(self, cov, X, Y, tie):
        self.cov, self.tie, self.nx = cov, tie, len(X.shape)
        self.rank = self.nx + len(untied(tie))
        self.variables: list[Slot] = []

    def _place(self, side: int, array):
        return place_y(array, self.tie, self.nx) if side else place_x(array, self.tie)

    def _target(self, side: int, axis: int) -> int:
        """Where an axis of X or Y is in the layout."""
        if side == 0:
            return axis
        own = self.tie[axis]
        return own if own is not None else self.nx + untied(self.tie).index(axis)

    def _targets(self, slot: Slot) -> list[int | None]:
        return [None if i == slot.axis else self._target(slot.side, own) for i, own in enumerate(slot.own)]

    def slots(self, side: int, node: Node) -> tuple[list[Slot], list[list[Part]]]:
        """The slots that a function of fields needs, and what each of its fields takes of them."""
        joint = self._joint(node)
        known = joint.__dict__  # once: both of a pair's moments ask, and each pair the node is in
        if "slots" not in known:
            known["slots"] = linear_forms(joint.leaves)
        slots, leaves = known["slots"]
        return [s._replace(side=side) for s in slots], leaves

    def _joint(self, node: Node) -> Joint:
        joint = as_joint(node)
        if joint is None:
            raise UnknownLimitError(DEPENDENT)
        return joint

    def _start(self, slot: Slot) -> int:
        """Which variable the slot's first is; one field at the same position of both sides is the same variable."""
        node = slot.node.child if isinstance(slot.node, Frozen) else slot.node  # of the same values
        slot, start = slot._replace(node=node), 0
        for other in self.variables:
            same = slot.axis == other.axis and self._targets(slot) == self._targets(other)
            if same and same_field(node, other.node):
                return start
            start += other.size
        self.variables.append(slot)
        return start

    def _local(self, side: int, node: Node) -> tuple[Callable, Callable]:
        """The node as a function of its own fields, and these as a function of the tuple of variables."""
        joint = self._joint(node)
        slots, leaves = self.slots(side, node)
        start = [self._start(s) for s in slots]

        def values(u):
            return [
                sum(self._value(u[start[p.slot] : start[p.slot] + slots[p.slot].size], side, p) for p in parts)
                for parts in leaves
            ]

        return lambda *z: evaluate(joint.expression, z, lambda a: self._place(side, a)), values

    def function(self, side: int, node: Node) -> Callable:
        """The node as a function of the tuple of variables."""
        f, values = self._local(side, node)
        return lambda u: f(*values(u))

    def gradient(self, side: int, node: Node) -> Callable:
        """Its derivatives by each variable of its `slots`, one after another."""
        f, values = self._local(side, node)
        slots, leaves = self.slots(side, node)

        def derivatives(u):
            own = values(u)
            shape = jax.eval_shape(f, *own).shape  # each entry has derivatives of its own
            value, pull = jax.vjp(f, *(jnp.broadcast_to(a, shape) for a in own))
            found: list[list[Any]] = [[0.0] * s.size for s in slots]
            for parts, d in zip(leaves, pull(jnp.ones_like(value)), strict=True):
                for part in parts:
                    row = found[part.slot]
                    for j in np.flatnonzero(np.any(part.matrix != 0, axis=0)).tolist():
                        row[j] = row[j] + d * self._coefficients(part, j, side, d)
            return [jnp.broadcast_to(d, shape) for row in found for d in row]

        return derivatives

    def _value(self, u, side: int, part: Part):
        """``sum_j matrix_rj u_j``, r along its axis of the layout."""
        columns = np.flatnonzero(np.any(part.matrix != 0, axis=0)).tolist()
        if part.along is None or len(columns) == 1:
            return sum(u[j] * self._coefficients(part, j, side, u[j]) for j in columns)
        rows = np.stack([self._coefficients(part, j, side, u[j]) for j in columns])
        return jnp.sum(jnp.stack([u[j] for j in columns]) * jnp.asarray(rows, u[0].dtype), axis=0)

    def _coefficients(self, part: Part, j: int, side: int, like):
        """Column j of the part's matrix, along its axis of the layout."""
        column = part.matrix[:, j].astype(like.dtype)
        shape = [1] * like.ndim
        if part.along is None:
            return column[0]
        shape[1 + self._target(side, part.along)] = len(column)
        return column.reshape(shape)

    def average(self, function: Callable):
        """``E[f(u)]``, its error noted; of `_MORE` times the points where one average serves many entries."""
        means, covariance = self._moments()
        count = covariance.shape[-1]
        u = tuple(jax.ShapeDtypeStruct((1, *covariance.shape[:-2]), covariance.dtype) for _ in range(count))
        served = math.prod(jax.eval_shape(function, u).shape) // max(math.prod(covariance.shape[:-2]), 1)
        points = self.cov.points * (_MORE if served > 1 else 1)
        value, error = gaussian_average(function, means, covariance, points)
        what = f"function of {count} preactivations, quasi-Monte Carlo of {points} points"
        self.cov.approximate.note(what, "standard error (of the largest value)", lambda: (_relative(error, value),))
        return value

    def contracted(self, first: Callable, second: Callable, tangents: list[list[Any]], sizes) -> Callable:
        """``sum_ij d_i phi T_ij d_j psi`` of two gradients; tangents: blocks over slots of sizes (rows, columns)."""
        rows, columns = sizes
        if sum(rows) * sum(columns) <= _FEW:
            entries = [
                (sum(rows[:a]) + i, sum(columns[:b]) + j, block[..., i, j])
                for a, line in enumerate(tangents)
                for b, block in enumerate(line)
                if block is not None
                for i in range(rows[a])
                for j in range(columns[b])
            ]

            def few(u):
                left, right = first(u), second(u)
                return sum(left[i] * t * right[j] for i, j, t in entries)

            return few
        matrix = _assembled(tangents, rows, columns)

        def many(u):
            left, right = (jnp.stack(g(u), axis=-1) for g in (first, second))
            shape = jnp.broadcast_shapes(right.shape[1:-1], matrix.shape[:-2])
            flat = jnp.broadcast_to(matrix, (*shape, *matrix.shape[-2:])).reshape(-1, *matrix.shape[-2:])
            right = jnp.broadcast_to(right, (len(right), *shape, right.shape[-1])).reshape(len(right), len(flat), -1)
            # few axes: XLA's products of arrays of many have failed
            out = jnp.einsum("bij,pbj->pbi", flat, right, precision="highest")
            return jnp.sum(left * out.reshape(len(out), *shape, -1), axis=-1)

        return many

    def block(self, kind: str, one: Slot, two: Slot):
        """K or T of two slots: layout, then the positions of both; None where it vanishes."""
        if one.side > two.side:
            found = self.block(kind, two, one)
            return None if found is None else jnp.swapaxes(found, -1, -2)
        rows, columns = self._targets(one), self._targets(two)
        tie = tuple(None if t is None or t not in rows else rows.index(t) for t in columns)
        value = self.cov.pair(kind, one.node, two.node, tie)
        if value is None:
            return None
        where = [self.rank if t is None else t for t in rows]
        where += [self.rank + 1 if t is None else t for t in (columns[i] for i in untied(tie))]
        value = _put(value, where, self.rank + 2)
        return jnp.broadcast_to(value, (*value.shape[:-2], one.size, two.size))

    def covariance(self, kind: str, one: Slot, two: Slot):
        """K of two slots without the product of their means, or T."""
        value = self.block(kind, one, two)
        if value is None or kind == "T":
            return value
        mi, mj = self._mean(one), self._mean(two)
        return value if mi is None or mj is None else value - mi[..., :, None] * mj[..., None, :]

    def _mean(self, slot: Slot):
        value = self.cov.mean(slot.node)
        if value is None:
            return None
        where = [self.rank if t is None else t for t in self._targets(slot)]
        value = _put(value, where, self.rank + 1)
        return jnp.broadcast_to(value, (*value.shape[:-1], slot.size))

    def _moments(self):
        """Means (..., k) and covariance (..., k, k) of the variables, in the layout of pairs of positions."""
        slots = self.variables
        means = [self._mean(s) for s in slots]
        blocks: list[list[Any]] = [[None] * len(slots) for _ in slots]
        for i in range(len(slots)):
            for j in range(i + 1):
                value = self.covariance("K", slots[i], slots[j])
                blocks[i][j] = value
                blocks[j][i] = value if value is None or i == j else jnp.swapaxes(value, -1, -2)
        sizes = [s.size for s in slots]
        covariance = _assembled(blocks, sizes, sizes)
        mean = _assembled([[None if m is None else m[..., None, :] for m in means]], [1], sizes)
        mean = jnp.broadcast_to(mean[..., 0, :], jnp.broadcast_shapes((*mean.shape[:-2], 1), covariance.shape[:-1]))
        return mean, jnp.broadcast_to(covariance, (*mean.shape[:-1], *covariance.shape[-2:]))


def _put(value, where: list[int], rank: int):
    """An array whose axes go to the places `where` of one with `rank` axes."""
    if not jnp.ndim(value):
        return jnp.reshape(value, (1,) * rank)
    order = sorted(range(len(where)), key=lambda i: where[i])
    shape = [1] * rank
    for i, target in enumerate(where):
        shape[target] = value.shape[i]
    return jnp.transpose(value, order).reshape(shape)


def _assembled(blocks: list[list[Any]], rows: list[int], columns: list[int]):
    """Blocks (..., rows, columns), None for zeros, as one array; row by row, which compiles many times faster."""
    known = [b for line in blocks for b in line if b is not None]
    dtype = jnp.result_type(*known) if known else jnp.result_type(float)
    shape = jnp.broadcast_shapes(*(b.shape[:-2] for b in known))

    def full(block, n, m):
        if block is None:
            return jnp.zeros((*shape, n, m), dtype)
        return jnp.broadcast_to(block, (*shape, n, m)).astype(dtype)

    lines = [
        jnp.concatenate([full(b, n, m) for b, m in zip(line, columns, strict=True)], -1)
        for line, n in zip(blocks, rows, strict=True)
    ]
    return jnp.concatenate(lines, -2)


def _relative(error, value):
    return jnp.max(error) / jnp.maximum(jnp.max(jnp.abs(value)), jnp.finfo(value.dtype).tiny)
