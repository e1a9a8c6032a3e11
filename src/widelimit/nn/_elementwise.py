"""Elementwise nonlinearities ``phi(z)``: each an ordinary function of a preactivation, of any shape, no parameters."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.special import erf

from widelimit.nn._module import Module, checked_number

__all__ = [
    "ABRelu", "Abs", "Cos", "Elementwise", "Elu", "Erf", "Exp", "Gabor", "Gaussian", "Gelu", "Hermite", "LeakyRelu",
    "Monomial", "Polynomial", "Rbf", "RectifiedMonomial", "Relu", "Selu", "Sigmoid", "Sign", "Silu", "Sin",
    "Softplus", "Step", "Tanh",
]  # fmt: skip


class _Pointwise(Module):
    """Its hyperparameters are numbers, a `degree` a whole one: TypeError or ValueError for others."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value, degree = getattr(self, field.name), field.name == "degree"
            if field.name == "fn":
                if not callable(value):
                    raise TypeError(f"Elementwise: fn must be a function of an array, not {value!r}.")
                continue
            many = field.name == "coefficients"
            if many and (not isinstance(value, tuple) or not value):
                raise TypeError(f"Polynomial: coefficients must be a tuple of at least one number, not {value!r}.")
            for v in value if many else (value,):
                checked_number(type(self).__name__, field.name, v, whole=degree, least=0 if degree else -math.inf)

    def function(self, z: jax.Array) -> jax.Array:
        raise NotImplementedError

    def apply(self, params, x, *, key=None):
        return self.function(x)


@dataclasses.dataclass(frozen=True)
class Elementwise(_Pointwise):
    """``phi(z)`` for any JAX function `fn` that acts on each entry by itself."""

    fn: Callable[[jax.Array], jax.Array]

    def function(self, z):
        return self.fn(z)


@dataclasses.dataclass(frozen=True)
class ABRelu(_Pointwise):
    """``a min(z, 0) + b max(z, 0)``."""

    a: float
    b: float

    def function(self, z):
        return self.a * jnp.minimum(z, 0) + self.b * jnp.maximum(z, 0)


@dataclasses.dataclass(frozen=True)
class Relu(_Pointwise):
    """``max(z, 0)``."""

    def function(self, z):
        return jax.nn.relu(z)


@dataclasses.dataclass(frozen=True)
class LeakyRelu(_Pointwise):
    """``max(z, 0) + slope min(z, 0)``."""

    slope: float = 0.01

    def function(self, z):
        return jax.nn.leaky_relu(z, self.slope)


@dataclasses.dataclass(frozen=True)
class Abs(_Pointwise):
    """``|z|``."""

    def function(self, z):
        return jnp.abs(z)


@dataclasses.dataclass(frozen=True)
class Erf(_Pointwise):
    """``a erf(b z) + c``."""

    a: float = 1.0
    b: float = 1.0
    c: float = 0.0

    def function(self, z):
        return self.a * erf(self.b * z) + self.c


@dataclasses.dataclass(frozen=True)
class Gelu(_Pointwise):
    """``z Phi(z)``, Phi the standard normal distribution function (the exact form, not the tanh approximation)."""

    def function(self, z):
        return jax.nn.gelu(z, approximate=False)


@dataclasses.dataclass(frozen=True)
class Sin(_Pointwise):
    """``a sin(b z + c)``."""

    a: float = 1.0
    b: float = 1.0
    c: float = 0.0

    def function(self, z):
        return self.a * jnp.sin(self.b * z + self.c)


@dataclasses.dataclass(frozen=True)
class Cos(_Pointwise):
    """``a cos(b z + c)``."""

    a: float = 1.0
    b: float = 1.0
    c: float = 0.0

    def function(self, z):
        return self.a * jnp.cos(self.b * z + self.c)


