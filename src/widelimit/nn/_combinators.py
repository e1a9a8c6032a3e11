"""Modules made of modules: chains, residuals, sums, products and concatenations."""

from __future__ import annotations

import dataclasses
import functools
import operator

import jax
import jax.numpy as jnp

from widelimit.nn._context import apply_layer, combined, init_layer, output_shape
from widelimit.nn._module import Module

__all__ = ["Concat", "Identity", "Product", "Residual", "Sequential", "Sum"]


def _checked(name: str, modules: tuple) -> tuple[Module, ...]:
    if not modules:
        raise ValueError(f"{name}: give at least one module.")
    for i, m in enumerate(modules):
        if not isinstance(m, Module):
            raise TypeError(
                f"{name}: argument {i} is {m!r}, not a module"
                + (" (an instance is needed: add parentheses)." if isinstance(m, type) else ".")
            )
    return modules


def _sum(ys):
    return functools.reduce(operator.add, ys)


def _split(key, n):
    return [None] * n if key is None else list(jax.random.split(key, n))


@dataclasses.dataclass(frozen=True)
class Identity(Module):
    """``x``."""

    takes_context = True

    def apply(self, params, x, *, key=None):
        return x


@dataclasses.dataclass(frozen=True, init=False)
class Sequential(Module):
    """``f_k(... f_2(f_1(x)))``; its parameters are a tuple, one entry a layer.

    Raises TypeError for an argument that is not a module, ValueError for none.
    """

    takes_context = True
    layers: tuple[Module, ...]

    def __init__(self, *layers: Module):
        object.__setattr__(self, "layers", _checked("Sequential", layers))

    def init(self, key, shape):
        out = []
        for layer, k in zip(self.layers, jax.random.split(key, len(self.layers)), strict=True):
            params = init_layer(layer, k, shape)
            shape = output_shape(layer, params, shape)
            out.append(params)
        return tuple(out)

    def apply(self, params, x, *, key=None):
        for layer, p, k in zip(self.layers, params, _split(key, len(self.layers)), strict=True):
            x = apply_layer(layer, p, x, k)
        return x


@dataclasses.dataclass(frozen=True, init=False)
class Residual(Module):
    """``x + f(x)`` with f the chain of the given layers, whose output has the shape of x.

    Source: He et al. 2016.
    """

    takes_context = True
    body: Sequential

    def __init__(self, *layers: Module):
        object.__setattr__(self, "body", Sequential(*_checked("Residual", layers)))

    def init(self, key, shape):
        return self.body.init(key, shape)

    def apply(self, params, x, *, key=None):
        return combined(self, _sum, [x, self.body.apply(params, x, key=key)])


@dataclasses.dataclass(frozen=True, init=False)
class _Branches(Module):
    takes_context = True
    branches: tuple[Module, ...]

    def __init__(self, *branches: Module):
        object.__setattr__(self, "branches", _checked(type(self).__name__, branches))

    def init(self, key, shape):
        keys = jax.random.split(key, len(self.branches))
        return tuple(init_layer(b, k, shape) for b, k in zip(self.branches, keys, strict=True))

    def outputs(self, params, x, key):
        keys = _split(key, len(self.branches))
        return [apply_layer(b, p, x, k) for b, p, k in zip(self.branches, params, keys, strict=True)]


class Sum(_Branches):
    """``f_1(x) + f_2(x) + ...``; the outputs have one shape, the parameters are a tuple."""

    def apply(self, params, x, *, key=None):
        return combined(self, _sum, self.outputs(params, x, key))


class Product(_Branches):
    """``f_1(x) * f_2(x) * ...``, entry by entry (gates); the outputs have one shape, the parameters are a tuple."""

    def apply(self, params, x, *, key=None):
        return combined(self, lambda ys: functools.reduce(operator.mul, ys), self.outputs(params, x, key))


@dataclasses.dataclass(frozen=True, init=False)
class Concat(_Branches):
    """``f_1(x), f_2(x), ...`` concatenated along an axis of the example, by default the last (features).

    Raises TypeError for an axis that is no integer.
    """

    axis: int

    def __init__(self, *branches: Module, axis: int = -1):
        super().__init__(*branches)
        if isinstance(axis, bool) or not isinstance(axis, int):
            raise TypeError(f"Concat: axis must be an integer, not {axis!r}.")
        object.__setattr__(self, "axis", axis)

    def apply(self, params, x, *, key=None):
        return combined(self, lambda ys: jnp.concatenate(ys, axis=self.axis), self.outputs(params, x, key))
