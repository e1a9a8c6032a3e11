"""Functions are recognised by their values, whatever they are called and however they are written."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from widelimit import duals
from widelimit.duals import Kinked, Pair, PiecewiseLinear, Series, Sine, Step, kinked_cross, recognise

EXPECTED = {
    "relu": (jax.nn.relu, PiecewiseLinear(0.5, 0.5)),
    "where": (lambda z: jnp.where(z > 0, z, 0.0), PiecewiseLinear(0.5, 0.5)),
    "leaky_relu": (lambda z: jax.nn.leaky_relu(z, 0.25), PiecewiseLinear(0.625, 0.375)),
    "abs": (jnp.abs, PiecewiseLinear(0.0, 1.0)),
    "relu6": (jax.nn.relu6, Kinked(0.0, 0.0, (0.0, 6.0), (1.0, -1.0))),
    "hard_tanh": (jax.nn.hard_tanh, Kinked(-1.0, 0.0, (-1.0, 1.0), (1.0, -1.0))),
    "shifted": (lambda z: jax.nn.relu(z - 0.3), Kinked(0.0, 0.0, (0.3,), (1.0,))),
    "close kinks": (lambda z: jnp.clip(z, -0.05, 0.1), Kinked(-0.05, 0.0, (-0.05, 0.1), (1.0, -1.0))),
    "step": (lambda z: jnp.where(z > 0, 1.0, 0.0), Step(0.5, 0.5, 0.0)),
    "sign": (jnp.sign, Step(0.0, 1.0, 0.0)),
    "erf": (jax.scipy.special.erf, duals.Erf()),
    "gelu": (lambda z: jax.nn.gelu(z, approximate=False), duals.Gelu()),
    "sin": (jnp.sin, Sine()),
    "exp": (lambda z: jnp.exp(z / 4), duals.Exponential(1.0, 0.25)),
    "gaussian": (lambda z: jnp.exp(-(z**2)), duals.Gaussian()),
    "cubic": (lambda z: z**3 - 3 * z, duals.Polynomial((0.0, -3.0, 0.0, 1.0))),
    "elu": (jax.nn.elu, duals.Elu()),
    "elu by hand": (lambda z: jnp.where(z > 0, z, 0.75 * (jnp.exp(z) - 1)), duals.Elu(1.0, 0.75, 1.0)),
    "celu": (lambda z: 2.5 * jax.nn.celu(z, 0.07), duals.Elu(2.5, 0.07, 0.07)),
    "squared relu": (lambda z: jax.nn.relu(z) ** 2, duals.RectifiedMonomial(2)),
}


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.usefixtures("float64")
def test_recognised(name):
    function, expected = EXPECTED[name]
    assert recognise(function) == expected


@pytest.mark.parametrize(
    "function",
    [
        jax.nn.tanh,
        jax.nn.silu,
        jax.nn.gelu,
        lambda z: jnp.where(z > 1, z, 0.0),
        lambda z: jax.nn.relu(z) + 1e-6 * jnp.sin(z),
        lambda z: jax.nn.elu(z) + 1e-9 * jnp.sin(z),
        lambda z: jnp.where(z > 0, z, jnp.sin(z)),
    ],
)
@pytest.mark.usefixtures("float64")
def test_nothing_is_taken_for_what_it_is_not(function):
    assert isinstance(recognise(function), Series)


@pytest.mark.usefixtures("float64")
def test_selu_has_the_constants_of_its_paper():
    found = recognise(jax.nn.selu)
    assert isinstance(found, duals.Elu)
    assert (found.scale, found.alpha) == pytest.approx((1.0507009873554805, 1.6732632423543772), rel=1e-15)
    assert found.beta == 1


def quadrature(f, g, k, v1, v2, m1, m2, cuts1, cuts2):
    """``E[f(m1 + u) g(m2 + v)]`` on panels cut at the kinks of both; |k| < s."""
    x, w = np.polynomial.legendre.leggauss(40)

    def panels(inner):
        edges = np.sort(np.concatenate([np.linspace(-11, 11, 12), np.clip(inner, -11, 11)]))
        mid, half = (edges[1:] + edges[:-1]) / 2, (edges[1:] - edges[:-1]) / 2
        z = (mid[:, None] + half[:, None] * x).ravel()
        return z, (half[:, None] * w).ravel() * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)

    along, total = k / np.sqrt(v1), 0.0
    across = np.sqrt(v2 - along**2)
    outer = [(a - m1) / np.sqrt(v1) for a in cuts1] + [(b - m2) / along for b in cuts2 if along]
    for z1, w1 in zip(*panels(outer), strict=True):
        z2, w2 = panels([(b - m2 - along * z1) / across for b in cuts2])
        total += w1 * f(m1 + np.sqrt(v1) * z1) * (w2 @ g(m2 + along * z1 + across * z2))
    return total


FIRST = Kinked(0.5, 0.0, (0.0, 2.0), (1.0, -1.0))
SECOND = Kinked(-1.0, 0.25, (-1.0, 0.5, 1.0), (1.0, 0.5, -2.0))


def _numpy(dual, derivative):
    def f(z):
        z = np.asarray(z)
        steps = sum(
            w * ((z > a) if derivative else np.maximum(z - a, 0)) for a, w in zip(dual.kinks, dual.weights, strict=True)
        )
        return steps + (dual.slope if derivative else dual.offset + dual.slope * z)

    return f


@pytest.mark.parametrize("derivative", [False, True])
@pytest.mark.parametrize("v1, v2, rho", [(1.0, 1.0, 0.5), (1.5, 0.5, -0.7), (4.0, 4.0, 0.99), (1.0, 2.0, -0.999)])
@pytest.mark.usefixtures("float64")
def test_kinks_anywhere_and_means_against_quadrature(v1, v2, rho, derivative):
    k = rho * np.sqrt(v1 * v2)
    pair = Pair(*map(jnp.asarray, (k, v1, v2)))
    for m1, m2 in ((0.0, 0.0), (0.7, -0.4)):
        got = kinked_cross(FIRST, SECOND, pair, derivative, (jnp.asarray(m1), jnp.asarray(m2)))
        exact = quadrature(
            _numpy(FIRST, derivative), _numpy(SECOND, derivative), k, v1, v2, m1, m2, FIRST.kinks, SECOND.kinks
        )
        assert float(got) == pytest.approx(exact, abs=2e-13)


@pytest.mark.usefixtures("float64")
def test_derivatives_of_kinked_functions():
    """Against differences; at rho = 1 and zero variance they are finite."""

    def value(derivative, k, v1, v2, mean):
        return kinked_cross(SECOND, SECOND, Pair(k, v1, v2), derivative, (mean, jnp.asarray(0.3)))

    at = [jnp.asarray(x) for x in (0.4, 1.2, 0.8, 0.2)]
    for derivative in (False, True):
        slopes = jax.grad(value, (1, 2, 3, 4))(derivative, *at)
        for i, slope in enumerate(slopes):
            up, down = ([x + h * (i == j) for j, x in enumerate(at)] for h in (1e-5, -1e-5))
            difference = (value(derivative, *up) - value(derivative, *down)) / 2e-5
            assert float(slope) == pytest.approx(float(difference), abs=1e-9)
        for ends in ((1.0, 1.0, 1.0, 0.3), (-1.0, 1.0, 1.0, -0.3), (0.0, 0.0, 1.0, 0.2), (0.0, 0.0, 0.0, 0.0)):
            slopes = jax.grad(value, (1, 2, 3, 4))(derivative, *map(jnp.asarray, ends))
            assert np.isfinite(np.asarray(slopes)).all()
