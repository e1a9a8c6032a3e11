"""Products of fields: independent factors apart, then moments; the product rule for T."""

from __future__ import annotations

import itertools

from widelimit.fields._joint import average, leaves, partials
from widelimit.fields._linear import add
from widelimit.fields._node import Const, Ew, Node, Noise, Prod, Sum
from widelimit.fields._placing import full_tie, place_x, place_y

__all__ = ["channel_sources", "expectation", "is_entangled", "product_rule", "score_rule"]


def _factors(node: Node) -> list[Node]:
    return node.factors if isinstance(node, Prod) else [node]


def product_rule(cov, kind, X, Y, tie):
    """``K = E[prod X_i prod Y_j]``; ``T = sum_ij T(X_i, Y_j) E[the rest]``, of a nonlinear factor its derivative."""
    left, right = [(0, f) for f in _factors(X)], [(1, f) for f in _factors(Y)]
    if kind == "K":
        return expectation(cov, left + right, X, Y, tie)
    alone = _alone(_groups(cov, left + right, X, Y, tie))
    total = None
    for (u, first), (v, second) in itertools.product(_derivatives(left, alone), _derivatives(right, alone)):
        tangent = cov.T(u, v, tie)
        if tangent is None:
            continue
        rest = first + second
        value = expectation(cov, rest, X, Y, tie) if rest else 1.0
        if value is not None:
            total = add(total, tangent * value)
    return total


def _alone(groups) -> list[tuple[int, Node]]:
    """Factors that are independent of all others of their own side: their own moments are all that is needed."""
    out = []
    for group in groups:
        sides = [side for side, _ in group]
        out += group if max(sides.count(0), sides.count(1)) == 1 else []
    return out


def _derivatives(factors, alone):
    """Each factor that is alone, and each field in the others, with the rest of the product's derivative by it."""
    out = []
    for i, (side, factor) in enumerate(factors):
        others = [f for n, f in enumerate(factors) if n != i]
        whole = any(s == side and f is factor for s, f in alone)
        for leaf, partial in [(factor, None)] if whole else partials(factor):
            out.append((leaf, others if partial is None else [*others, (side, partial)]))
    return out


def score_rule(cov, kind, X, Y, tie):
    """``K = n sum_(i, j) E[X_1 Y_i] E[X_2 Y_j]`` over ``(i, j) = (1, 2), (2, 1)``; T by the product rule."""
    total = None
    for i, j in ((0, 1), (1, 0)):
        if kind == "K":
            total = add(total, _both(cov.K(X.factors[0], Y.factors[i], tie), cov.K(X.factors[1], Y.factors[j], tie)))
            continue
        total = add(total, _both(cov.T(X.factors[0], Y.factors[i], tie), cov.K(X.factors[1], Y.factors[j], tie)))
        total = add(total, _both(cov.K(X.factors[0], Y.factors[i], tie), cov.T(X.factors[1], Y.factors[j], tie)))
    return None if total is None else float(X.n) * total


def _both(a, b):
    return None if a is None or b is None else a * b


def expectation(cov, factors, X, Y, tie):
    """Expectation of a product of factors of X (side 0) and Y (side 1), put in place; None if it vanishes."""
    total = 1.0
    for group in _groups(cov, factors, X, Y, tie):
        value = _group_moment(cov, group, X, Y, tie)
        if value is None:
            return None
        total = total * value
    return total


def is_entangled(cov, node: Node) -> bool:
    """Whether a second moment of the node needs more than pairs of nonlinear factors (gates applied repeatedly)."""
    if isinstance(node, Sum):
        return any(is_entangled(cov, child) for _, child in node.terms)
    if not isinstance(node, Prod):
        return False
    factors = [(side, f) for side in (0, 1) for f in node.factors]
    return any(_is_hard(cov, group) for group in _groups(cov, factors, node, node, full_tie(node)))


def _is_hard(cov, group) -> bool:
    fields = [f for _, f in group]
    if len(group) <= 2 or any(isinstance(f, Const | Noise) for f in fields):
        return False
    shifted = any(f.gaussian and cov.mean(f) is not None for f in fields)
    # averaged over points anyhow: once, then; sums over positions are functions of fields at other positions
    several = any(not f.gaussian and not isinstance(f, Ew) for f in fields)
    return shifted or several or sum(not f.gaussian for f in fields) > 2


