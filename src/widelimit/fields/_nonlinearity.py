"""Elementwise functions of a Gaussian field: duals for K, Price's theorem for T, Stein's lemma for mixed pairs."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from widelimit.duals import (
    Pair,
    PiecewiseLinear,
    Series,
    as_kinked,
    jumps,
    kinked_cross,
    moment,
    piecewise_linear_cross,
    series_cross,
    series_cross_error,
)
from widelimit.fields._errors import UnknownLimitError
from widelimit.fields._expression import Derivative, dual_of, evaluate, has_parameters
from widelimit.fields._joint import partials, stein_of_joint
from widelimit.fields._linear import add
from widelimit.fields._node import Ew, Joint
from widelimit.fields._placing import full_tie, place_x, place_y

__all__ = ["gaussian_pair", "mean_of_nonlinearity", "nonlinearity_rule", "stein_rule"]


def gaussian_pair(cov, u, v, tie, gap: bool) -> Pair:
    """Covariance of two centred Gaussian fields, put in place; with the gap if it is wanted and known."""
    nx = len(u.shape)
    v1, v2 = place_x(cov.variance(u), tie), place_y(cov.variance(v), tie, nx)
    k = cov.K(u, v, tie)
    k = jnp.zeros(jnp.broadcast_shapes(jnp.shape(v1), jnp.shape(v2)), jnp.result_type(v1)) if k is None else k
    edges = cov.gap(u, v, tie) if gap else None
    return Pair(k, v1, v2) if edges is None else Pair(k, v1, v2, *edges)


def _expect(cov, X, Y, tie, derivative: bool):
    """``E[phi(u) psi(v)]``, or of the derivatives."""
    u, v, nx = X.leaf, Y.leaf, len(X.shape)
    first = dual_of(X.expression, lambda a: place_x(a, tie))
    second = first if X.expression is Y.expression else dual_of(Y.expression, lambda a: place_y(a, tie, nx))
    means = cov.mean(u), cov.mean(v)
    if any(m is not None for m in means):
        return _shifted(cov, X, Y, tie, derivative, means)
    if isinstance(first, Series):
        _note(cov, X, first)
    if u is v and tie == full_tie(u) and first == second:
        variance = cov.variance(u)
        return first.derivative_second_moment(variance) if derivative else first.second_moment(variance)
    pair = gaussian_pair(cov, u, v, tie, first.wants_gap or second.wants_gap)
    if first == second:
        if derivative:
            return first.derivative_kernel(pair)
        image = cov.image(X, Y, tie, first, pair)
        return first.kernel(pair) if image is None else image[0]
    if isinstance(first, PiecewiseLinear) and isinstance(second, PiecewiseLinear):
        return piecewise_linear_cross(first, second, pair, derivative)
    one, two = as_kinked(first), as_kinked(second)
    if one and two:
        return kinked_cross(one, two, pair, derivative)
    if derivative:
        first = dual_of(Derivative(X.expression), lambda a: place_x(a, tie))
        second = dual_of(Derivative(Y.expression), lambda a: place_y(a, tie, nx))
    _note_cross(cov, first, second, (pair.v1, pair.v2))
    return series_cross(first, second, pair)


def _shifted(cov, X, Y, tie, derivative, means):
    """The same for Gaussians with means, by the series of the shifted functions."""
    u, v, nx = X.leaf, Y.leaf, len(X.shape)
    wrap = Derivative if derivative else (lambda e: e)
    places = (lambda a: place_x(a, tie), lambda a: place_y(a, tie, nx))
    first, second = (Series(_function(wrap(Z.expression), p)) for Z, p in zip((X, Y), places, strict=True))
    centred = _centred(cov, u, v, tie, means)
    at = [
        None if m is None else jnp.broadcast_to(place(m), jnp.shape(place(cov.variance(w))))
        for m, place, w in zip(means, places, (u, v), strict=True)
    ]
    one, two = as_kinked(dual_of(X.expression)), as_kinked(dual_of(Y.expression))
    if one and two:
        if u is v and tie == full_tie(u):
            centred = centred._replace(k=centred.v1, m=jnp.zeros_like(centred.v1), p=2 * centred.v1)
        return kinked_cross(one, two, _centred_gap(cov, u, v, tie, means, centred), derivative, tuple(at))
    if any(any(jumps(dual_of(Z.expression))[:2]) for Z in (X, Y)):
        raise UnknownLimitError(
            "a function with a jump or kink that is not piecewise linear, of a preactivation with non-zero mean: no "
            "series is accurate. Remedy: let the shift be a random parameter (a bias), use a smooth or a "
            "piecewise-linear function, or wl.monte_carlo for an estimate."
        )
    _note_cross(cov, first, second, (centred.v1, centred.v2), tuple(at))
    if u is v and tie == full_tie(u) and X.expression is Y.expression:
        return moment(lambda z: first(z) ** 2, centred.v1, at[0])
    return series_cross(first, second, centred, tuple(at))


def _function(expression, place):
    return lambda z: evaluate(expression, z, lambda a: place(a)[..., None])


def _centred(cov, u, v, tie, means):
    nx = len(u.shape)
    v1, v2 = cov.variance(u), cov.variance(v)
    v1 = v1 if means[0] is None else jnp.maximum(v1 - means[0] ** 2, 0)
    v2 = v2 if means[1] is None else jnp.maximum(v2 - means[1] ** 2, 0)
    k = cov.K(u, v, tie)
    v1, v2 = place_x(v1, tie), place_y(v2, tie, nx)
    k = jnp.zeros(jnp.broadcast_shapes(v1.shape, v2.shape), v1.dtype) if k is None else k
    if means[0] is not None and means[1] is not None:
        k = k - place_x(means[0], tie) * place_y(means[1], tie, nx)
    return Pair(k, v1, v2)


def _centred_gap(cov, u, v, tie, means, pair):
    """The gap of the centred pair from that of the raw one: they differ by a square, ``(mu1 d2 -+ mu2 d1)^2``."""
    edges = cov.gap(u, v, tie) if pair.m is None else None
    if edges is None:
        return pair
    nx = len(u.shape)
    d1, d2 = jnp.sqrt(pair.v1), jnp.sqrt(pair.v2)
    mu1 = 0.0 if means[0] is None else place_x(means[0], tie)
    mu2 = 0.0 if means[1] is None else place_y(means[1], tie, nx)
    s = jnp.sqrt(mu1**2 + pair.v1) * jnp.sqrt(mu2**2 + pair.v2)
    out = []
    for sign, edge in zip((1, -1), edges[:2], strict=True):
        scale = s + d1 * d2 + sign * mu1 * mu2
        square = (mu1 * d2 - sign * mu2 * d1) ** 2
        out.append(jnp.maximum(edge - square / jnp.where(scale > 0, scale, 1), 0))
    m, p = jax.lax.stop_gradient(tuple(out))
    return pair._replace(m=m, p=p)


def _note(cov, X, dual):
    variance = jnp.asarray(cov.variance(X.leaf))
    cov.approximate.note(_name(X.expression), "Hermite series, relative error at most", lambda: dual.error(variance))


def _note_cross(cov, first, second, variances, means=(None, None)):
    what = "two functions of correlated preactivations" if means == (None, None) else "preactivations with means"
    cov.approximate.note(
        what,
        "Hermite series, relative error at most",
        lambda: (series_cross_error(first, second, tuple(map(jnp.asarray, variances)), means),),
    )


def _name(expression) -> str:
    if hasattr(expression, "of"):
        return f"derivative of {_name(expression.of)}"
    primitive = getattr(expression, "primitive", None)
    return getattr(primitive, "name", "a function")


def nonlinearity_rule(cov, kind, X, Y, tie):
    """``K = E[phi(u) psi(v)]``, ``T = E[phi'(u) psi'(v)] T(u, v)`` (Price 1958)."""
    if kind == "K":
        if cov.K(X.leaf, Y.leaf, tie) is None and X.leaf is not Y.leaf:  # independent
            mx, my = cov.mean(X), cov.mean(Y)
            return None if mx is None or my is None else place_x(mx, tie) * place_y(my, tie, len(X.shape))
        return _expect(cov, X, Y, tie, False)
    tangent = cov.T(X.leaf, Y.leaf, tie)
    return None if tangent is None else _expect(cov, X, Y, tie, True) * tangent


def stein_rule(cov, kind, X, Y, tie):
    """Gaussian X with ``Y = psi(v)``: ``E[X psi(v)] = sum_j Cov(X, v_j) E[d_j psi(v)] + E[X] E[psi]``; T alike."""
    nx, mx = len(X.shape), cov.mean(X)
    known = stein_of_joint(cov, kind, X, Y, tie) if isinstance(Y, Joint) else False
    total = None if known is False else known
    for v, partial in partials(Y) if known is False else []:
        covariance = cov.pair(kind, X, v, tie)
        if covariance is None:
            continue
        mv = cov.mean(v)
        if kind == "K" and mx is not None and mv is not None:
            covariance = covariance - place_x(mx, tie) * place_y(mv, tie, nx)
        slope = _one_point(cov, Y, True) if isinstance(Y, Ew) else cov.mean(partial)
        total = add(total, None if slope is None else covariance * place_y(slope, tie, nx))
    my = None if kind == "T" or mx is None else cov.mean(Y)
    return total if mx is None or my is None else add(total, place_x(mx, tie) * place_y(my, tie, nx))


def _one_point(cov, Y, derivative: bool):
    """``E[psi(v)]`` or ``E[psi'(v)]`` over Y's axes."""
    mean = cov.mean(Y.leaf)
    variance = cov.variance(Y.leaf)
    if mean is None:
        dual = dual_of(Y.expression)
        return dual.mean_derivative(variance) if derivative else dual.mean(variance)
    centred = jnp.maximum(variance - mean**2, 0)
    kinked = None if has_parameters(Y.expression) else as_kinked(dual_of(Y.expression))
    if kinked:
        shifted = kinked.moved(mean)
        return shifted.mean_derivative(centred) if derivative else shifted.mean(centred)
    expression = Derivative(Y.expression) if derivative else Y.expression
    return moment(_function(expression, lambda a: a), centred, jnp.broadcast_to(mean, centred.shape))


def mean_of_nonlinearity(cov, X):
    """``E[phi(u)]``."""
    return _one_point(cov, X, False)
