"""Every closed form against multiple precision: value, Price derivatives, gap, gradients at the ends."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mpmath import mp, mpf

import oracle
from widelimit import duals
from widelimit.duals import Pair

CASES = {
    "relu": (duals.PiecewiseLinear(0.5, 0.5), oracle.relu()),
    "leaky": (duals.PiecewiseLinear(0.625, 0.375), oracle.leaky_relu(0.25)),
    "abs": (duals.PiecewiseLinear(0.0, 1.0), oracle.abs_()),
    "abrelu": (duals.PiecewiseLinear(0.75, 1.25), oracle.abrelu(-0.5, 2.0)),
    "one kink": (duals.Kinked(0.0, 0.25, (0.0,), (0.75,)), oracle.leaky_relu(0.25)),
    "sign": (duals.Step(0.0, 1.0), oracle.sign()),
    "step": (duals.Step(0.5, 0.5, 0.0), oracle.step()),
    "erf": (duals.Erf(0.5, 1.25, 0.75), oracle.erf(0.5, 1.25, 0.75)),
    "gelu": (duals.Gelu(), oracle.gelu()),
    "sin": (duals.Sine(1.5, 0.75, 0.5), oracle.sin(1.5, 0.75, 0.5)),
    "cos": (duals.Sine(1.5, 0.75, 0.5 + np.pi / 2), oracle.cos(1.5, 0.75, 0.5)),
    "exp": (duals.Exponential(0.5, 0.75), oracle.exp(0.5, 0.75)),
    "gaussian": (duals.Gaussian(2.0, 0.5), oracle.gaussian(2.0, 0.5)),
    "polynomial": (duals.Polynomial((1.0, -0.5, 0.25, 2.0)), oracle.polynomial([1, -0.5, 0.25, 2])),
    "hermite": (duals.Polynomial((0.0, -3 / 6**0.5, 0.0, 1 / 6**0.5)), oracle.hermite(3)),
    "rectified": (duals.RectifiedMonomial(3), oracle.rectified_monomial(3)),
}
CUSPED = {"relu", "leaky", "abs", "abrelu", "one kink", "sign", "step"}
COVARIANCES = [(1.25, 0.5, 0.375), (0.75, 2.0, -1.0), (1.0, 1.0, 0.0)]


def pair_at(v1, v2, relative_gap, opposite=False):
    """A Pair whose gap is known, and the exact covariance that it stands for."""
    s = mp.sqrt(mpf(v1) * mpf(v2))
    edge = mpf(relative_gap) * s
    k = edge - s if opposite else s - edge
    return Pair(*(jnp.asarray(float(x)) for x in (k, v1, v2, s - k, s + k))), k


@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("float64")
def test_values_at_every_angle(name):
    dual, moments = CASES[name]
    with mp.workdps(60):
        for v1, v2 in ((1.25, 1.25), (0.5, 2.0)):
            for gap in (0.0, 1e-16, 1e-8, 1e-3, 0.3, 1.0):
                for opposite in (False, True):
                    pair, k = pair_at(v1, v2, gap, opposite)
                    K, D = moments(mpf(v1), mpf(v2), k)
                    size = mp.sqrt(moments(mpf(v1), mpf(v1), mpf(v1))[0] * moments(mpf(v2), mpf(v2), mpf(v2))[0])
                    assert abs(mpf(float(dual.kernel(pair))) - K) <= 4e-15 * size
                    assert abs(mpf(float(dual.derivative_kernel(pair))) - D) <= 4e-15 * max(1, abs(D), size)


@pytest.mark.parametrize("name", ["relu", "leaky", "abs", "sign", "step", "erf", "gelu", "sin", "cos"])
@pytest.mark.usefixtures("float64")
def test_the_gap_of_the_image_keeps_its_relative_accuracy(name):
    dual, moments = CASES[name]
    with mp.workdps(60):
        for v1, v2 in ((1.25, 1.25), (1.25, 1.25 * (1 + 2**-20)), (0.5, 2.0)):
            for gap in (1e-12, 1e-6, 1e-2, 1.0):
                for opposite in (False, True):
                    pair, k = pair_at(v1, v2, gap, opposite)
                    size = mp.sqrt(moments(mpf(v1), mpf(v1), mpf(v1))[0] * moments(mpf(v2), mpf(v2), mpf(v2))[0])
                    K = moments(mpf(v1), mpf(v2), k)[0]
                    for got, exact in zip(dual.gap(pair), (size - K, size + K), strict=True):
                        # where the sizes differ, terms linear in the difference cancel, and leave their rounding
                        floor = 2.3e-16 * abs(np.sqrt(v1) - np.sqrt(v2))
                        assert abs(mpf(float(got)) - exact) <= 1e-11 * abs(exact) + floor


@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("float64")
def test_price_derivatives(name):
    """d/dk of K is E[phi' phi'] (for continuous phi); that one's derivative, and those in v1, v2, by differences."""
    dual, moments = CASES[name]
    for v1, v2, k in COVARIANCES:
        at = tuple(map(jnp.asarray, (k, v1, v2)))
        slopes = jax.grad(lambda *a: dual.kernel(Pair(*a)), (0, 1, 2))(*at)
        second = jax.grad(lambda *a: dual.derivative_kernel(Pair(*a)), (0, 1, 2))(*at)
        with mp.workdps(100):
            for i in range(3):
                for which, got in enumerate((slopes[i], second[i])):

                    def moved(t, i=i, which=which, at=(k, v1, v2)):
                        k1, p, q = (mpf(x) + (t if i == j else 0) for j, x in enumerate(at))
                        return moments(p, q, k1)[which]

                    exact = oracle.derivative(moved)
                    assert abs(mpf(float(got)) - exact) <= 1e-12 * max(1, abs(exact))
        if name not in {"sign", "step"}:
            assert float(slopes[0]) == pytest.approx(float(dual.derivative_kernel(Pair(*at))), abs=1e-13)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("float64")
def test_derivatives_are_finite_at_the_ends_and_at_zero(name):
    dual, moments = CASES[name]
    for k, v1, v2 in ((1.5, 1.5, 1.5), (-1.5, 1.5, 1.5), (0.0, 0.0, 1.5), (0.0, 0.0, 0.0)):
        at = tuple(map(jnp.asarray, (k, v1, v2)))
        for rule in (dual.kernel, dual.derivative_kernel):
            first = jax.grad(lambda *a, rule=rule: rule(Pair(*a)), (0, 1, 2))(*at)
            assert np.isfinite(np.asarray(first)).all(), (k, v1, v2, first)
        if v1 > 0 and name not in CUSPED:
            with mp.workdps(100):
                exact = moments(mpf(v1), mpf(v2), mpf(k))[1]
            slope = jax.grad(lambda k, at=at: dual.kernel(Pair(k, at[1], at[2])))(at[0])
            assert float(slope) == pytest.approx(float(exact), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("name", ["relu", "leaky", "gelu", "erf", "sin"])
@pytest.mark.usefixtures("float64")
def test_means_are_those_of_quadrature(name):
    dual, _ = CASES[name]
    for v in (0.25, 1.0, 4.0):
        v = jnp.asarray(v)
        assert float(dual.mean(v)) == pytest.approx(float(duals.moment(dual, v)), abs=1e-13)
        slope = duals.moment(duals.derivative(dual), v)
        assert float(dual.mean_derivative(v)) == pytest.approx(float(slope), abs=1e-13)
        assert float(dual.second_moment(v)) == pytest.approx(float(duals.moment(lambda z: dual(z) ** 2, v)), abs=1e-12)
