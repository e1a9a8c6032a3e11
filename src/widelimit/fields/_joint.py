"""Functions of several Gaussian fields at once: one average over the joint Gaussian vector of both sides."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from widelimit.fields._errors import UnknownLimitError
from widelimit.fields._expanding import as_joint
from widelimit.fields._expression import Derivative
from widelimit.fields._law import DEPENDENT, Law
from widelimit.fields._linear_form import Slot
from widelimit.fields._node import Const, Ew, Joint, Node
from widelimit.fields._placing import full_tie, place_x, place_y

__all__ = ["average", "joint_rule", "leaves", "mean_of_joint", "partials", "slopes_of_joint", "stein_of_joint"]

Factor = tuple[int, Node]  # side (0: X, 1: Y) and a function of Gaussian fields


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
        raise UnknownLimitError(DEPENDENT)
    return [(u, Joint(Derivative(joint.expression, i), joint.leaves)) for i, u in enumerate(joint.leaves)]


def joint_rule(cov, kind, X, Y, tie):
    """``K = E[phi(u) psi(v)]``, ``T = E[sum_ij d_i phi(u) T(u_i, v_j) d_j psi(v)]`` (Price 1958)."""
    law = Law(cov, X, Y, tie)
    (left, _), (right, _) = law.slots(0, X), law.slots(1, Y)
    blocks = [[law.block(kind, u, v) for v in right] for u in left]
    if all(b is None for row in blocks for b in row):
        if kind == "T":
            return None
        mx, my = cov.mean(X), cov.mean(Y)
        return None if mx is None or my is None else place_x(mx, tie) * place_y(my, tie, len(X.shape))
    if kind == "K":
        return average(cov, [(0, X), (1, Y)], X, Y, tie)
    first, second = law.gradient(0, X), law.gradient(1, Y)
    return law.average(law.contracted(first, second, blocks, ([u.size for u in left], [v.size for v in right])))


def stein_of_joint(cov, kind, X, Y: Joint, tie):
    """``sum_j Cov(X, v_j) E[d_j psi(v)]`` of a Gaussian X, the derivatives in one average; T alike.

    None where there is no covariance; False where no field enters psi at several positions: one by one is less then.
    """
    law = Law(cov, X, Y, tie)
    slots, _ = law.slots(1, Y)
    if all(s.axis is None for s in slots):
        return False
    one = Slot(0, X, tuple(range(len(X.shape))))
    blocks = [law.covariance(kind, one, s) for s in slots]
    if all(b is None for b in blocks):
        return None
    slopes = [place_y(slope, tie, len(X.shape)) for slope in cov.slopes(Y)]
    total, start = 0.0, 0
    for slot, block in zip(slots, blocks, strict=True):
        if block is not None:
            total = total + sum(block[..., 0, j] * slopes[start + j] for j in range(slot.size))
        start += slot.size
    return total


def slopes_of_joint(cov, X: Joint) -> list:
    """``E[d_j phi]`` by each variable of X's slots, over X's axes."""
    law = Law(cov, X, X, full_tie(X))
    gradient = law.gradient(0, X)
    means = law.average(lambda u: jnp.stack(gradient(u), axis=-1))
    return [means[..., j] for j in range(means.shape[-1])]


def mean_of_joint(cov, X):
    """``E[phi(u_1, ..., u_k)]``."""
    return average(cov, [(0, X)], X, X, full_tie(X))


def average(cov, factors: list[Factor], X, Y, tie):
    """``E[prod_i F_i]`` of functions of fields of X (side 0) and Y (side 1), put in place."""
    law = Law(cov, X, Y, tie)
    functions = [law.function(side, node) for side, node in factors]

    def product(u):
        value: Any = 1.0
        for f in functions:
            value = value * f(u)
        return value

    return law.average(product)
