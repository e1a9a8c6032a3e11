"""elu, celu and selu against multiple precision, at every angle and variance; derivatives; gap."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mpmath import mp, mpf

import oracle
import widelimit as wl
from widelimit import duals, nn
from widelimit.duals import Elu, Pair

SELU = (1.0507009873554805, 1.6732632423543772)
DUALS = {"elu": Elu(), "selu": Elu(*SELU), "small alpha": Elu(1.0, 0.25)}
MOMENTS = {"elu": oracle.elu(1.0), "selu": oracle.selu(), "small alpha": oracle.elu(0.25)}


def exact(name, v1, v2, k):
    with mp.workdps(60):
        return MOMENTS[name](mpf(v1), mpf(v2), mpf(k))


@functools.lru_cache
def size(name, v1, v2):
    with mp.workdps(30):
        return mp.sqrt(exact(name, v1, v1, v1)[0] * exact(name, v2, v2, v2)[0])


def pair_at(v1, v2, relative_gap, opposite, dtype):
    """A Pair whose gap is known, and the covariance that it stands for."""
    with mp.workdps(60):
        s = mp.sqrt(mpf(v1) * mpf(v2))
        k = (mpf(relative_gap) - 1) * s if opposite else (1 - mpf(relative_gap)) * s
        r = mp.sqrt(mpf(v1)) - mp.sqrt(mpf(v2))
        return Pair(*(jnp.asarray(float(x), dtype) for x in (k, v1, v2, s - k, s + k, r))), k


@pytest.mark.parametrize("name, v1, v2", [
    ("elu", 1.0, 1.0), ("elu", 2.0**-20, 2.0**-19), pytest.param("elu", 1024.0, 300.0, marks=pytest.mark.slow),
    ("selu", 1.5, 0.75), ("selu", 1024.0, 1024.0), pytest.param("small alpha", 0.25, 2.0, marks=pytest.mark.slow),
])  # fmt: skip
@pytest.mark.usefixtures("float64")
def test_values_and_gap_at_every_angle(name, v1, v2):
    """Errors of K and of its gap relative to ``sqrt(E[phi(u)^2] E[phi(v)^2])``, those of D to D."""
    dual, whole = DUALS[name], size(name, v1, v2)
    for gap, opposite in (
        (0.0, False),
        (1e-12, False),
        (1e-3, False),
        (0.7, False),
        (0.5, True),
        (1e-6, True),
        (0, True),
    ):
        pair64, k = pair_at(v1, v2, gap, opposite, jnp.float64)
        K, D = exact(name, v1, v2, k)
        for pair, rounding in ((pair64, 1e-14), (pair_at(v1, v2, gap, opposite, jnp.float32)[0], 2e-6)):
            assert abs(mpf(float(dual.kernel(pair))) - K) <= rounding * whole
            assert abs(mpf(float(dual.derivative_kernel(pair))) / D - 1) <= 20 * rounding
            for got, truth in zip(dual.gap(pair), (whole - K, whole + K), strict=True):
                assert abs(mpf(float(got)) - truth) <= rounding * whole
        if v1 == v2 and 0 < gap < 1 and not opposite:
            m = float(dual.gap(pair64)[0])
            assert abs(mpf(m) / (whole - K) - 1) <= 2e-14


@pytest.mark.parametrize("name, v", [("elu", 0.5), ("selu", 1.0703125)])
@pytest.mark.usefixtures("float64")
def test_errors_of_many_layers_do_not_add_up(name, v):
    """A bias of a few ulps between rho = -0.5 and 0, through which kernels creep in thirty layers, is seen there."""
    for rho in (-0.5, -0.25, -0.125, -0.03125):
        pair, k = pair_at(v, v, 1 + rho, True, jnp.float64)
        K, D = exact(name, v, v, k)
        assert abs(mpf(float(DUALS[name].kernel(pair))) - K) <= 1.5e-15 * size(name, v, v)
        assert abs(mpf(float(DUALS[name].derivative_kernel(pair))) / D - 1) <= 1.5e-15


@pytest.mark.usefixtures("float64")
def test_the_gap_at_nearly_equal_variances_is_right_to_second_order():
    """What two lengths that differ by 1e-5 leave of s' - K, 1e-13 of s', has its own digits."""
    v1, v2 = 1.5, 1.5 * (1 + 2.0**-16)
    for name in ("elu", "selu"):
        pair, k = pair_at(v1, v2, 0.0, False, jnp.float64)
        truth = size(name, v1, v2) - exact(name, v1, v2, k)[0]
        assert 0 < truth < 1e-11
        assert float(DUALS[name].gap(pair)[0]) == pytest.approx(float(truth), rel=1e-3)


@pytest.mark.parametrize("name, k, v1, v2", [("elu", -35.0, 50.0, 30.0), ("selu", 0.375, 1.25, 0.5)])
@pytest.mark.usefixtures("float64")
def test_derivatives(name, k, v1, v2):
    """Price's theorem, and those of K and D in k, v1, v2 by differences in multiple precision."""
    dual, at = DUALS[name], tuple(map(jnp.asarray, (k, v1, v2)))
    slopes = [jax.grad(lambda *a, f=f: f(Pair(*a)), (0, 1, 2))(*at) for f in (dual.kernel, dual.derivative_kernel)]
    assert float(slopes[0][0]) == pytest.approx(float(dual.derivative_kernel(Pair(*at))), rel=1e-13)
    with mp.workdps(40):
        for i in range(3):
            h = mpf(10) ** -9
            up, down = ([mpf(x) + (t if i == j else 0) for j, x in enumerate((k, v1, v2))] for t in (h, -h))
            ends = [MOMENTS[name](p, q, c) for c, p, q in (up, down)]
            for which in range(2):
                truth = (ends[0][which] - ends[1][which]) / (2 * h)
                assert abs(mpf(float(slopes[which][i])) - truth) <= 1e-11 * max(1, abs(truth))


