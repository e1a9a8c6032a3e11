"""Functions of several Gaussian fields at once: one average over the joint Gaussian vector of both sides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from widelimit.duals import gaussian_average
from widelimit.fields._errors import UnknownLimitError
from widelimit.fields._expanding import as_joint, same_field
from widelimit.fields._expression import Derivative, evaluate
from widelimit.fields._node import Const, Ew, Frozen, Joint, Node
from widelimit.fields._placing import full_tie, place_x, place_y

__all__ = ["average", "joint_rule", "leaves", "mean_of_joint", "partials"]

_FEW = 16  # pairs of partial derivatives that are multiplied out; more as a product with a matrix

Factor = tuple[int, Node]  # side (0: X, 1: Y) and a function of Gaussian fields


_DEPENDENT = (
    "a product of dependent fields, one of them a dropout mask or a sum over many positions of nonlinear functions, "
    "has no rule. Remedy: put a dense layer in between, or compare finite networks with wl.monte_carlo."
)


def leaves(node: Node) -> list[Node]:
    """The Gaussian fields of which the node is a function: itself, if it is no function."""
    if node.gaussian or isinstance(node, Const):
        return [node]
    joint = as_joint(node)
    return [node] if joint is None else joint.leaves


def partials(node: Node) -> list[tuple[Node, Node | None]]:
    """Each leaf with the derivative of the node by it (None: the constant 1)."""
    if isinstance(node, Ew):
        return [(node.leaf, Ew(Derivative(node.expression), node.leaf))]
    if node.gaussian or isinstance(node, Const):
        return [(node, None)]
    joint = as_joint(node)
    if joint is None:
        raise UnknownLimitError(_DEPENDENT)
    return [(u, Joint(Derivative(joint.expression, i), joint.leaves)) for i, u in enumerate(joint.leaves)]


def joint_rule(cov, kind, X, Y, tie):
    """``K = E[phi(u) psi(v)]``, ``T = E[sum_ij d_i phi(u) T(u_i, v_j) d_j psi(v)]`` (Price 1958)."""
    if kind == "K":
        if all(cov.K(u, v, tie) is None for u in leaves(X) for v in leaves(Y)):
            mx, my = cov.mean(X), cov.mean(Y)
            return None if mx is None or my is None else place_x(mx, tie) * place_y(my, tie, len(X.shape))
        return average(cov, [(0, X), (1, Y)], X, Y, tie)
    tangents = [[cov.T(u, v, tie) for v in leaves(Y)] for u in leaves(X)]
    if all(t is None for row in tangents for t in row):
        return None
    law = _Law(cov, X, Y, tie)
    first, second = law.gradient(0, X), law.gradient(1, Y)

    def contracted(u):
        left, right = first(u), second(u)
        pairs = ((a, b, t) for a, row in zip(left, tangents, strict=True) for b, t in zip(right, row, strict=True))
        return sum(a * b * t for a, b, t in pairs if t is not None)

    if len(leaves(X)) * len(leaves(Y)) <= _FEW:
        return law.average(contracted)
    matrix = _stacked([[0.0 if t is None else t for t in row] for row in tangents])

    def multiplied(u):
        left, right = (_side_by_side(arrays, matrix.shape[:-2]) for arrays in (first(u), second(u)))
        shape = jnp.broadcast_shapes(left.shape[1:-1], right.shape[1:-1])
        flat = jnp.broadcast_to(matrix, (*shape, *matrix.shape[-2:])).reshape(-1, *matrix.shape[-2:])
        left, right = (
            jnp.broadcast_to(a, (len(a), *shape, a.shape[-1])).reshape(len(a), -1, a.shape[-1]) for a in (left, right)
        )
        # few axes: XLA's products of arrays of many have failed
        moved = jnp.einsum("bij,pbj->pbi", flat, right, precision="highest")
        return jnp.sum(left * moved, axis=-1).reshape(-1, *shape)

    return law.average(multiplied)


def _side_by_side(arrays, shape):
    """Arrays over points (and positions) as one, with a last axis."""
    full = [jnp.broadcast_to(a, (a.shape[0], *jnp.broadcast_shapes(a.shape[1:], shape))) for a in arrays]
    return jnp.stack(full, axis=-1)


def _stacked(rows: list[list[Any]]):
    """Arrays of different shapes as one with two last axes; row by row, which compiles many times faster."""
    arrays = [[jnp.asarray(a) for a in row] for row in rows]
    shape = jnp.broadcast_shapes(*(a.shape for row in arrays for a in row))
    dtype = jnp.result_type(*(a for row in arrays for a in row))
    return jnp.stack([jnp.stack([jnp.broadcast_to(a, shape).astype(dtype) for a in row], -1) for row in arrays], -2)


def mean_of_joint(cov, X):
    """``E[phi(u_1, ..., u_k)]``."""
    return average(cov, [(0, X)], X, X, full_tie(X))


def average(cov, factors: list[Factor], X, Y, tie):
    """``E[prod_i F_i]`` of functions of fields of X (side 0) and Y (side 1), put in place."""
    law = _Law(cov, X, Y, tie)
    functions = [law.function(side, node) for side, node in factors]

    def product(u):
        value: Any = 1.0
        for f in functions:
            value = value * f(u)
        return value

    return law.average(product)


class _Law:
    """The Gaussian vector of the fields that some functions of X (side 0) and Y (side 1) depend on."""

    def __init__(self, cov, X, Y, tie):
        self.cov, self.tie, self.nx = cov, tie, len(X.shape)
        self.variables: list[Factor] = []

    def _place(self, side: int, array):
        return place_y(array, self.tie, self.nx) if side else place_x(array, self.tie)

    def _index(self, side: int, u: Node) -> int:
        """Which variable it is; one field at the same position of both sides is the same variable."""
        u = u.child if isinstance(u, Frozen) else u  # of the same values
        for i, (other, v) in enumerate(self.variables):
            if (side == other or self.tie == full_tie(u)) and same_field(u, v):
                return i
        self.variables.append((side, u))
        return len(self.variables) - 1

    def _local(self, side: int, node: Node) -> tuple[Callable, list[int]]:
        joint = as_joint(node)
        if joint is None:
            raise UnknownLimitError(_DEPENDENT)
        where = [self._index(side, u) for u in joint.leaves]
        return lambda *z: evaluate(joint.expression, z, lambda a: self._place(side, a)), where

    def function(self, side: int, node: Node) -> Callable:
        """The node as a function of the tuple of variables."""
        f, where = self._local(side, node)
        return lambda u: f(*(u[i] for i in where))

    def gradient(self, side: int, node: Node) -> Callable:
        """Its derivatives by each of its own leaves."""
        f, where = self._local(side, node)

        def derivatives(u):
            value, pull = jax.vjp(f, *(u[i] for i in where))
            return pull(jnp.ones_like(value))

        return derivatives

    def average(self, function: Callable):
        """``E[f(u)]``, its error noted."""
        means, covariance = self._moments()
        value, error = gaussian_average(function, means, covariance, self.cov.points)
        what = f"function of {len(self.variables)} preactivations, quasi-Monte Carlo of {self.cov.points} points"
        self.cov.approximate.note(what, "standard error (of the largest value)", lambda: (_relative(error, value),))
        return value

    def _moments(self):
        """Means (..., k) and covariance (..., k, k) of the variables, in the layout of pairs of positions."""
        raw = [self.cov.mean(u) for _, u in self.variables]
        means = [None if m is None else self._place(s, m) for m, (s, _) in zip(raw, self.variables, strict=True)]
        size = len(means)
        entries: list[list[Any]] = [[0.0] * size for _ in range(size)]
        for i in range(size):
            for j in range(i + 1):
                value = self._second_moment(i, j)
                mi, mj = means[i], means[j]
                if value is not None and mi is not None and mj is not None:
                    value = value - mi * mj
                entries[i][j] = entries[j][i] = 0.0 if value is None else value
        stacked = _stacked([*entries, [0.0 if m is None else m for m in means]])
        return stacked[..., -1, :], stacked[..., :-1, :]

    def _second_moment(self, i: int, j: int):
        (side, u), (other, v) = self.variables[i], self.variables[j]
        if side != other:
            return self.cov.K(v, u, self.tie) if side else self.cov.K(u, v, self.tie)
        value = self.cov.K(u, v, full_tie(u))
        return None if value is None else self._place(side, value)


def _relative(error, value):
    return jnp.max(error) / jnp.maximum(jnp.max(jnp.abs(value)), jnp.finfo(value.dtype).tiny)
