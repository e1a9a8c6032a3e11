"""What a dual is: the Gaussian expectations of one function of one variable, as functions of the covariance."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["Dual", "Pair", "Sides", "half_line_rule", "image_gap", "moment", "refined"]


class Pair(NamedTuple):
    """Covariance of a centred Gaussian pair (u, v).

    ``k = E[u v]``, ``v1 = E[u^2]``, ``v2 = E[v^2]``; where known without cancellation, ``m = s - k`` and
    ``p = s + k`` with ``s = sqrt(v1 v2)``, and ``r = sqrt(v1) - sqrt(v2)``, else None.  Arrays that broadcast against
    each other.
    """

    k: Any
    v1: Any
    v2: Any
    m: Any = None
    p: Any = None
    r: Any = None

    def with_gap(self) -> Pair:
        """The same pair with m and p, from the difference where they were not known."""
        if self.m is not None:
            return self
        s = jnp.sqrt(self.v1) * jnp.sqrt(self.v2)
        m, p = jax.lax.stop_gradient((jnp.maximum(s - self.k, 0), jnp.maximum(s + self.k, 0)))
        return self._replace(m=m, p=p)


# Methods of a dual that are one operation each.
_OPERATIONS = ("kernel", "derivative_kernel", "gap", "second_moment", "derivative_second_moment")


def _one_operation(method):
    """Traced and compiled once for each shape, not for each layer; fields that are numbers are part of the program."""
    compiled = jax.jit(method, static_argnums=0)

    @functools.wraps(method)
    def operation(self, *arrays):
        known = all(isinstance(value, int | float) for value in vars(self).values())
        return compiled(self, *arrays) if known else method(self, *arrays)

    return operation


class Dual:
    """Expectations of ``phi``: ``K = E[phi(u) phi(v)]`` and the two derivatives of Price's theorem.

    Subclasses are frozen dataclasses (hashable); `kinked` says that phi' jumps, so that `kernel` is sharp at
    ``k = +-s`` and wants m and p exactly.  `carries_gap` says the same of a smooth phi under which small angles grow
    from layer to layer, so that the rounding of k would grow too: `gap` and `kernel` then start from m and p.
    """

    kinked: bool = False
    carries_gap: bool = False
    note: str = "closed form"

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        for name in _OPERATIONS:
            if name in vars(cls):
                setattr(cls, name, _one_operation(vars(cls)[name]))

    def __call__(self, z):
        raise NotImplementedError

    def kernel(self, pair: Pair):
        """``E[phi(u) phi(v)]``."""
        raise NotImplementedError

    def derivative_kernel(self, pair: Pair):
        """``E[phi'(u) phi'(v)]`` with phi' the derivative almost everywhere (a jump of phi counts 0)."""
        raise NotImplementedError

    @property
    def wants_gap(self) -> bool:
        """Whether m and p of the pair make `kernel` more accurate."""
        return self.kinked or self.carries_gap

    def gap(self, pair: Pair) -> tuple[Any, Any] | None:
        """``(m', p') = s' -+ K`` of the image, ``s' = sqrt(E[phi(u)^2] E[phi(v)^2])``; None: not known exactly."""
        return None

    def image(self, pair: Pair) -> tuple[Any, tuple[Any, Any]] | None:
        """`kernel` and `gap` of duals that get both from the same sums; None: they have nothing in common."""
        return None

    def root(self, pair: Pair):
        """``sqrt(E[phi(u)^2]) - sqrt(E[phi(v)^2])``: the r of the image."""
        return jnp.sqrt(self.second_moment(pair.v1)) - jnp.sqrt(self.second_moment(pair.v2))

    def mean(self, v):
        """``E[phi(u)]``."""
        return moment(self, v)

    def mean_derivative(self, v):
        """``E[phi'(u)]``."""
        return moment(derivative(self), v)

    def second_moment(self, v):
        """``E[phi(u)^2]``."""
        zero = jax.lax.stop_gradient(jnp.zeros_like(v))
        return self.kernel(Pair(v, v, v, zero, jax.lax.stop_gradient(2 * v)))

    def derivative_second_moment(self, v):
        """``E[phi'(u)^2]``."""
        zero = jax.lax.stop_gradient(jnp.zeros_like(v))
        return self.derivative_kernel(Pair(v, v, v, zero, jax.lax.stop_gradient(2 * v)))


class Sides(NamedTuple):
    """What differences of second moments are made of: ``v1 - k``, ``v2 - k``, ``sqrt(v1) - sqrt(v2)``."""

    first: Any
    second: Any
    root: Any

    @classmethod
    def of(cls, v1, v2, m):
        """From ``m = s - k``, without cancellation beyond that of ``v1 - v2``, which is exact."""
        a, b = jnp.sqrt(v1), jnp.sqrt(v2)
        total = a + b
        root = (v1 - v2) / jnp.where(total > 0, total, 1)
        return cls(m + a * root, m - b * root, root)


def image_gap(below, above, h1, h2):
    """``(s' - K, s' + K)`` from ``E[(phi(u) -+ phi(v))^2] / 2`` and ``h = E[phi^2]``, ``s' = sqrt(h1 h2)``."""
    a, b = jnp.sqrt(h1), jnp.sqrt(h2)
    total = a + b
    uneven = ((h1 - h2) / jnp.where(total > 0, total, 1)) ** 2 / 2
    return jnp.maximum(below - uneven, 0), jnp.maximum(above - uneven, 0)


def refined(direct, gap, h1, h2):
    """K from the gap of the image where that is the more accurate; derivatives are those of `direct`."""
    m, p = gap
    s = jnp.sqrt(h1) * jnp.sqrt(h2)
    value = jnp.where(2 * m < s, s - m, jnp.where(2 * p < s, p - s, direct))
    return direct + jax.lax.stop_gradient(value - direct)


def derivative(function):
    """``phi'`` by forward differentiation."""
    return lambda z: jax.jvp(function, (z,), (jnp.ones_like(z),))[1]


# Nodes in one panel of `half_line_rule`.
PANEL = 24


def half_line_rule(cutoff: float = 13.0, order: int = PANEL):
    """Nodes and weights of ``int phi(z) exp(-z^2/2)/sqrt(2 pi) dz``: Gauss-Legendre panels on either side of 0.

    A kink or jump at 0 does no harm; panels shrink towards 0.  Error ~ 1e-16 for smooth halves, tail 1e-37.
    """
    edges = np.concatenate([[0.0], np.geomspace(1 / 32, 1, 6), np.arange(1.75, cutoff, 0.75), [cutoff]])
    x, w = np.polynomial.legendre.leggauss(order)
    centres, radii = (edges[1:] + edges[:-1]) / 2, (edges[1:] - edges[:-1]) / 2
    z = (centres[:, None] + radii[:, None] * x).ravel()
    weights = (radii[:, None] * w).ravel() * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    return np.concatenate([-z[::-1], z]), np.concatenate([weights[::-1], weights])


_NODES, _WEIGHTS = half_line_rule()


@jax.jit
def deviation(v):
    """``sqrt(v)``, with derivative 0 (not infinite) at 0."""
    positive = v > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, v, 1)), 0)


def moment(function, v, mean=None):
    """``E[phi(mean + sqrt(v) z)]`` of a scalar function, by quadrature."""
    dtype = jnp.result_type(v)
    z = deviation(v)[..., None] * jnp.asarray(_NODES, dtype)
    z = z if mean is None else z + mean[..., None]
    return function(z) @ jnp.asarray(_WEIGHTS, dtype)