@pytest.mark.parametrize("name", ["elu", "selu"])
@pytest.mark.usefixtures("float64")
def test_second_derivatives(name):
    dual, at = DUALS[name], jnp.asarray([0.375, 1.25, 0.5])
    slope = jax.grad(lambda a: dual.kernel(Pair(*a)))
    by_differences = [(slope(at + 1e-5 * e) - slope(at - 1e-5 * e)) / 2e-5 for e in np.eye(3)]
    np.testing.assert_allclose(jax.jacobian(slope)(at), by_differences, atol=1e-9)


@pytest.mark.parametrize("name", DUALS)
@pytest.mark.usefixtures("float64")
def test_ends_and_zero(name):
    dual = DUALS[name]
    for at in ((1.5, 1.5, 1.5), (-1.5, 1.5, 1.5), (0.0, 0.0, 1.5), (0.0, 1.5, 0.0), (0.0, 0.0, 0.0), (1e-300,) * 3):
        at = tuple(map(jnp.asarray, at))
        for rule in (dual.kernel, dual.derivative_kernel):
            slopes = jax.grad(lambda *a, rule=rule: rule(Pair(*a)), (0, 1, 2))(*at)
            assert np.isfinite(np.asarray(slopes)).all()
        if 0 in (float(at[1]), float(at[2])):
            slopes = jax.grad(lambda *a: dual.kernel(Pair(*a)), (1, 2))(*at)
            assert [float(x) for x in slopes] == [0, 0]  # phi(0) = 0, whatever the other variable is
            assert float(dual.kernel(Pair(*at))) == float(dual.gap(Pair(*at))[0]) == 0


@pytest.mark.parametrize("dual", [*DUALS.values(), Elu(1.5, 1.0, 2.0)])
@pytest.mark.usefixtures("float64")
def test_means_are_those_of_quadrature(dual):
    phi1 = duals.derivative(dual)
    for v in map(jnp.asarray, (0.01, 1.0, 30.0)):
        assert float(dual.mean(v)) == pytest.approx(float(duals.moment(dual, v)), rel=1e-13, abs=1e-15)
        assert float(dual.mean_derivative(v)) == pytest.approx(float(duals.moment(phi1, v)), rel=1e-14)
        assert float(dual.second_moment(v)) == pytest.approx(float(duals.moment(lambda z: dual(z) ** 2, v)), rel=1e-13)
        square = duals.moment(lambda z: phi1(z) ** 2, v)
        assert float(dual.derivative_second_moment(v)) == pytest.approx(float(square), rel=1e-13)
        parallel = Pair(v, v, v, 0 * v, 2 * v)
        assert float(dual.kernel(parallel)) == pytest.approx(float(dual.second_moment(v)), rel=1e-14)


@pytest.mark.usefixtures("float64")
def test_the_units_of_celu():
    """``celu(z, a) = a elu(z / a)``."""
    pair = Pair(*map(jnp.asarray, (0.375, 1.25, 0.5)))
    narrow = Pair(*(x / 4 for x in pair[:3]))
    assert float(Elu(1.0, 2.0, 2.0).kernel(pair)) == pytest.approx(4 * float(Elu().kernel(narrow)), rel=1e-15)


def test_explain_finds_nothing_that_is_not_a_closed_form():
    def told(phi):
        def prior(n):
            return {"W": wl.normal((n, 3)), "a": wl.normal((n,))}

        def f(p, x):
            return p["a"] @ phi(p["W"] @ x) / len(p["a"]) ** 0.5

        return wl.limit(f, prior).explain(shape=(3,))

    assert "series" in told(jnp.tanh)
    for phi in (jax.nn.elu, jax.nn.selu, jax.nn.celu):
        assert "every expectation in closed form" in told(phi)


@pytest.mark.slow
def test_single_precision_holds_when_deep():
    """The kink of selu takes the square root of the gap in every layer."""
    hidden = [m for _ in range(8) for m in (nn.Dense(8, 1.0, 0.125), nn.Selu())]
    net = nn.Sequential(*hidden, nn.Dense(1))
    X = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    X[1], X[2], X[3] = X[0] * np.float32(1 + 1e-4), -X[0], X[0]
    single, double = wl.gram(wl.kernels(net), jnp.asarray(X)), wl.gram(wl.kernels(net), X.astype(np.float64))
    for a, b in zip(single, double, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6)


@pytest.mark.parametrize("name, v", [("elu", 2.0**-20), ("selu", 0.75), ("small alpha", 0.5)])
@pytest.mark.usefixtures("float64")
def test_nearly_orthogonal_relative_to_the_kernel_itself(name, v):
    """Where the kernel is small beside its diagonal: of variance v, orthogonal inputs of elu have ``v^2 / 16``."""
    for rho in (0.0, 2.0**-20, -0.125, 0.375):
        pair, k = pair_at(v, v, 1 + rho, True, jnp.float64)
        K, _ = exact(name, v, v, k)
        assert abs(mpf(float(DUALS[name].kernel(pair))) / K - 1) <= 2e-14
