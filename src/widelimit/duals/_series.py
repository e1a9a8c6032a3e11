"""Any function of one variable: a Hermite (Mehler) series, its jumps at 0 split off in closed form."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from widelimit.duals._dual import Dual, Pair, derivative, deviation, half_line_rule, moment
from widelimit.duals._rectified import _theta

__all__ = ["Series", "jumps", "series_cross"]

_TINY = 1e-12


def _order(dtype) -> int:
    return 256 if dtype == jnp.float64 else 96


@functools.lru_cache(maxsize=4)
def _rule(order: int):
    """Nodes z and the matrix ``w_i he_k(z_i)``, ``he_k = He_k / sqrt(k!)``."""
    z, w = half_line_rule()
    rows = [w, z * w]
    for k in range(1, order - 1):
        rows.append((z * rows[k] - np.sqrt(k) * rows[k - 1]) / np.sqrt(k + 1))
    return z, np.stack(rows[:order])


@functools.lru_cache(maxsize=4)
def _rectified_coefficients(order: int):
    z, H = _rule(order)
    return np.stack([H @ np.where(z > 0, z**i, 0.0) for i in range(3)])


def _jumps(function) -> tuple[float, float, float]:
    """Jumps at 0 of phi, phi', phi''; those below 1e-9 count as none.  Numbers also where the caller is traced."""
    out = []
    f = function
    with jax.ensure_compile_time_eval():
        for _ in range(3):
            right, left = f(jnp.asarray(_TINY)), f(jnp.asarray(-_TINY))
            jump = float(right - left)
            out.append(jump if abs(jump) > 1e-9 * max(1.0, abs(float(right))) else 0.0)
            f = derivative(f)
    return out[0], out[1], out[2]


def _corner(i: int, j: int, pair: Pair, theta):
    """``E[u+^i v+^j]`` for i, j in 0, 1, 2 (Cho & Saul 2009 for i = j; by Price's theorem otherwise)."""
    if i > j:
        return _corner(j, i, Pair(pair.k, pair.v2, pair.v1, pair.m, pair.p), theta)
    s1, s2 = deviation(pair.v1), deviation(pair.v2)
    s = s1 * s2
    c = jnp.where(s > 0, pair.k / jnp.where(s > 0, s, 1), 0)
    unit = {
        (0, 0): lambda: (jnp.pi - theta) / (2 * jnp.pi),
        (0, 1): lambda: (1 + c) / (2 * (2 * jnp.pi) ** 0.5),
        (0, 2): lambda: (jnp.pi - theta + c * jnp.sin(theta)) / (2 * jnp.pi),
        (1, 1): lambda: (jnp.sin(theta) + (jnp.pi - theta) * c) / (2 * jnp.pi),
        (1, 2): lambda: (1 + c) ** 2 / (2 * (2 * jnp.pi) ** 0.5),
        (2, 2): lambda: (3 * jnp.sin(theta) * c + (jnp.pi - theta) * (1 + 2 * c**2)) / (2 * jnp.pi),
    }[i, j]()
    return s1**i * s2**j * unit


def _coefficients(function, jumps, v, mean=None):
    """Hermite coefficients of the remainder and of the split-off corners: ``(order, ...)`` each."""
    dtype = jnp.result_type(v)
    z, H = _rule(_order(dtype))
    z, H = jnp.asarray(z, dtype), jnp.asarray(H, dtype)
    sigma = deviation(v)
    u = sigma[..., None] * z
    u = u if mean is None else u + mean[..., None]
    total = jnp.moveaxis(function(u) @ H.T, -1, 0)
    corners = jnp.zeros_like(total)
    table = _rectified_coefficients(_order(dtype))
    for i, jump in enumerate(jumps):
        if jump:
            row = jnp.asarray(table[i] * (jump / max(i, 1)), dtype).reshape((-1,) + (1,) * v.ndim)
            corners = corners + row * sigma**i
    return total - corners, corners


def _expectation(first, second, jumps1, jumps2, pair: Pair, same: bool, means=(None, None)):
    """``E[phi(u) psi(v)]`` of two functions with given jumps at 0."""
    if any(m is not None for m in means):
        jumps1 = jumps2 = (0.0, 0.0, 0.0)
    corner = jnp.zeros_like(pair.k)
    if any(jumps1) and any(jumps2):
        theta = _theta(pair)
        pair = pair.with_gap()
        for i, a in enumerate(jumps1):
            for j, b in enumerate(jumps2):
                if a and b:
                    corner = corner + a * b / (max(i, 1) * max(j, 1)) * _corner(i, j, pair, theta)
    v1, v2 = jnp.asarray(pair.v1), jnp.asarray(pair.v2)
    r1, c1 = _coefficients(first, jumps1, v1, means[0])
    r2, c2 = (r1, c1) if same and pair.v2 is pair.v1 else _coefficients(second, jumps2, v2, means[1])
    # the product of the two full coefficients, less that of the corners (already in closed form)
    s = deviation(v1) * deviation(v2)
    rho = jnp.clip(jnp.where(s > 0, pair.k / jnp.where(s > 0, s, 1), 0), -1, 1)

    def step(total, terms):
        (r1, c1), (r2, c2) = terms
        return total * rho + (r1 * r2 + r1 * c2 + c1 * r2), None

    reverse = jax.tree.map(lambda a: a[::-1], ((r1, c1), (r2, c2)))
    start = jnp.zeros(jnp.broadcast_shapes(rho.shape, v1.shape, v2.shape), rho.dtype)
    total, _ = jax.lax.scan(step, start, reverse, unroll=8)
    tail = jax.lax.stop_gradient(_defect(first, r1, c1, v1, means[0]) * _defect(second, r2, c2, v2, means[1]))
    sign = 1.0 if same else 0.0
    return corner + total + sign * jnp.sqrt(tail) * rho ** r1.shape[0]


