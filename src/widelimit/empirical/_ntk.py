"""Empirical NTK of a finite network, its linearisation and Taylor expansion."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from widelimit._precision import exact_products

if TYPE_CHECKING:  # shapes in signatures, for readers and type checkers: nothing is loaded
    from jaxtyping import Float

__all__ = ["EmpiricalKernel", "empirical_ntk", "linearize", "taylor"]

_OUTPUTS = ("mean", "sum", "diag", "full")


def _is_number(lr) -> bool:
    return isinstance(lr, float | int | np.number) or (isinstance(lr, jax.Array) and lr.ndim == 0)


def _weighted(tree, lr):
    if lr is None:
        return tree
    if _is_number(lr):
        return jax.tree.map(lambda a: lr * a, tree)
    return jax.tree.map(lambda a, r: r * a, tree, lr)


def _check_params(where: str, params) -> None:
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    if not leaves:
        raise ValueError(f"{where}: params holds no arrays, so there is nothing to differentiate by.")
    for path, leaf in leaves:
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TypeError(
                f"{where}: params{jax.tree_util.keystr(path)} holds {jnp.result_type(leaf)}, not real floating-point "
                "numbers. Remedy: convert it, or leave what is not trained out of params (close over it in f)."
            )


def _check_like(theta, params) -> None:
    if jax.tree.structure(theta) != jax.tree.structure(params):
        raise ValueError("the expansion is of parameters of another structure than theta; give theta as params was.")
    for (path, a), b in zip(jax.tree_util.tree_flatten_with_path(theta)[0], jax.tree.leaves(params), strict=True):
        if jnp.shape(a) != jnp.shape(b):
            raise ValueError(
                f"theta{jax.tree_util.keystr(path)} has shape {jnp.shape(a)}, and the parameters that the expansion is "
                f"about have {jnp.shape(b)}."
            )


class EmpiricalKernel:
    """``k(x, x')`` of a finite network; made by `empirical_ntk`."""

    keeps_integers = True

    def __init__(self, f: Callable, params: Any, output: Any, lr: Any):
        self._f, self._params, self._output, self._lr = f, params, output, lr

    def _jacobian(self, x):
        f = self._f if not callable(self._output) else lambda p, x: self._output(self._f(p, x))
        return jax.jacrev(lambda p: jnp.ravel(f(p, x)))(self._params)

    def __call__(self, x1: Float[jax.Array, "*input"], x2: Float[jax.Array, "*input"]) -> Float[jax.Array, "*outputs"]:
        """Kernel of the pair: a scalar, (O,) or (O, O) by `output`."""
        with exact_products():
            return self._of(x1, x2)

    def _of(self, x1, x2):
        J1, J2 = _weighted(self._jacobian(x1), self._lr), self._jacobian(x2)
        full = jax.tree.reduce(
            jnp.add,
            jax.tree.map(
                lambda a, b: (
                    a.reshape(a.shape[0], math.prod(a.shape[1:])) @ b.reshape(b.shape[0], math.prod(b.shape[1:])).T
                ),
                J1,
                J2,
            ),
        )
        if callable(self._output):
            return full[0, 0] if full.shape == (1, 1) else full
        if self._output == "full":
            return full
        diagonal = jnp.diagonal(full)
        return {"diag": diagonal, "sum": diagonal.sum(), "mean": diagonal.mean()}[self._output]

    def diag(self, x: Float[jax.Array, "*input"]) -> Float[jax.Array, "*outputs"]:
        """Kernel of x with itself."""
        return self(x, x)


def empirical_ntk(f: Callable, params: Any, *, output: Any = "mean", lr: Any = None) -> EmpiricalKernel:
    """Neural Tangent Kernel of a finite network at given parameters.

    ``K(x, x')_ij = sum_p lr_p df_i(x)/dtheta_p df_j(x')/dtheta_p``.

    f: ``f(params, x)`` for one example; params: any pytree.  output: "mean" the trace over outputs divided by their
    number (comparable with `wl.ntk`), "sum" the trace, "diag" each output with itself (O,), "full" (O, O), or a
    function that maps the output to the scalar whose kernel is wanted.  lr: learning-rate factors, a number or a pytree
    like params; None: 1.  Use it with `wl.gram`.  Raises ValueError for an unknown output or an lr of another
    structure, TypeError for an f that is no function or params that are not floating-point.
    Source: Jacot et al. 2018, section 4.
    """
    if not callable(f):
        raise TypeError(f"empirical_ntk: f must be a function f(params, x), not {type(f).__name__}.")
    _check_params("empirical_ntk", params)
    if not callable(output) and output not in _OUTPUTS:
        raise ValueError(f"empirical_ntk: output must be one of {', '.join(_OUTPUTS)} or a function, not {output!r}.")
    if lr is not None and not _is_number(lr) and jax.tree.structure(lr) != jax.tree.structure(params):
        raise ValueError("empirical_ntk: lr must be a number or a pytree of the same structure as params.")
    return EmpiricalKernel(f, params, output, lr)


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
    _check_params("taylor", params)

    def expansion(theta, *args, **kwargs):
        _check_like(theta, params)
        direction = jax.tree.map(jnp.subtract, theta, params)

        def along(t):
            return f(jax.tree.map(lambda p, d: p + t * d, params, direction), *args, **kwargs)

        dtype = jnp.result_type(*jax.tree.leaves(params))
        zero, one = jnp.zeros((), dtype), jnp.ones((), dtype)
        total, derivative = along(zero), along
        for j in range(1, order + 1):
            derivative = (lambda g: lambda t: jax.jvp(g, (t,), (one,))[1])(derivative)
            total = total + derivative(zero) / math.factorial(j)
        return total

    return expansion