@dataclasses.dataclass(frozen=True)
class Rbf(_Pointwise):
    """``sqrt(2) sin(sqrt(2 gamma) z + pi/4)``: its NNGP is ``exp(-gamma (v1 + v2 - 2 k))``, the RBF kernel."""

    gamma: float = 1.0

    def function(self, z):
        return math.sqrt(2) * jnp.sin(math.sqrt(2 * self.gamma) * z + math.pi / 4)


@dataclasses.dataclass(frozen=True)
class Exp(_Pointwise):
    """``a exp(b z)``."""

    a: float = 1.0
    b: float = 1.0

    def function(self, z):
        return self.a * jnp.exp(self.b * z)


@dataclasses.dataclass(frozen=True)
class Gaussian(_Pointwise):
    """``a exp(-b z^2)``."""

    a: float = 1.0
    b: float = 1.0

    def function(self, z):
        return self.a * jnp.exp(-self.b * z**2)


@dataclasses.dataclass(frozen=True)
class Gabor(_Pointwise):
    """``exp(-z^2) sin(z)``."""

    def function(self, z):
        return jnp.exp(-(z**2)) * jnp.sin(z)


@dataclasses.dataclass(frozen=True)
class Polynomial(_Pointwise):
    """``sum_j coefficients[j] z^j``."""

    coefficients: tuple[float, ...]

    def function(self, z):
        out = jnp.full_like(z, self.coefficients[-1])
        for c in reversed(self.coefficients[:-1]):
            out = out * z + c
        return out


@dataclasses.dataclass(frozen=True)
class Monomial(_Pointwise):
    """``z^degree``."""

    degree: int

    def function(self, z):
        return z**self.degree


@dataclasses.dataclass(frozen=True)
class Hermite(_Pointwise):
    """Normalised probabilists' Hermite polynomial, ``He_degree(z) / sqrt(degree!)``."""

    degree: int

    def function(self, z):
        before, now = jnp.zeros_like(z), jnp.ones_like(z)
        for j in range(self.degree):
            before, now = now, (z * now - math.sqrt(j) * before) / math.sqrt(j + 1)
        return now


@dataclasses.dataclass(frozen=True)
class RectifiedMonomial(_Pointwise):
    """``max(z, 0)^degree`` (degree 0: the step function)."""

    degree: int

    def function(self, z):
        return jnp.where(z > 0, z**self.degree, 0.0)


@dataclasses.dataclass(frozen=True)
class Sign(_Pointwise):
    """``sign(z)``; its derivative is taken as 0, as in JAX."""

    def function(self, z):
        return jnp.sign(z)


@dataclasses.dataclass(frozen=True)
class Step(_Pointwise):
    """``1 if z > 0 else 0``; its derivative is taken as 0, as in JAX."""

    def function(self, z):
        return jnp.where(z > 0, 1.0, 0.0)


@dataclasses.dataclass(frozen=True)
class Tanh(_Pointwise):
    """``tanh(z)``."""

    def function(self, z):
        return jnp.tanh(z)


@dataclasses.dataclass(frozen=True)
class Sigmoid(_Pointwise):
    """``1 / (1 + exp(-z))``."""

    def function(self, z):
        return jax.nn.sigmoid(z)


@dataclasses.dataclass(frozen=True)
class Softplus(_Pointwise):
    """``log(1 + exp(z))``."""

    def function(self, z):
        return jax.nn.softplus(z)


@dataclasses.dataclass(frozen=True)
class Silu(_Pointwise):
    """``z / (1 + exp(-z))``, also called swish."""

    def function(self, z):
        return jax.nn.silu(z)


@dataclasses.dataclass(frozen=True)
class Elu(_Pointwise):
    """``z`` for ``z > 0``, else ``alpha (exp(z) - 1)``."""

    alpha: float = 1.0

    def function(self, z):
        return jax.nn.elu(z, self.alpha)


@dataclasses.dataclass(frozen=True)
class Selu(_Pointwise):
    """Scaled ELU of Klambauer et al. 2017, ``1.0507 (z if z > 0 else 1.6733 (exp(z) - 1))``."""

    def function(self, z):
        return jax.nn.selu(z)