def _defect(function, r, c, v, mean):
    """Parseval's defect: ``E[phi^2]`` less what the series (and the corners) account for; bounds the error at any k."""
    whole = moment(lambda z: function(z) ** 2, v, mean)
    table_tail = whole - jnp.sum((r + c) ** 2, axis=0)
    # corners are exact at every order: only the remainder is cut off, and its tail is not below rounding
    remainder = jnp.sum(c**2, axis=0) > 0
    return jnp.where(remainder, 0, jnp.maximum(table_tail - 8 * jnp.finfo(whole.dtype).eps * whole, 0))


@dataclasses.dataclass(frozen=True)
class Series(Dual):
    """``phi`` given as a JAX function; ``E[phi(u) phi(v)] = sum_k a_k(v1) a_k(v2) rho^k``, ``rho = k/s``.

    ``a_k(v) = E[phi(sqrt(v) z) He_k(z)] / sqrt(k!)`` by quadrature on either side of 0, 256 terms in float64 and 96
    in float32.  Jumps of phi, phi', phi'' at 0 (relu-like, elu, selu) are subtracted as multiples of ``max(z, 0)^i``,
    whose expectations are closed.  What is cut off is at most Parseval's defect ``E[phi^2] - sum_k a_k^2``
    (`error`).  Source: Mehler 1866; Daniely et al. 2016, section 11 (dual activations).
    """

    function: Callable
    jumps: tuple[float, float, float] = (0.0, 0.0, 0.0)
    derivative_jumps: tuple[float, float, float] = (0.0, 0.0, 0.0)
    note = "Hermite series"

    @classmethod
    def of(cls, function: Callable) -> Series:
        """The series of a function, its jumps at 0 found by one-sided differentiation."""
        return cls(function, _jumps(function), _jumps(derivative(function)))

    @property
    def kinked(self):  # type: ignore[override]
        return any(self.jumps) or any(self.derivative_jumps)

    def __call__(self, z):
        return self.function(z)

    def kernel(self, pair):
        return _expectation(self.function, self.function, self.jumps, self.jumps, pair, True)

    def derivative_kernel(self, pair):
        f = derivative(self.function)
        return _expectation(f, f, self.derivative_jumps, self.derivative_jumps, pair, True)

    def second_moment(self, v):
        return moment(lambda z: self.function(z) ** 2, v)

    def derivative_second_moment(self, v):
        f = derivative(self.function)
        return moment(lambda z: f(z) ** 2, v)

    def error(self, v):
        """Bounds on ``|error| / E[phi^2]`` of `kernel` at any k, and the same of phi'.

        With R and C the Parseval defects of the remainder and of the corners, the terms cut off are at most
        ``R + 2 sqrt(R C)`` (Cauchy-Schwarz); R counts twice, for `kernel` adds an estimate of it.
        """
        out = []
        for f, jumps in ((self.function, self.jumps), (derivative(self.function), self.derivative_jumps)):
            R, C, whole = _defects(f, jumps, v)
            out.append((2 * R + 2 * jnp.sqrt(R * C)) / jnp.maximum(whole, jnp.finfo(whole.dtype).tiny))
        return tuple(out)


def _defects(function, jumps, v, mean=None):
    """Parseval defects of the remainder and of the corners, and ``E[phi^2]``."""
    r, c = _coefficients(function, jumps, v, mean)
    whole = moment(lambda z: function(z) ** 2, v, mean)

    def corners(z):
        return sum(jump / max(i, 1) * jnp.where(z > 0, z**i, 0) for i, jump in enumerate(jumps)) + 0 * z

    R = moment(lambda z: (function(z) - corners(z)) ** 2, v, mean) - jnp.sum(r**2, axis=0)
    C = moment(lambda z: corners(z) ** 2, v, mean) - jnp.sum(c**2, axis=0)
    # a defect below the rounding of the sums it is the difference of is not known to be smaller
    return jnp.maximum(R, 0) + 8 * jnp.finfo(whole.dtype).eps * whole, jnp.maximum(C, 0), whole


def series_cross(first: Dual, second: Dual, pair: Pair, means=(None, None)):
    """``E[phi(mu1 + u) psi(mu2 + v)]`` for two functions (closed form or not) by their series."""
    return _expectation(first, second, jumps(first), jumps(second), pair, False, means)


def series_cross_error(first: Dual, second: Dual, variances, means=(None, None)):
    """Bound on the error of `series_cross` at any k, relative to ``sqrt(E[phi^2] E[psi^2])`` (Cauchy-Schwarz)."""
    shifted = any(m is not None for m in means)
    parts = [
        _defects(d, (0.0, 0.0, 0.0) if shifted else jumps(d), v, mean)
        for d, v, mean in zip((first, second), variances, means, strict=True)
    ]
    (R1, C1, h1), (R2, C2, h2) = (tuple(map(jnp.max, p)) for p in parts)
    bound = jnp.sqrt(R1 * R2) + jnp.sqrt(R1 * C2) + jnp.sqrt(C1 * R2)
    return bound / jnp.maximum(jnp.sqrt(h1 * h2), jnp.finfo(h1.dtype).tiny)


def jumps(dual: Dual) -> tuple[float, float, float]:
    """Jumps at 0 of phi, phi', phi''."""
    return dual.jumps if isinstance(dual, Series) else _jumps(dual)
