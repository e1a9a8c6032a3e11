"""Elementwise functions of functions: composed into one function of one preactivation, or of as few as there are."""

from __future__ import annotations

from jax import lax

from widelimit.fields import (
    Apply,
    Const,
    Ew,
    Joint,
    Literal,
    Node,
    Prod,
    Sum,
    Variable,
    affine,
    applied,
    combined,
    constant_expression,
    expanded,
    has_parameters,
    substitute,
)

__all__ = ["function_of", "multiply_nodes"]


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


def function_of(primitive, params: tuple, nodes: list[Node]) -> Node | None:
    """A primitive applied to fields and constants: of one Gaussian field where possible, else of several; or None."""
    found = _common(nodes)
    if found:
        root, expressions = found[0]
        return Ew(Apply(primitive, params, tuple(expressions)), root)
    leaves: list[Node] = []
    expressions = [expanded(node, leaves) for node in nodes]
    return None if None in expressions else Joint(Apply(primitive, params, tuple(expressions)), leaves)


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
