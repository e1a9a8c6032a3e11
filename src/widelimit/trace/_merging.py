"""Elementwise functions of functions: composed into one function of one preactivation, or of as few as there are."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import lax

from widelimit.fields import (
    LARGEST,
    Apply,
    Axes,
    Const,
    Copies,
    Ew,
    Joint,
    Literal,
    Loop,
    Mat,
    Merge,
    Node,
    Prod,
    Split,
    Sum,
    Take,
    Variable,
    affine,
    applied,
    combined,
    constant_expression,
    copied,
    expanded,
    has_parameters,
    substitute,
)
from widelimit.trace._picking import taken
from widelimit.trace._values import rebuilt

__all__ = ["folded", "function_of", "multiply_nodes"]


def _chain(node: Node):
    """Ways to see a node as a function of one Gaussian field: pairs (field, expression), outermost first."""
    if isinstance(node, Const):
        return None
    if isinstance(node, Ew):
        out = []
        for root, inner in _chain(node.leaf) or []:
            expression = substitute(node.expression, [inner])
            if expression is not None:
                out.append((root, expression))
        return out
    if node.gaussian:
        out = [(node, Variable())]
        return out + _affine_chain(node)
    if isinstance(node, Sum):
        found = _common([child for _, child in node.terms])
        out = []
        for root, expressions in found:
            out.append((root, combined([c for c, _ in node.terms], expressions)))
        return out
    if isinstance(node, Prod):
        out = []
        for root, expressions in _common(node.factors):
            total = expressions[0]
            for e in expressions[1:]:
                total = applied(lax.mul_p, total, e)
            out.append((root, total))
        return out
    return []


def _affine_chain(node: Node):
    """``c u + d`` with numbers c, d as a function of u."""
    found = affine(node)
    if found is None:
        return []
    c, child, d = found
    out = []
    for root, e in _chain(child) or []:
        scaled = e if c == 1 else applied(lax.mul_p, Literal(c), e)
        out.append((root, scaled if d == 0 else applied(lax.add_p, scaled, Literal(d))))
    return out


def _written_out(node: Node) -> Node:
    """What loops leave that is not Gaussian, as the functions that it is: those can be composed with others."""
    if not _holds_loop(node):
        return node

    def leaf(x: Node) -> Node:
        if isinstance(x, Copies):
            return copied(_written_out(x.child), x.count)
        return x.recurrence.unrolled(x.index, x.last) if isinstance(x, Loop) and not x.gaussian else x

    return rebuilt(node, leaf)


def _holds_loop(node: Node) -> bool:
    if isinstance(node, Loop):
        return not node.gaussian
    parts = [n for _, n in node.terms] if isinstance(node, Sum) else getattr(node, "factors", [])
    parts = [*parts, *(p for p in (getattr(node, "child", None),) if p is not None and not isinstance(node, Mat))]
    return any(map(_holds_loop, parts))


def function_of(primitive, params: tuple, nodes: list[Node]) -> Node | None:
    """A primitive applied to fields and constants: of one Gaussian field where possible, else of several; or None."""
    nodes = [_settled(_written_out(node)) for node in nodes]
    pieces = next((p for p in map(_pieces, nodes) if p is not None), None)
    if pieces is not None:
        return _piecewise(primitive, params, nodes, *pieces)
    found = _common(nodes)
    if found:
        root, expressions = found[0]
        return Ew(Apply(primitive, params, tuple(expressions)), root)
    leaves: list[Node] = []
    expressions = [expanded(node, leaves) for node in nodes]
    if any(e is None for e in expressions):
        return None
    return Joint(Apply(primitive, params, tuple(expressions)), leaves)


def folded(primitive, nodes) -> Node | None:
    """``f(x_1, f(x_2, ...))`` of several fields; None where that is no function of Gaussian fields, or of too many."""
    leaves: list[Node] = []
    total = None
    for node in nodes:
        expression = expanded(node, leaves)
        if expression is None or len(leaves) > LARGEST:
            return None
        total = expression if total is None else applied(primitive, total, expression)
    return Joint(total, leaves)


def _settled(node: Node) -> Node:
    """Positions moved about before functions are applied, not after: elementwise functions do not mind."""
    if not isinstance(node, Axes | Take | Merge | Split) or node.gaussian:
        return node
    if isinstance(node, Take) and np.min(node.index, initial=0) < 0:
        return node

    def move(x: Node) -> Node:
        if isinstance(node, Axes):
            return _settled(Axes(x, node.source, node.shape))
        if isinstance(node, Take):
            return _settled(Take(x, node.axis, node.index))
        return _settled(Merge(x, node.axis, node.count) if isinstance(node, Merge) else Split(x, node.axis, node.sizes))

    child = _settled(node.child)
    if isinstance(child, Ew) and not has_parameters(child.expression):
        return Ew(child.expression, move(child.leaf))
    if isinstance(child, Joint) and not has_parameters(child.expression):
        return Joint(child.expression, [move(u) for u in child.leaves])
    if isinstance(child, Sum) and all(jnp.ndim(c) == 0 for c, _ in child.terms):
        return Sum([(c, move(x)) for c, x in child.terms])
    return Prod([move(x) for x in child.factors]) if isinstance(child, Prod) else node


def _pieces(node: Node) -> tuple[int, list[np.ndarray]] | None:
    """(axis, places of each piece) of fields that are not Gaussian put beside each other along an axis."""
    if not isinstance(node, Sum) or node.gaussian or len(node.terms) < 2:
        return None
    terms = [x for c, x in node.terms if isinstance(c, float) and c == 1.0 and isinstance(x, Take)]
    if len(terms) < len(node.terms) or len({x.axis for x in terms}) > 1:
        return None
    filled = np.stack([x.index >= 0 for x in terms])
    return (terms[0].axis, [np.flatnonzero(row) for row in filled]) if np.all(filled.sum(0) == 1) else None


def _piecewise(primitive, params, nodes, axis: int, places: list[np.ndarray]) -> Node | None:
    """A function applied to each piece, and the images put beside each other."""
    size, terms = sum(map(len, places)), []
    for at in places:
        image = function_of(primitive, params, [_piece(node, axis, at) for node in nodes])
        if image is None:
            return None
        back = np.full(size, -1)
        back[at] = np.arange(len(at))
        terms.append((1.0, Take(image, axis, back)))
    return Sum(terms)


def _piece(node: Node, axis: int, at: np.ndarray) -> Node:
    if isinstance(node, Const):
        array = node.array
        varies = jnp.ndim(array) == len(node.shape) and array.shape[axis] > 1
        return Const(jnp.take(array, at, axis=axis)) if varies else node
    found = _pieces(node)
    if found is not None and found[0] == axis:
        for _, x in node.terms:  # type: ignore[attr-defined]
            if np.all(x.index[at] >= 0):
                return taken(x.child, axis, x.index[at])
    return taken(node, axis, at)


def _common(nodes: list[Node]):
    """Gaussian fields of which all the nodes are functions: pairs (field, expressions), outermost first."""
    chains = [_chain(n) for n in nodes]
    known = [c for c in chains if c is not None]
    if not known:
        return []
    out = []
    for root, _ in known[0]:
        expressions = []
        for node, chain in zip(nodes, chains, strict=True):
            if chain is None:
                assert isinstance(node, Const)
                expressions.append(constant_expression(node.array))
                continue
            match = [e for r, e in chain if r is root]
            if not match:
                break
            expressions.append(match[0])
        else:
            out.append((root, expressions))
    return out


def _merged(node: Node) -> Node:
    """``1 - phi(u)`` and the like as one function of u, so that products of them are not multiplied out."""
    if isinstance(node, Sum) and not node.gaussian:
        chain = _chain(node)
        if chain and not has_parameters(chain[0][1]):  # a function that depends on arrays would lose its closed form
            return Ew(chain[0][1], chain[0][0])
    return node


def multiply_nodes(a: Node, b: Node) -> Node:
    """``a b``: scaled, merged into one function of one field, or a product."""
    for x, y in ((a, b), (b, a)):
        if isinstance(x, Const):
            return Sum([(x.array, y)])
    a, b = _settled(_written_out(a)), _settled(_written_out(b))
    found = _common([a, b])
    sums = any(isinstance(x, Sum) and not x.gaussian for x in (a, b))
    if found and not (sums and any(map(has_parameters, found[0][1]))):  # those are multiplied out: closed forms stay
        root, (first, second) = found[0]
        return Ew(applied(lax.mul_p, first, second), root)
    a, b = _merged(a), _merged(b)
    for x, y in ((a, b), (b, a)):
        if isinstance(x, Sum) and not x.gaussian:
            return Sum([(c, multiply_nodes(n, y)) for c, n in x.terms])
        if isinstance(x, Sum) and len(x.terms) == 1:
            return Sum([(x.terms[0][0], multiply_nodes(x.terms[0][1], y))])
    factors: list[Node] = []
    for x in (a, b):
        for factor in x.factors if isinstance(x, Prod) else [x]:
            for i, other in enumerate(factors):
                merged = _common([other, factor])
                if merged:
                    root, (first, second) = merged[0]
                    factors[i] = Ew(applied(lax.mul_p, first, second), root)
                    break
            else:
                factors.append(factor)
    return factors[0] if len(factors) == 1 else Prod(factors)
