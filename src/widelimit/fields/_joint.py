"""Functions of several Gaussian fields at once: one average over the joint Gaussian vector of both sides."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from widelimit.duals import gaussian_average
from widelimit.fields._errors import UnknownLimitError
from widelimit.fields._expression import Derivative, Variable, evaluate
from widelimit.fields._linear import add
from widelimit.fields._node import Const, Ew, Joint, Node, Noise
from widelimit.fields._placing import full_tie, place_x, place_y

__all__ = ["average", "joint_rule", "leaves", "mean_of_joint", "partials"]

Factor = tuple[int, Node]  # side (0: X, 1: Y) and a function of Gaussian fields


def leaves(node: Node) -> list[Node]:
    """The Gaussian fields of which the node is a function: itself, if it is no function."""
    if isinstance(node, Joint):
        return node.leaves
    return [node.leaf] if isinstance(node, Ew) else [node]


def partials(node: Node) -> list[tuple[Node, Node | None]]:
    """Each leaf with the derivative of the node by it (None: the constant 1)."""
    if isinstance(node, Joint):
        return [(u, Joint(Derivative(node.expression, i), node.leaves)) for i, u in enumerate(node.leaves)]
    if isinstance(node, Ew):
        return [(node.leaf, Ew(Derivative(node.expression), node.leaf))]
    return [(node, None)]


def joint_rule(cov, kind, X, Y, tie):
    """``K = E[phi(u) psi(v)]``, ``T = sum_ij E[d_i phi(u) d_j psi(v)] T(u_i, v_j)`` (Price 1958)."""
    if kind == "K":
        if all(cov.K(u, v, tie) is None for u in leaves(X) for v in leaves(Y)):
            mx, my = cov.mean(X), cov.mean(Y)
            return None if mx is None or my is None else place_x(mx, tie) * place_y(my, tie, len(X.shape))
        return average(cov, [(0, X), (1, Y)], X, Y, tie)
    total = None
    for u, left in partials(X):
        for v, right in partials(Y):
            tangent = cov.T(u, v, tie)
            if tangent is None:
                continue
            rest = [(side, f) for side, f in ((0, left), (1, right)) if f is not None]
            value = average(cov, rest, X, Y, tie)
            total = add(total, None if value is None else value * tangent)
    return total


def mean_of_joint(cov, X):
    """``E[phi(u_1, ..., u_k)]``."""
    return average(cov, [(0, X)], X, X, full_tie(X))


def average(cov, factors: list[Factor], X, Y, tie):
    """``E[prod_i F_i]`` of functions of fields of X (side 0) and Y (side 1), put in place."""
    variables: list[Factor] = []
    functions = []
    nx = len(X.shape)
    places = (lambda a: place_x(a, tie), lambda a: place_y(a, tie, nx))
    for side, node in factors:
        where = [_index(variables, (side, u), tie) for u in leaves(node)]
        expression = node.expression if isinstance(node, Ew | Joint) else Variable()
        functions.append((expression, where, places[side]))
    for _, u in variables:
        if isinstance(u, Noise | Const) or not u.gaussian:
            raise UnknownLimitError(
                f"a nonlinear function of several fields, one of them {_kind(u)}, has no rule. Remedy: apply the "
                "nonlinearity before the noise, or compare finite networks with wl.monte_carlo."
            )
    means, covariance = _law(cov, variables, tie, nx, places)

    def product(z: tuple):
        value: Any = 1.0
        for expression, where, place in functions:
            value = value * evaluate(expression, tuple(z[i] for i in where), place)
        return value

    value, error = gaussian_average(product, means, covariance, cov.points)
    note = f"function of {len(variables)} preactivations at once, quasi-Monte Carlo of {cov.points} points"
    cov.approximate.note(note, "standard error (of the largest value)", lambda: (_relative(error, value),))
    return value


def _relative(error, value):
    return jnp.max(error) / jnp.maximum(jnp.max(jnp.abs(value)), jnp.finfo(value.dtype).tiny)


def _kind(node: Node) -> str:
    return "a dropout mask" if isinstance(node, Noise) else f"a {type(node).__name__}"


def _index(variables: list[Factor], variable: Factor, tie) -> int:
    """Where the variable is in the list; one field at the same position of both sides is the same variable."""
    side, u = variable
    for i, (other, v) in enumerate(variables):
        if u is v and (side == other or tie == full_tie(u)):
            return i
    variables.append(variable)
    return len(variables) - 1


def _law(cov, variables: list[Factor], tie, nx: int, places):
    """Means and lower triangle of the covariance of the variables, in the layout of pairs of positions."""
    raw = [cov.mean(u) for _, u in variables]
    means = [None if m is None else places[side](m) for m, (side, _) in zip(raw, variables, strict=True)]
    covariance: list[list[Any]] = []
    for i, (side, u) in enumerate(variables):
        row: list[Any] = []
        for j, (other, v) in enumerate(variables[: i + 1]):
            if side == other:
                value = cov.K(u, v, full_tie(u))
                value = None if value is None else places[side](value)
            else:
                value = cov.K(v, u, tie) if side else cov.K(u, v, tie)
            if means[i] is not None and means[j] is not None and value is not None:
                value = value - means[i] * means[j]
            if i == j:
                value = jnp.zeros(()) if value is None else jnp.maximum(value, 0)
            row.append(value)
        covariance.append(row)
    return means, covariance
