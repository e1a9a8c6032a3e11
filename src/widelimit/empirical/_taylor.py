"""Taylor expansions of a network in its parameters: the linearised network, and what it leaves out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from widelimit._extrema import by_place
from widelimit.empirical._parameters import check_like, check_parameters

__all__ = ["linearize", "taylor"]


def linearize(f: Callable, params: Any) -> Callable:
    """First-order expansion in the parameters, ``f_lin(theta, x) = f(theta_0, x) + df/dtheta (theta - theta_0)``.

    The derivative is taken at theta_0.  f: ``f(params, x)``; params: theta_0, any pytree.
    Returns a function ``(theta, x)`` with f's output shape.  Source: Lee et al. 2019, section 2.2.
    """
    return taylor(f, params, order=1)


def taylor(f: Callable, params: Any, order: int = 2) -> Callable:
    """Taylor expansion in the parameters about `params`.

    ``f_k(theta, x) = sum_(j <= k) 1/j! d^j/dt^j f(theta_0 + t (theta - theta_0), x) at t = 0``.
    Returns a function ``(theta, x)``.  Raises ValueError for an order below 0 or that is not an integer, TypeError for
    params that are not floating-point; the function ValueError for a theta of another structure or shapes.
    """
    if not callable(f):
        raise TypeError(f"taylor: f must be a function f(params, x), not {type(f).__name__}.")
    if not isinstance(order, int) or isinstance(order, bool) or order < 0:
        raise ValueError(f"taylor: order must be an integer >= 0, not {order!r}.")
    check_parameters("taylor", params)

    def expansion(theta, *args, **kwargs):
        check_like(theta, params)
        direction = jax.tree.map(jnp.subtract, theta, params)
        of_params = by_place(lambda p: f(p, *args, **kwargs))

        def along(t):
            return of_params(jax.tree.map(lambda p, d: p + t * d, params, direction))

        dtype = jnp.result_type(*jax.tree.leaves(params))
        zero, one = jnp.zeros((), dtype), jnp.ones((), dtype)
        total, derivative = along(zero), along
        for j in range(1, order + 1):
            derivative = (lambda g: lambda t: jax.jvp(g, (t,), (one,))[1])(derivative)
            total = total + derivative(zero) / math.factorial(j)
        return total

    return expansion
