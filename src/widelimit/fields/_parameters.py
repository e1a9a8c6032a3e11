"""Parameters: weights contracted with a value, vectors, and noise; T is born here and nowhere else."""

from __future__ import annotations

import string

import jax.numpy as jnp
import numpy as np

from widelimit._precision import is_traced
from widelimit.fields._errors import UnknownLimitError
from widelimit.fields._linear import add
from widelimit.fields._node import Const, Mat, Noise, Vec, Windows
from widelimit.fields._placing import place_x, place_y, untied
from widelimit.fields._taking import sum_over_windows

__all__ = [
    "filters",
    "identity",
    "learning_rate",
    "noise_rule",
    "same_entries",
    "sum_over_filters",
    "vector_rule",
    "weight_rule",
    "weight_ties",
]


def _means(cov, kind, X, Y, tie):
    if kind == "T":
        return None
    mx, my = cov.mean(X), cov.mean(Y)
    return None if mx is None or my is None else place_x(mx, tie) * place_y(my, tie, len(X.shape))


def identity(tie, own_x, own_y, X_shape, nx):
    """Kronecker deltas between X's axes `own_x` and Y's axes `own_y` (paired in order); None where all are tied."""
    delta = None
    free = untied(tie)
    for a, b in zip(own_x, own_y, strict=True):
        if tie[b] == a:
            continue
        if tie[b] is not None:
            raise UnknownLimitError(
                "two different axes of one parameter meet at the same position (a diagonal of a parameter); "
                "index the parameter's axes in the same order on both sides."
            )
        shape = [1] * (nx + len(free))
        size = X_shape[a]
        shape[a] = shape[nx + free.index(b)] = size
        factor = jnp.eye(size).reshape(shape)
        delta = factor if delta is None else delta * factor
    return delta


def same_entries(X: Vec, Y: Vec, tie):
    """Where X and Y are the same entries of a parameter: an array over the pair of nodes; True, False: everywhere."""
    nx = len(X.shape)
    if X.places is None and Y.places is None:
        delta = identity(tie, range(nx), range(len(Y.shape)), X.shape, nx)
        return True if delta is None else delta
    same = True
    for p, q in zip(X.own_places(), Y.own_places(), strict=True):
        equal = place_x(p, tie) == place_y(q, tie, nx)
        if not is_traced(equal):
            if np.all(equal):
                continue
            if not np.any(equal):
                return False
        same = equal if same is True else same & equal
    return same if same is True else same * 1.0


def vector_rule(cov, kind, X, Y, tie):
    """``K = sigma^2 delta + mean^2``, ``T = lr delta``, delta: same parameter, same channel, same finite indices."""
    nx = len(X.shape)
    mean = _means(cov, kind, X, Y, tie)
    if X.key != Y.key or X.offset != Y.offset:
        return mean
    value = X.prior.variance if kind == "K" else learning_rate(X, Y)
    same = False if isinstance(value, float | int) and value == 0 else same_entries(X, Y, tie)
    if same is False:
        return mean
    if same is True:
        value = jnp.asarray(value)
        value = value.reshape((1,) * (nx + len(untied(tie)))) if not value.ndim else place_x(value, tie)
        return add(value, mean)
    return add(value * same, mean)


def learning_rate(X, Y):
    """Of the parameter that both are of; 0 where either use of it is cut off from training."""
    return Y.prior.lr if isinstance(Y.prior.lr, float | int) and Y.prior.lr == 0 else X.prior.lr


def noise_rule(cov, kind, X, Y, tie):
    """``E[mask^2]`` for the same draw, the product of the means for different draws; noise is not trained."""
    if kind == "T":
        return None
    if X is Y or (isinstance(X, Noise) and isinstance(Y, Noise) and X.key == Y.key and X.offset == Y.offset):
        delta = identity(tie, range(len(X.shape)), range(len(Y.shape)), X.shape, len(X.shape))
        if delta is not None:
            return X.first**2 + (X.second - X.first**2) * delta
        return jnp.full((1,) * (len(X.shape) + len(untied(tie))), X.second)
    return _means(cov, kind, X, Y, tie)


def weight_ties(X: Mat, Y: Mat, tie):
    """Tie of the two children: outer axes as given, axes of the weight itself and contracted ones with each other."""
    outer = tie[: Y.kept]
    if any(j is not None and j >= X.kept for j in outer) or any(j is not None and j < X.kept for j in tie[Y.kept :]):
        raise UnknownLimitError(
            "an axis of a weight meets an axis of its input at the same position (a diagonal across the two); "
            "no rule covers this."
        )
    if X.own or Y.own:
        outer = _own_ties(X, Y, outer)
    return outer + tuple(X.kept + c for c in range(Y.contracted))


def _own_ties(X: Mat, Y: Mat, outer):
    across = any(outer[b] not in (None, a) for a, b in zip(X.own, Y.own, strict=True))
    if across or any(j in X.own and i not in Y.own for i, j in enumerate(outer)):
        raise UnknownLimitError("two axes of positions of a locally connected weight meet; no rule covers this.")
    own = dict(zip(Y.own, X.own, strict=True))
    return tuple(own.get(i, j) for i, j in enumerate(outer))


