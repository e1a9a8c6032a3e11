"""``s - K`` and ``s + K`` without cancellation, ``s = sqrt(E[X^2] E[Y^2])``: what kinked nonlinearities need.

For ``X = sum_i X_i`` and ``Y = sum_i Y_i`` with independent terms, ``a = 1/sqrt(E[X^2])``, ``b = 1/sqrt(E[Y^2])``:

    s - K = s/2 E[(a X - b Y)^2]
          = s/2 sum_i [(a sqrt(v1_i) - b sqrt(v2_i))^2 + 2 a b (s_i - k_i)] + cross terms of the means,

a sum of non-negative numbers; likewise ``s + K``.  It starts at the input layer, from ``x/|x| - x'/|x'|``.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from widelimit.duals import Pair
from widelimit.fields._expression import dual_of
from widelimit.fields._node import Const, Ew, Mat, Node, Prod, Sum, Vec
from widelimit.fields._placing import Tie, full_tie, place_x, place_y

__all__ = ["gap"]


def gap(cov, X: Node, Y: Node, tie: Tie):
    """The pair (s - K, s + K), or None where no rule gives it exactly."""
    if X is Y and tie == full_tie(X):
        variance = cov.variance(X)
        return jnp.zeros_like(variance), 2 * jax.lax.stop_gradient(variance)
    if isinstance(X, Sum) or isinstance(Y, Sum):
        out = _sum_gap(cov, X, Y, tie)
    elif isinstance(X, Mat) and isinstance(Y, Mat):
        out = _weight_gap(cov, X, Y, tie)
    elif isinstance(X, Ew) and isinstance(Y, Ew):
        out = _nonlinearity_gap(cov, X, Y, tie)
    elif isinstance(X, Vec) and isinstance(Y, Vec):
        same = X.key == Y.key and X.offset == Y.offset and None not in tie and cov.mean(X) is None
        v = cov.variance(X)
        out = (jnp.zeros_like(v), 2 * v) if same else None
    elif isinstance(X, Const) and isinstance(Y, Const):
        a, b = place_x(X.array, tie), place_y(Y.array, tie, len(X.shape))
        size = jnp.abs(a * b)
        out = (size - a * b, size + a * b)
    else:
        out = None
    return None if out is None else jax.lax.stop_gradient(out)


def _terms(node):
    return node.terms if isinstance(node, Sum) else [(1.0, node)]


def _reciprocal(v):
    positive = v > 0
    return jnp.where(positive, 1 / jnp.sqrt(jnp.where(positive, v, 1)), 0)


def _sum_gap(cov, X, Y, tie):
    first, second = _terms(X), _terms(Y)
    nx = len(X.shape)
    if len(first) != len(second):
        return None
    edges = []
    for (c1, x), (c2, y) in zip(first, second, strict=True):
        inner = cov.gap(x, y, tie)
        if inner is None:
            return None
        c = place_x(c1, tie) * place_y(c2, tie, nx)
        m, p = inner
        edges.append((jnp.abs(c) * jnp.where(c >= 0, m, p), jnp.abs(c) * jnp.where(c >= 0, p, m)))
    if len(edges) == 1:
        return edges[0]
    for i, (_, x) in enumerate(first):
        if any(not _independent(cov, x, y) for j, (_, y) in enumerate(second) if j != i):
            return None
    v1, v2 = place_x(cov.variance(X), tie), place_y(cov.variance(Y), tie, nx)
    a, b = _reciprocal(v1), _reciprocal(v2)
    s = jnp.sqrt(v1) * jnp.sqrt(v2)
    m, p = 0.0, 0.0
    means = []
    for ((c1, x), (c2, y)), (mi, pi) in zip(zip(first, second, strict=True), edges, strict=True):
        d1 = place_x(jnp.abs(c1) * jnp.sqrt(cov.variance(x)), tie)
        d2 = place_y(jnp.abs(c2) * jnp.sqrt(cov.variance(y)), tie, nx)
        scale = (a * d1 - b * d2) ** 2
        m, p = m + scale + 2 * a * b * mi, p + scale + 2 * a * b * pi
        mu1, mu2 = cov.mean(x), cov.mean(y)
        if mu1 is not None and mu2 is not None:
            means.append((a * place_x(c1 * mu1, tie), b * place_y(c2 * mu2, tie, nx)))
    for i in range(len(means)):
        for j in range(i):
            m = m + 2 * (means[i][0] - means[i][1]) * (means[j][0] - means[j][1])
            p = p + 2 * (means[i][0] + means[i][1]) * (means[j][0] + means[j][1])
    return jnp.maximum(s * m / 2, 0), jnp.maximum(s * p / 2, 0)


def _independent(cov, x, y) -> bool:
    from widelimit.fields._product import _sources

    if isinstance(x, Prod) or isinstance(y, Prod):
        return False
    return not (_sources(x) & _sources(y)) or _leaf_covariance(cov, x, y) is None


def _leaf_covariance(cov, x, y):
    u = x.leaf if isinstance(x, Ew) else x
    v = y.leaf if isinstance(y, Ew) else y
    return cov.K(u, v, full_tie(u))


def _weight_gap(cov, X, Y, tie):
    if X.key != Y.key or X.offset != Y.offset or X.rows != Y.rows or X.n != Y.n:
        return None
    if any(j is None for j in tie[Y.kept :]):
        return None
    from widelimit.fields._parameters import weight_ties

    inner = weight_ties(X, Y, tie)
    nx = len(X.child.shape)
    if isinstance(X.child, Const) and isinstance(Y.child, Const):
        m, p = _constant_gap(cov, X, Y, inner)
    else:
        edges = cov.gap(X.child, Y.child, inner)
        if edges is None:
            return None
        m, p = edges if not X.contracted else _contracted_gap(cov, X, Y, inner, edges, nx)
    factor = X.prior.variance * X.n
    new = tuple(range(X.kept, X.kept + len(X.free)))
    return jnp.expand_dims(factor * m, new), jnp.expand_dims(factor * p, new)


def _constant_gap(cov, X, Y, inner):
    """From ``x/|x| -+ x'/|x'|``, entry by entry; the larger of the two as the complement of the smaller."""
    nx = len(X.child.shape)
    x, y = X.child.array, Y.child.array
    axes_x = tuple(range(X.kept, nx))
    axes_y = tuple(range(Y.kept, len(Y.child.shape)))
    unit_x, size_x = _unit(x, axes_x)
    unit_y, size_y = _unit(y, axes_y)
    a, b = place_x(unit_x, inner), place_y(unit_y, inner, nx)
    s = (place_x(size_x, inner) * place_y(size_y, inner, nx)).sum(axis=axes_x)
    below = s * jnp.sum((a - b) ** 2, axis=axes_x) / 2
    above = s * jnp.sum((a + b) ** 2, axis=axes_x) / 2
    near = below <= above
    return jnp.where(near, below, 2 * s - above), jnp.where(near, 2 * s - below, above)


def _unit(x, axes):
    scale = jnp.max(jnp.abs(x), axis=axes, keepdims=True)
    safe = jnp.where(scale > 0, scale, 1)
    scaled = x / safe
    size = jnp.sqrt(jnp.sum(scaled**2, axis=axes, keepdims=True))
    return scaled / jnp.where(size > 0, size, 1), size * scale


def _contracted_gap(cov, X, Y, inner, edges, nx):
    """The sum formula over contracted positions: ``X = sum_c X_c``."""
    axes = tuple(range(X.kept, nx))
    shape = [max(n, 1) for n in edges[0].shape]
    for i in axes:
        shape[i] = X.child.shape[i]
    v1 = jnp.broadcast_to(cov.variance(X.child), X.child.shape)
    v2 = jnp.broadcast_to(cov.variance(Y.child), Y.child.shape)
    d1, d2 = place_x(jnp.sqrt(v1), inner), place_y(jnp.sqrt(v2), inner, nx)
    t1 = (d1**2).sum(axis=axes, keepdims=True)
    t2 = (d2**2).sum(axis=axes, keepdims=True)
    a, b = _reciprocal(t1), _reciprocal(t2)
    scale = (a * d1 - b * d2) ** 2
    s = jnp.sqrt(t1) * jnp.sqrt(t2)
    out = [
        (s * (scale + 2 * a * b * jnp.broadcast_to(e, jnp.broadcast_shapes(e.shape, scale.shape))) / 2).sum(axis=axes)
        for e in edges
    ]
    return out[0], out[1]


def _nonlinearity_gap(cov, X, Y, tie):
    if cov.mean(X.leaf) is not None or cov.mean(Y.leaf) is not None:
        return None
    nx = len(X.shape)
    first = dual_of(X.expression, lambda a: place_x(a, tie))
    second = first if X.expression is Y.expression else dual_of(Y.expression, lambda a: place_y(a, tie, nx))
    if first != second:
        return None
    v1, v2 = place_x(cov.variance(X.leaf), tie), place_y(cov.variance(Y.leaf), tie, nx)
    k = cov.K(X.leaf, Y.leaf, tie)
    edges = cov.gap(X.leaf, Y.leaf, tie) if first.wants_gap else None
    if k is None:
        return None
    return first.gap(Pair(k, v1, v2) if edges is None else Pair(k, v1, v2, *edges))
