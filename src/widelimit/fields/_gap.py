"""``s - K`` and ``s + K`` without cancellation, ``s = sqrt(E[X^2] E[Y^2])``: what kinked nonlinearities need.

For ``X = sum_i X_i`` and ``Y = sum_i Y_i`` with independent terms, ``a = 1/sqrt(E[X^2])``, ``b = 1/sqrt(E[Y^2])``:

    s - K = s/2 E[(a X - b Y)^2]
          = s/2 sum_i [(a sqrt(v1_i) - b sqrt(v2_i))^2 + 2 a b (s_i - k_i)] + cross terms of the means,

a sum of non-negative numbers; likewise ``s + K``.  The squares need ``R = sqrt(E[X^2]) - sqrt(E[Y^2])`` beyond the
rounding of the two: a jump takes the fourth root of them.  So R is carried along.  It starts at the input layer.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from widelimit.duals import Pair
from widelimit.fields._angle import vector_gap
from widelimit.fields._expression import dual_of, has_parameters
from widelimit.fields._linear import moved
from widelimit.fields._node import Axes, Const, Copies, Ew, Joint, Loop, Mat, Node, Prod, State, Sum, Take, Vec, Windows
from widelimit.fields._placing import Tie, full_tie, inverse, place_x, place_y, untied
from widelimit.fields._recurrence import given_pair, loop_rule
from widelimit.fields._taking import picked, picked_along

__all__ = ["gap"]


def gap(cov, X: Node, Y: Node, tie: Tie):
    """``(s - K, s + K, R)``, or None where no rule gives them exactly."""
    if X is Y and tie == full_tie(X):
        return _equal(jax.lax.stop_gradient(cov.variance(X)))
    X, Y = _one_function(cov, X), _one_function(cov, Y)
    if isinstance(X, State) and isinstance(Y, State):
        return given_pair(cov, "gap", X, Y, tie)
    if isinstance(X, Sum) or isinstance(Y, Sum):
        out = _sum_gap(cov, X, Y, tie)
    elif isinstance(X, Mat) and isinstance(Y, Mat):
        out = _weight_gap(cov, X, Y, tie)
    elif isinstance(X, Ew) and isinstance(Y, Ew):
        out = _nonlinearity_gap(cov, X, Y, tie)
    elif isinstance(X, Axes | Take) and type(X) is type(Y):
        out = _moved_gap(cov, X, Y, tie)
    elif isinstance(X, Copies) and isinstance(Y, Copies):
        out = _member_gap(cov, X, Y, tie)
    elif isinstance(X, Loop) and isinstance(Y, Loop):
        out = loop_rule(cov, "gap", X, Y, tie)
    elif isinstance(X, Vec) and isinstance(Y, Vec):
        out = _vector_gap(cov, X, Y, tie)
    elif isinstance(X, Const) and isinstance(Y, Const):
        a, b = place_x(X.array, tie), place_y(Y.array, tie, len(X.shape))
        size = jnp.abs(a * b)
        out = (size - a * b, size + a * b, jnp.abs(a) - jnp.abs(b))
    else:
        out = None
    if out is None and X is Y:
        out = _same_input_gap(cov, X, tie)
    return None if out is None else jax.lax.stop_gradient(out)


def _vector_gap(cov, X, Y, tie):
    """Entries of one parameter are the same or independent."""
    from widelimit.fields._parameters import same_entries

    if X.key != Y.key or X.offset != Y.offset or cov.mean(X) is not None or cov.mean(Y) is not None:
        return None
    same, v = same_entries(X, Y, tie), jnp.asarray(X.prior.variance)
    if same is True:
        return _equal(cov.variance(X)) if None not in tie else None
    if same is False:
        return None
    return v * (1 - same), v * (1 + same), jnp.zeros_like(v * same)


def _same_input_gap(cov, X: Node, tie: Tie):
    """For pairs of positions of one input where no rule gives the gap: the difference, exact at equal positions."""
    from widelimit.fields._parameters import identity

    nx, axes = len(X.shape), range(len(X.shape))
    k, same = cov.K(X, X, tie), identity(tie, axes, axes, X.shape, nx)
    if k is None or same is None or any(j not in (None, i) for i, j in enumerate(tie)):
        return None
    v1, v2 = place_x(cov.variance(X), tie), place_y(cov.variance(X), tie, nx)
    s = jnp.sqrt(v1) * jnp.sqrt(v2)
    m, p = jnp.maximum(s - k, 0), jnp.maximum(s + k, 0)
    return jnp.where(same > 0, 0, m), jnp.where(same > 0, 2 * v1, p), jnp.sqrt(v1) - jnp.sqrt(v2)


def _one_function(cov, X: Node) -> Node:
    """``a phi(u) + b psi(u)`` as the one function of u that it is: its terms are not independent."""
    if isinstance(X, Ew):
        return cov.merged(X)
    if not isinstance(X, Sum) or X.gaussian:
        return X
    joint = cov.joint(X)
    if not isinstance(joint, Joint) or len(joint.leaves) > 1 or has_parameters(joint.expression):
        return X
    return cov.merged(Ew(joint.expression, joint.leaves[0]))


def _equal(v):
    return jnp.zeros_like(v), 2 * v, jnp.zeros_like(v)


def _terms(node):
    return node.terms if isinstance(node, Sum) else [(1.0, node)]


def _reciprocal(v):
    positive = v > 0
    return jnp.where(positive, 1 / jnp.sqrt(jnp.where(positive, v, 1)), 0)


def _scaled(edge, c1, c2, d1, d2):
    """(s - K, s + K, R) of ``c1 X`` and ``c2 Y`` from those of X and Y, of root-mean-squares d1 and d2."""
    if not isinstance(c1, jax.Array) and not isinstance(c2, jax.Array) and np.all(c1 == 1) and np.all(c2 == 1):
        return edge
    return _times(edge, c1, c2, d1, d2, c1 is c2)


@functools.partial(jax.jit, static_argnums=5)
def _times(edge, c1, c2, d1, d2, same: bool):
    m, p, r = edge
    c = c1 * c2
    root = jnp.abs(c1) * r if same else jnp.where(c1 == c2, jnp.abs(c1) * r, jnp.abs(c1) * d1 - jnp.abs(c2) * d2)
    return jnp.abs(c) * jnp.where(c >= 0, m, p), jnp.abs(c) * jnp.where(c >= 0, p, m), root


def _sum_gap(cov, X, Y, tie):
    first, second = _terms(X), _terms(Y)
    nx = len(X.shape)
    if len(first) != len(second):
        return None
    edges, sizes = [], []
    for (c1, x), (c2, y) in zip(first, second, strict=True):
        inner = cov.gap(x, y, tie)
        if inner is None:
            return None
        d1, d2 = place_x(jnp.sqrt(cov.variance(x)), tie), place_y(jnp.sqrt(cov.variance(y)), tie, nx)
        c1, c2 = place_x(c1, tie), place_y(c2, tie, nx)
        edges.append(_scaled(inner, c1, c2, d1, d2))
        sizes.append((jnp.abs(c1) * d1, jnp.abs(c2) * d2))
    if len(edges) == 1:
        return edges[0]
    for i, (_, x) in enumerate(first):
        if any(not _independent(cov, x, y, tie) for j, (_, y) in enumerate(second) if j != i):
            return None
    v1, v2 = place_x(cov.variance(X), tie), place_y(cov.variance(Y), tie, nx)
    means = []
    for (c1, x), (c2, y) in zip(first, second, strict=True):
        mu1, mu2 = cov.mean(x), cov.mean(y)
        if mu1 is not None and mu2 is not None:
            means.append((place_x(c1 * mu1, tie), place_y(c2 * mu2, tie, nx)))
    return _added(edges, sizes, v1, v2, means)


@jax.jit  # one operation, not twenty
def _added(edges, sizes, v1, v2, means):
    """(s - K, s + K, R) of a sum: see the top of the file.  With ``A^2 = v1``, ``B^2 = v2``, ``d = sqrt(v_i)``,

    ``a d1 - b d2 = (r d1' - R d2)/(A B)`` where ``r = d1 - d2``, and ``R = (sum_i r_i (d1 + d2) + ...)/(A + B)``.
    """
    A, B = jnp.sqrt(v1), jnp.sqrt(v2)
    a, b, s = _reciprocal(v1), _reciprocal(v2), A * B
    known = sum(r * (d1 + d2) for (_, _, r), (d1, d2) in zip(edges, sizes, strict=True))
    for i, (x, y) in enumerate(means):
        known = known + sum(2 * (x * z - y * w) for z, w in means[:i])
    R = known * _reciprocal((A + B) ** 2)
    m, p = 0.0, 0.0
    for (mi, pi, r), (_, d2) in zip(edges, sizes, strict=True):
        scale = ((r * B - d2 * R) * (a * b)) ** 2
        m, p = m + scale + 2 * a * b * mi, p + scale + 2 * a * b * pi
    for i, (x, y) in enumerate(means):
        for z, w in means[:i]:
            m = m + 2 * (a * x - b * y) * (a * z - b * w)
            p = p + 2 * (a * x + b * y) * (a * z + b * w)
    return jnp.maximum(s * m / 2, 0), jnp.maximum(s * p / 2, 0), R


def _independent(cov, x, y, tie) -> bool:
    """At the pairs of positions that are asked for, and at equal ones (of which the variances are made)."""
    from widelimit.fields._product import channel_sources

    if isinstance(x, Prod) or isinstance(y, Prod):
        return False
    if not channel_sources(x) & channel_sources(y):
        return True
    u = x.leaf if isinstance(x, Ew) else x
    v = y.leaf if isinstance(y, Ew) else y
    return cov.K(u, v, tie) is None and cov.K(u, v, full_tie(u)) is None


def _weight_gap(cov, X, Y, tie):
    if X.key != Y.key or X.offset != Y.offset or X.rows != Y.rows or X.n != Y.n:
        return None
    if any(j is None for j in tie[Y.kept :]) or any(tie[i] is None for i in Y.own):
        return None
    from widelimit.fields._parameters import weight_ties

    inner = weight_ties(X, Y, tie)
    nx = len(X.child.shape)
    if isinstance(X.child, Const) and isinstance(Y.child, Const):
        edges = _constant_gap(X, Y, inner)
    else:
        edges = _filtered_gap(cov, X, Y, inner) if isinstance(X.child, Windows) else cov.gap(X.child, Y.child, inner)
        if edges is None:
            return None
        if X.contracted and not isinstance(X.child, Windows):
            edges = _contracted_gap(cov, X, Y, inner, edges, nx)
    m, p, r = edges
    factor = X.prior.variance * float(X.n)
    new = tuple(range(X.kept, X.kept + len(X.free)))
    return tuple(jnp.expand_dims(v, new) for v in (factor * m, factor * p, jnp.sqrt(factor) * r))


def _constant_gap(X, Y, inner):
    """That of the vectors over the contracted axes, at each pair of the kept positions."""
    x = X.child.array.reshape(*X.child.shape[: X.kept], -1)
    y = Y.child.array.reshape(*Y.child.shape[: Y.kept], -1)
    back = inverse(inner[: Y.kept], X.kept)
    free = [j for j in range(Y.kept) if inner[j] is None]
    y = jnp.transpose(y, [*(j for j in back if j is not None), *free, Y.kept])
    rule = vector_gap
    for _ in free:
        rule = jax.vmap(rule, (None, 0))
    for j in reversed(back):
        rule = jax.vmap(rule, (0, None if j is None else 0))
    return rule(x, y)


def _contracted_gap(cov, X, Y, inner, edges, nx):
    """The sum formula over contracted positions: ``X = sum_c X_c``."""
    axes = tuple(range(X.kept, nx))
    v1 = jnp.broadcast_to(cov.variance(X.child), X.child.shape)
    v2 = jnp.broadcast_to(cov.variance(Y.child), Y.child.shape)
    d1, d2 = place_x(jnp.sqrt(v1), inner), place_y(jnp.sqrt(v2), inner, nx)
    m, p, r = jnp.broadcast_arrays(*edges, d1 + d2)[:3]
    t1, t2 = ((d**2).sum(axis=axes, keepdims=True) for d in (d1, d2))
    A, B = jnp.sqrt(t1), jnp.sqrt(t2)
    a, b = _reciprocal(t1), _reciprocal(t2)
    R = (r * (d1 + d2)).sum(axis=axes, keepdims=True) * _reciprocal((A + B) ** 2)
    scale = ((r * B - d2 * R) * (a * b)) ** 2
    below, above = (((A * B) * (scale + 2 * a * b * e) / 2).sum(axis=axes) for e in (m, p))
    return below, above, R.sum(axis=axes)


def _filtered_gap(cov, X, Y, inner):
    """The sum formula over the offsets of filters, multiplied out into sums over windows of arrays over pairs:

    ``sum_k (r_k B - d2_k R)^2 = B^2 sum r_k^2 - 2 B R sum r_k d2_k + R^2 sum d2_k^2``, exact where the r_k vanish.
    """
    from widelimit.fields._parameters import filters, sum_over_filters

    summed, x, y, inner = filters(X, Y, inner)
    if any(inner[b.axis] is None and (b.window.index(b.child.shape[b.axis]) < 0).any() for _, b in summed):
        return None  # beyond an edge one filter sees nothing and the other something, which sums over pairs leave out
    if isinstance(x, Const) and isinstance(y, Const):
        return _filtered_constants(cov, X, Y, summed, x, y, inner)
    edges = cov.gap(x, y, inner) if len(summed) == _windows(X.child) == _windows(Y.child) else None
    if edges is None:
        return None
    nx = len(x.shape)
    d1, d2 = place_x(jnp.sqrt(cov.variance(x)), inner), place_y(jnp.sqrt(cov.variance(y)), inner, nx)
    m, p, r = edges

    def total(value):
        return sum_over_filters(value, summed, x, y, inner, X.kept)

    factor = X.prior.variance * float(X.n)
    outer = inner[: Y.kept]
    t1, t2 = place_x(cov.variance(X) / factor, outer), place_y(cov.variance(Y) / factor, outer, X.kept)
    A, B, a, b = jnp.sqrt(t1), jnp.sqrt(t2), _reciprocal(t1), _reciprocal(t2)
    R = total(r * (d1 + d2)) * _reciprocal((A + B) ** 2)
    scale = jnp.maximum(B**2 * total(r**2) - 2 * B * R * total(r * d2) + R**2 * t2, 0) * (a * b) ** 2
    below, above = ((A * B) * (scale + 2 * a * b * total(e)) / 2 for e in (m, p))
    return below, above, R


def _filtered_constants(cov, X, Y, summed, x, y, inner):
    """Of what filters see of two inputs: ``s -+ k = (|x -+ y|^2 - (|x| - |y|)^2)/2``, squares summed over windows."""
    from widelimit.fields._parameters import sum_over_filters

    if len(summed) != _windows(X.child) or len(summed) != _windows(Y.child):
        return None
    a, b = place_x(x.array, inner), place_y(y.array, inner, len(x.shape))
    near, far, uneven = (
        sum_over_filters(v, summed, x, y, inner, X.kept) for v in ((a - b) ** 2, (a + b) ** 2, (a - b) * (a + b))
    )
    factor = X.prior.variance * float(X.n)
    outer = inner[: Y.kept]
    t1, t2 = place_x(cov.variance(X) / factor, outer), place_y(cov.variance(Y) / factor, outer, X.kept)
    R = uneven * _reciprocal((jnp.sqrt(t1) + jnp.sqrt(t2)) ** 2)
    return jnp.maximum(near - R**2, 0) / 2, jnp.maximum(far - R**2, 0) / 2, R


def _windows(node) -> int:
    return 1 + _windows(node.child) if isinstance(node, Windows) else 0


def _moved_gap(cov, X, Y, tie):
    """Of positions moved about, which is the same of their children moved about; None where they do not correspond."""
    if isinstance(X, Take):
        same = isinstance(Y, Take) and np.array_equal(X.index, Y.index) and tie[Y.axis] in (None, X.axis)
        if not same or X.index.min(initial=0) < 0 or X.child.shape[X.axis] != Y.child.shape[Y.axis]:
            return None
        inner, nx = tie, len(X.shape)
        edges = cov.gap(X.child, Y.child, inner)
        if edges is None:
            return None
        out = [picked(e, X) if jnp.ndim(e) else e for e in edges]
        if tie[Y.axis] is not None:
            return tuple(out)
        position = nx + untied(tie).index(Y.axis)
        return tuple(picked_along(e, position, Y) if jnp.ndim(e) else e for e in out)
    if X.source != Y.source or tie != full_tie(X) or X.shape != Y.shape or X.child.shape != Y.child.shape:
        return None
    edges = cov.gap(X.child, Y.child, full_tie(X.child))
    return None if edges is None else tuple(moved(e, X) if jnp.ndim(e) else e for e in edges)


def _member_gap(cov, X: Copies, Y: Copies, tie):
    """Of one member of a group, that of the channel that it is a copy of."""
    last = len(X.shape) - 1
    if X.count != Y.count or tie[-1] != last or last in tie[:-1]:
        return None
    edges = cov.gap(X.child, Y.child, tie[:-1])
    return None if edges is None else tuple(jnp.expand_dims(e, last) if jnp.ndim(e) else e for e in edges)


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
    pair = Pair(k, v1, v2) if edges is None else Pair(k, v1, v2, *edges)
    image = cov.image(X, Y, tie, first, pair)
    edges = first.gap(pair) if image is None else image[1]
    return None if edges is None else (*edges, first.root(pair))
