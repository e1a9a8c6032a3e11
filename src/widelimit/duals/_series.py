"""Any function of one variable: a Hermite (Mehler) series, its jumps at 0 split off in closed form."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from widelimit.duals._dual import Dual, Pair, derivative, deviation, half_line_rule, moment
from widelimit.duals._rectified import _theta
from widelimit.duals._smooth_series import smooth_image, smooth_kernel

__all__ = ["Series", "jumps", "series_cross"]

_TINY = 1e-12
# Jumps at 0 of phi and of this many derivatives are looked for.
_DERIVATIVES = 9


def _order(dtype) -> int:
    return 256 if dtype == jnp.float64 else 96


def _split(jumps, dtype) -> tuple[float, ...]:
    """The jumps that are split off: in float32 the high powers would cost more digits than they save."""
    return tuple(jumps) if dtype == jnp.float64 else tuple(jumps[:3])


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
    return np.stack([H @ np.where(z > 0, z**i, 0.0) for i in range(_DERIVATIVES + 1)])


@functools.lru_cache(maxsize=64)
def _jumps(function) -> tuple[float, ...]:
    """Jumps at 0 of phi, phi', ... phi^(9); what smoothness explains, and below 1e-9, counts as none.

    Numbers also where the caller is traced.  Empty if phi, phi' and phi'' do not jump.
    """
    out: list[float] = []
    f = function
    with jax.ensure_compile_time_eval():
        for _ in range(3):
            right, left = (float(f(jnp.asarray(z))) for z in (_TINY, -_TINY))
            slope = float(derivative(f)(jnp.asarray(_TINY)))
            smooth = 1e-9 * max(1.0, abs(right)) + 4 * _TINY * abs(slope)
            out.append(right - left if abs(right - left) > smooth else 0.0)
            f, second = derivative(f), f
        if not any(out):
            return ()
        return (*out, *_higher_jumps(second))


def _higher_jumps(second) -> list[float]:
    """Jumps of phi^(3), phi^(4), ... from phi'' on either side: differentiating on would take twice as long for each.

    From Chebyshev interpolants, the shorter the steeper phi''.  They need not be exact: what is split off is added
    back in closed form, so that an error of theirs leaves as small a jump behind, and none at all is also right.
    """
    degree, count = 12, _DERIVATIVES - 2
    nodes = np.polynomial.chebyshev.chebpts1(degree + 1)
    between = np.cos(np.linspace(0.1, 3.0, 20))
    points, compiled = np.concatenate([nodes, between]), jax.jit(second)
    sides = []
    for side in (1.0, -1.0):
        for half in 0.25 * 0.5 ** np.arange(10):
            values, check = np.split(np.asarray(compiled(jnp.asarray(side * half * (1 + points)))), [degree + 1])
            fit = np.polynomial.Chebyshev.fit(nodes, values, degree, domain=[-1, 1])
            if np.abs(fit(between) - check).max() <= 1e-12 * np.abs(values).max():
                sides.append([float(fit.deriv(i)(-1.0)) * (side / half) ** i for i in range(1, count + 1)])
                break
    if len(sides) < 2:
        return [0.0] * count
    return [r - l if abs(r - l) > 1e-6 * max(1.0, abs(r)) else 0.0 for r, l in zip(*sides, strict=True)]


def _corners(pair: Pair, jumps1, jumps2):
    """``sum_ij a_i b_j / (i! j!) E[u+^i v+^j]`` for jumps a_i of the one function and b_j of the other.

    By Stein's lemma (Cho & Saul 2009 for i = j): with unit variances, correlation c, ``q = sqrt(1 - c^2)`` and
    ``m_j = E[z+^j]``, ``J(i, j) = E[u+^i v+^j]`` is

        J(i, j) = (i - 1) J(i - 2, j) + c j J(i - 1, j - 1) + [i = 1] q^j m_j / sqrt(2 pi),

    from ``J(0, 0) = (pi - theta)/(2 pi)`` and ``J(0, 1) = (1 + c)/(2 sqrt(2 pi))``; where j = 0 its second term is
    ``c q^(i - 1) m_(i - 1) / sqrt(2 pi)``.
    """
    theta = _theta(pair)
    sigma1, sigma2 = deviation(pair.v1), deviation(pair.v2)
    s = sigma1 * sigma2
    c = jnp.where(s > 0, pair.k / jnp.where(s > 0, s, 1), 0)
    weights = [tuple(a / math.factorial(i) for i, a in enumerate(jumps)) for jumps in (jumps1, jumps2)]
    return _corner_sum(theta, c, sigma1, sigma2, *weights)


@functools.partial(jax.jit, static_argnums=(4, 5))
def _corner_sum(theta, c, sigma1, sigma2, weights1, weights2):
    """The sum over i of ``weights1_i sigma1^i`` times row i of J, a row at a time: all j on a leading axis."""
    theta, c = jnp.broadcast_arrays(theta, c)
    count = max(len(weights1), len(weights2))

    def column(values):
        return jnp.asarray(values, c.dtype).reshape(-1, *(1,) * c.ndim)

    order, edge = column(range(count)), (2 * math.pi) ** -0.5
    m = column([2 ** (j / 2 - 1) * math.gamma((j + 1) / 2) / math.pi**0.5 for j in range(count)])
    q = jnp.sin(theta)
    edges = m * edge * q**order
    w1, w2 = (column(w + (0.0,) * (count - len(w))) for w in (weights1, weights2))
    first = w1 * sigma1**order
    second = w2 * sigma2**order

    def row(state, inputs):  # two rows before, one before -> one before, this one
        older, old = state
        i, corner, weight = inputs
        below = jnp.concatenate([corner[None], (order * jnp.roll(old, 1, axis=0))[1:]])
        new = c * below + (i - 1) * older + jnp.where(i == 1, edges, 0)
        return (old, new), weight * (new * second).sum(0)

    def next_of_first(state, inputs):  # row 0 alone, by the same recursion in j
        j, corner = inputs
        new = (j - 1) * state[0] + c * corner
        return (state[1], new), new

    start = (math.pi - theta) / (2 * math.pi), (1 + c) * (edge / 2)
    j = jnp.arange(2, count, dtype=c.dtype)
    _, rest = jax.lax.scan(next_of_first, start, (j, edges[1:-1]))
    zeroth = jnp.concatenate([jnp.stack(start), rest])
    i = jnp.arange(1, count, dtype=c.dtype)
    _, parts = jax.lax.scan(row, (jnp.zeros_like(zeroth), zeroth), (i, edges[:-1], first[1:]))
    return parts.sum(0) + first[0] * (zeroth * second).sum(0)


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
    for i, jump in enumerate(_split(jumps, dtype)):
        if jump:
            row = jnp.asarray(table[i] * (jump / math.factorial(i)), dtype).reshape((-1,) + (1,) * v.ndim)
            corners = corners + row * sigma**i
    return total - corners, corners


def _expectation(first, second, jumps1, jumps2, pair: Pair, same: bool, means=(None, None)):
    """``E[phi(u) psi(v)]`` of two functions with given jumps at 0."""
    if any(m is not None for m in means):
        jumps1 = jumps2 = ()
    corner = jnp.zeros_like(pair.k)
    jumps1, jumps2 = (_split(jumps, corner.dtype) for jumps in (jumps1, jumps2))
    if any(jumps1) and any(jumps2):
        corner = corner + _corners(pair.with_gap(), jumps1, jumps2)
    v1, v2 = jnp.asarray(pair.v1), jnp.asarray(pair.v2)
    r1, c1 = _coefficients(first, jumps1, v1, means[0])
    r2, c2 = (r1, c1) if same and pair.v2 is pair.v1 else _coefficients(second, jumps2, v2, means[1])
    # the product of the two full coefficients, less that of the corners (already in closed form)
    s = deviation(v1) * deviation(v2)
    rho = jnp.clip(jnp.where(s > 0, pair.k / jnp.where(s > 0, s, 1), 0), -1, 1)

    smooth = not any(jumps1) and not any(jumps2)

    def step(total, terms):
        (r1, c1), (r2, c2) = terms
        return total * rho + (r1 * r2 if smooth else r1 * r2 + r1 * c2 + c1 * r2), None

    reverse = jax.tree.map(lambda a: a[::-1], ((r1, None if smooth else c1), (r2, None if smooth else c2)))
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

    ``a_k(v) = E[phi(sqrt(v) z) He_k(z)] / sqrt(k!)`` by quadrature on either side of 0, 256 terms in float64 (512 for
    a phi' without jumps) and 96 in float32.  Jumps at 0 of phi and its first nine derivatives (relu-like, elu, selu)
    are subtracted as multiples of ``max(z, 0)^i``, whose expectations are closed (in float32 those of phi, phi',
    phi'').  What is cut off is at most Parseval's defect ``E[phi^2] - sum_k a_k^2`` (`error`).  Source: Mehler 1866;
    Daniely et al. 2016, section 11 (dual activations).
    """

    function: Callable
    jumps: tuple[float, ...] = ()
    derivative_jumps: tuple[float, ...] = ()
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

    @property
    def carries_gap(self):  # type: ignore[override]
        return not self.kinked

    def image(self, pair):
        return None if self.kinked else smooth_image(self.function, pair, _order(jnp.result_type(pair.k)))

    def kernel(self, pair):
        image = self.image(pair)
        if image is not None:
            return image[0]
        return _expectation(self.function, self.function, self.jumps, self.jumps, pair, True)

    def gap(self, pair):
        image = self.image(pair)
        return None if image is None else image[1]

    def derivative_kernel(self, pair):
        f = derivative(self.function)
        if not self.kinked:
            dtype = jnp.result_type(pair.k)  # in float64 the later fall of the coefficients of phi' matters
            return smooth_kernel(f, pair, (2 if dtype == jnp.float64 else 1) * _order(dtype))
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
    weights = [jump / math.factorial(i) for i, jump in enumerate(_split(jumps, jnp.result_type(v)))]

    def corners(z):
        return sum(weight * jnp.where(z > 0, z**i, 0) for i, weight in enumerate(weights)) + 0 * z

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
        _defects(d, () if shifted else jumps(d), v, mean)
        for d, v, mean in zip((first, second), variances, means, strict=True)
    ]
    (R1, C1, h1), (R2, C2, h2) = (tuple(map(jnp.max, p)) for p in parts)
    bound = jnp.sqrt(R1 * R2) + jnp.sqrt(R1 * C2) + jnp.sqrt(C1 * R2)
    return bound / jnp.maximum(jnp.sqrt(h1 * h2), jnp.finfo(h1.dtype).tiny)


def jumps(dual: Dual) -> tuple[float, ...]:
    """Jumps at 0 of phi, phi', ... phi^(9)."""
    return dual.jumps if isinstance(dual, Series) else _jumps(dual)
