"""Functions as trees: what is equal, and so kept as one, is the same function."""

import jax.numpy as jnp
import numpy as np
from jax import lax

from widelimit.fields import Apply, Derivative, Literal, Variable, applied, dual_of


def test_parts_of_different_kinds_differ():
    assert Variable(0) != Literal(0) and Variable(0) == Variable()
    assert applied(lax.mul_p, Variable(), Variable()) != applied(lax.mul_p, Literal(0.0), Variable())
    assert Derivative(Variable()) != Apply(Variable(), (), ()) and Derivative(Variable(), 0) != (Variable(), 0)


def test_the_dual_of_a_function_does_not_depend_on_those_before_it():
    # 0 sigmoid(x), with which GRUs start, and x sigmoid(x)
    gate = Apply(lax.logistic_p, (("accuracy", None),), (Variable(),))
    dual_of(applied(lax.mul_p, Literal(0.0), gate))
    silu = dual_of(applied(lax.mul_p, Variable(), gate))
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    expected = weights @ (nodes / (1 + np.exp(-nodes))) ** 2 / weights.sum()
    np.testing.assert_allclose(silu.second_moment(jnp.asarray(1.0)), expected, rtol=1e-5)