def _sum_axes(value, shape, kept: int):
    """Sum over the contracted finite axes, which sit after the kept ones of X's child."""
    for axis in range(kept, len(shape)):
        if value.shape[axis] != shape[axis]:  # constant along the axis
            value = value * (shape[axis] / value.shape[axis])
    return value.sum(axis=tuple(range(kept, len(shape))))


def weight_rule(cov, kind, X, Y, tie):
    """Same weight: ``K = sigma^2 n sum_c K_in``, ``T = sigma^2 n sum_c T_in + lr n sum_c K_in``, else 0.

    With blocks of a concatenation, n is the overlap of the two row ranges; channels that do not correspond
    contribute their means only.
    """
    if X.key != Y.key or X.offset != Y.offset:
        return None
    overlap = float(min(X.rows + X.n, Y.rows + Y.n) - max(X.rows, Y.rows))  # widths may exceed 32-bit integers
    if overlap <= 0:
        return None
    same_rows = X.rows == Y.rows
    K_in = _contract(cov, "K" if same_rows else "means", X, Y, tie)
    variance, lr = X.prior.variance, learning_rate(X, Y)
    if kind == "K":
        total = None if K_in is None else (variance * overlap) * K_in
    else:
        T_in = _contract(cov, "T", X, Y, tie) if same_rows else None
        total = None if T_in is None else (variance * overlap) * T_in
        trained = not (isinstance(lr, float | int) and lr == 0)
        if trained and K_in is not None:
            total = add(total, (lr * overlap) * K_in)
    if total is None:
        return None
    nx, nf = len(X.shape), len(X.free)
    # dims: kept of X, untied kept of Y  ->  insert the weight's free axes after X's, and Y's untied ones at the end
    total = jnp.expand_dims(total, tuple(range(X.kept, X.kept + nf)))
    new = [nx + p for p, i in enumerate(untied(tie)) if i in Y.own or i >= Y.kept]
    total = jnp.expand_dims(total, tuple(new))
    delta = identity(tie, (*X.own, *range(X.kept, nx)), (*Y.own, *range(Y.kept, len(Y.shape))), X.shape, nx)
    return total if delta is None else total * delta


def _contract(cov, kind, X, Y, tie):
    inner = weight_ties(X, Y, tie)
    if isinstance(X.child, Const) and isinstance(Y.child, Const):
        return None if kind == "T" else _product_over(X.child, Y.child, inner, X.kept)
    summed, x, y, inner = filters(X, Y, inner)
    if summed and isinstance(x, Const) and isinstance(y, Const):
        value = None if kind == "T" else _product_over(x, y, inner, X.kept)
        return None if value is None else _sum_windows(value, summed, X.kept, inner)
    value = _means(cov, "K", x, y, inner) if kind == "means" else cov.pair(kind, x, y, inner)
    if value is None:
        return None
    return sum_over_filters(value, summed, x, y, inner, X.kept)


def sum_over_filters(value, summed, x, y, inner, kept: int):
    """Sum over filter offsets, and over the other contracted axes, of an array over pairs of positions of x and y."""
    value = value if jnp.ndim(value) else jnp.full((1,) * (len(x.shape) + len(untied(inner))), value)
    return _sum_windows(_sum_axes(value, x.shape, kept), summed, kept, inner)


def _sum_windows(value, summed, kept: int, inner):
    """Sum over filter offsets; the axes of the array are X's kept ones, then Y's untied ones."""
    for a, b in reversed(summed):
        axes, sizes = (a.axis,), (a.child.shape[a.axis],)
        if inner[b.axis] is None:
            axes += (kept + untied(inner).index(b.axis),)
            sizes += (b.child.shape[b.axis],)
        value = sum_over_windows(value, axes, a.window, sizes)
    return value


def filters(X, Y, inner):
    """The windows whose offsets are contracted, outermost first, the fields below them, and the tie of these."""
    summed, x, y = [], X.child, Y.child
    while isinstance(x, Windows) and isinstance(y, Windows) and x.window == y.window and len(summed) < X.contracted:
        a, b = x.axis, y.axis
        if inner[b] not in (None, a) or (inner[b] is None and a in inner):
            break
        if inner[b] == a and x.child.shape[a] != y.child.shape[b]:
            break
        summed.append((x, y))
        x, y, inner = x.child, y.child, inner[:-1]
    return summed, x, y, inner


def _product_over(x, y, inner, kept: int):
    # sum_c x_c x'_c as one einsum, so that a vmapped pair is a matrix product
    letters = iter(string.ascii_letters)
    names_x = [next(letters) for _ in x.shape]
    names_y = [names_x[j] if j is not None else next(letters) for j in inner]
    free_y = [names_y[i] for i, j in enumerate(inner) if j is None]
    out = names_x[:kept] + free_y
    a, b = x.array, y.array
    return jnp.einsum(f"{''.join(names_x)},{''.join(names_y)}->{''.join(out)}", a, b, precision="highest")
