"""Three derivations of the NTK that share no rule for tangents.

A: the library's, pairs (K, T).  B: ``d/de`` at ``e = 0`` of the NNGP between two replicas whose parameters have
covariance ``std^2 + e lr``.  C: the NNGP of the program ``jvp f`` along a Gaussian direction of variance lr.
"""

from __future__ import annotations

import jax
import numpy as np
import pytest
from networks import NETWORKS, D

import widelimit as wl

X, Y = np.random.default_rng(11).normal(size=(2, D))
# The gate's sigmoid has a series, not a closed form; A and C truncate different series.
TOLERANCE_C = {"gated linear unit": 1e-8}
NAMES = list(NETWORKS)


def _map(rule, specification):
    return jax.tree.map(rule, specification, is_leaf=lambda a: isinstance(a, wl.Normal))


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if "scan" in n else ()) for n in NAMES])
def test_tangent_program(name):
    f, prior = NETWORKS[name]

    def both(n):
        law = prior(n, 2)
        return {"p": law, "dp": _map(lambda a: wl.normal(a.shape, a.lr**0.5), law)}

    tangent = wl.limit(lambda pq, x: jax.jvp(lambda p: f(p, x), (pq["p"],), (pq["dp"],))[1], both)
    ntk = wl.limit(f, lambda n: prior(n, 2)).ntk
    for pair in ((X, Y), (Y, X), (X, X)):
        np.testing.assert_allclose(tangent.nngp(*pair), ntk(*pair), rtol=TOLERANCE_C.get(name, 1e-10))


def _replica_nngp(f, prior, d):
    """NNGP between replicas ``u + v_1`` and ``u + v_2``: covariance ``std^2 - d lr``, own variances ``std^2``."""

    def parts(n):
        law = prior(n, 2)
        own = _map(lambda a: wl.normal(a.shape, (d * a.lr) ** 0.5), law)
        return {"u": _map(lambda a: wl.normal(a.shape, (a.std**2 - d * a.lr) ** 0.5), law), "v1": own, "v2": own}

    def replica(q, xs):
        x, first, second = xs[:D], xs[D], xs[D + 1]
        return f({k: [(1.0, q["u"][k]), (first, q["v1"][k]), (second, q["v2"][k])] for k in q["u"]}, x)

    return wl.limit(replica, parts).nngp


@pytest.mark.parametrize("name", [name for name in NAMES if name != "standard parameterisation"])  # its bias has std 0
def test_derivative_of_replicas(name):
    """The slope at 0 of the polynomial through Chebyshev-spaced d: smooth in d, as x and y are not parallel."""
    f, prior = NETWORKS[name]
    d = 0.1 * (1 - np.cos(np.pi * (np.arange(7) + 0.5) / 7))
    one, two = np.concatenate([X, [1.0, 0.0]]), np.concatenate([Y, [0.0, 1.0]])
    values = [float(_replica_nngp(f, prior, e)(one, two)) for e in d]
    slope = np.polynomial.Polynomial.fit(d, values, 6).deriv()(0.0)
    np.testing.assert_allclose(-slope, wl.limit(f, lambda n: prior(n, 2)).ntk(X, Y), rtol=1e-5)