def _related(cov, a, b, X, Y, tie) -> bool:
    (side_a, fa), (side_b, fb) = a, b
    if isinstance(fa, Const) or isinstance(fb, Const):
        return False
    return any(_correlated(cov, u, v, side_a, side_b, tie) for u in leaves(fa) for v in leaves(fb))


def _correlated(cov, la, lb, side_a, side_b, tie) -> bool:
    if la is lb:
        return True
    if side_a == side_b:
        value = cov.K(la, lb, full_tie(la))
    elif side_a == 0:
        value = cov.K(la, lb, tie)
    else:
        value = cov.K(lb, la, tie)
    return value is not None and not _only_means(cov, la, lb)


def _only_means(cov, a, b) -> bool:
    # Two fields with means but no common parameter or noise have a moment that is the product of the means.
    return not (channel_sources(a) & channel_sources(b))


def channel_sources(node) -> set:
    """Parameters and masks that a channel of the node is made of other than through weights."""
    found, stack = set(), [node]
    while stack:
        item = stack.pop()
        if hasattr(item, "key"):
            found.add(
                (
                    type(item).__name__,
                    id(item.key) if not isinstance(item.key, (str, tuple)) else item.key,
                    item.offset,
                )
            )
        elif hasattr(item, "terms"):
            stack.extend(n for _, n in item.terms)
        elif hasattr(item, "factors"):
            stack.extend(item.factors)
        elif hasattr(item, "leaves"):
            stack.extend(item.leaves)
        elif hasattr(item, "leaf"):
            stack.append(item.leaf)
        elif hasattr(item, "child"):
            stack.append(item.child)
    return found


def _groups(cov, factors, X, Y, tie):
    groups: list[list] = []
    for factor in factors:
        joined = [g for g in groups if any(_related(cov, factor, other, X, Y, tie) for other in g)]
        groups = [g for g in groups if g not in joined]
        groups.append([factor] + [f for g in joined for f in g])
    return groups


def _group_moment(cov, group, X, Y, tie):
    nx = len(X.shape)
    if len(group) == 1:
        side, node = group[0]
        value = cov.mean(node)
        return None if value is None else (place_y(value, tie, nx) if side else place_x(value, tie))
    if len(group) == 2:
        return _two(cov, group[0], group[1], tie, nx)
    if all(node.gaussian and cov.mean(node) is None for _, node in group):
        return _wick(cov, group, tie, nx)
    if any(node.gaussian for _, node in group):
        for index, (_, node) in enumerate(group):
            if node.gaussian and cov.mean(node) is None:
                return _stein(cov, group, index, X, Y, tie)
    return average(cov, group, X, Y, tie)


def _two(cov, a, b, tie, nx):
    (side_a, fa), (side_b, fb) = a, b
    if side_a != side_b:
        return cov.K(fa, fb, tie) if side_a == 0 else cov.K(fb, fa, tie)
    value = cov.K(fa, fb, full_tie(fa))
    return None if value is None else (place_y(value, tie, nx) if side_a else place_x(value, tie))


def _wick(cov, group, tie, nx):
    """Isserlis' theorem: the sum over pairings of products of covariances."""
    if len(group) % 2:
        return None
    if not group:
        return 1.0
    total = None
    for i in range(1, len(group)):
        first = _two(cov, group[0], group[i], tie, nx)
        if first is None:
            continue
        rest = _wick(cov, group[1:i] + group[i + 1 :], tie, nx)
        if rest is not None:
            total = add(total, first * rest)
    return total


def _stein(cov, group, index, X, Y, tie):
    """``E[g prod F_j] = sum_j Cov(g, leaf_j) E[prod with F_j replaced by its derivative]`` for a centred Gaussian g."""
    nx = len(X.shape)
    g = group[index]
    others = group[:index] + group[index + 1 :]
    total = None
    for j, (side, node) in enumerate(others):
        rest = [f for n, f in enumerate(others) if n != j]
        for leaf, partial in partials(node):
            covariance = _two(cov, g, (side, leaf), tie, nx)
            if covariance is None:
                continue
            remaining = rest if partial is None else [*rest, (side, partial)]
            value = expectation(cov, remaining, X, Y, tie) if remaining else 1.0
            if value is not None:
                total = add(total, covariance * value)
    return total
