"""Modules made of modules: chains, residuals, sums, products and concatenations."""

from __future__ import annotations

import dataclasses
import functools
import operator

import jax
import jax.numpy as jnp

from widelimit.nn._context import Context, apply_layer, combined, init_layer, output_shape
from widelimit.nn._module import Module, checked_number

__all__ = ["Concat", "Fork", "Identity", "Parallel", "Part", "Product", "Residual", "Sequential", "Sum"]


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
            try:
                params = init_layer(layer, k, shape)
                after = output_shape(layer, params, shape)
            except (TypeError, AttributeError) as error:
                if not _is_tuple(shape):
                    raise
                raise ValueError(
                    f"{type(layer).__name__}: it cannot be applied to a tuple of {len(shape)} parts ({error}). Remedy: "
                    "one of them, Part(0), or a branch for each, Parallel(...)."
                ) from error
            shape = after
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


class Fork(_Branches):
    """``(f_1(x), f_2(x), ...)``, a tuple for a layer that takes one; the parameters are a tuple, one entry a branch.

    A decoder's layer that looks at the memory m beside it, ``(x + f(x, m), m)``, is
    ``Fork(Sum(Part(0), CrossAttention(width)), Part(1))``.
    Raises TypeError for an argument that is not a module, ValueError for none.
    """

    def apply(self, params, x, *, key=None):
        return tuple(self.outputs(params, x, key))


class Parallel(_Branches):
    """``(f_1(x_1), f_2(x_2), ...)`` of a tuple ``(x_1, x_2, ...)``.

    Each branch has a part of its own (an encoder and a decoder); the parameters are a tuple, one entry a branch.

    Raises TypeError for an argument that is not a module, ValueError for none, or for an input that is not a tuple of
    as many parts as there are branches.
    """

    def init(self, key, shape):
        keys, parts = jax.random.split(key, len(self.branches)), self._parts(shape)
        return tuple(init_layer(b, k, s) for b, k, s in zip(self.branches, keys, parts, strict=True))

    def apply(self, params, x, *, key=None):
        keys, parts = _split(key, len(self.branches)), self._parts(x)
        return tuple(
            apply_layer(b, p, part, k) for b, p, part, k in zip(self.branches, params, parts, keys, strict=True)
        )

    def _parts(self, x):
        if not _is_tuple(x) or len(x) != len(self.branches):
            raise ValueError(f"Parallel: the input must be a tuple of {len(self.branches)} parts, one for each branch.")
        return x


@dataclasses.dataclass(frozen=True)
class Part(Module):
    """``x_i`` of a tuple ``(x_0, x_1, ...)``.

    Raises TypeError or ValueError for an index that is no integer of at least 0, ValueError for an input that is not a
    tuple of more than `index` parts.
    """

    takes_context = True
    index: int

    def __post_init__(self) -> None:
        checked_number("Part", "index", self.index, whole=True, least=0)

    def init(self, key, shape):
        self.apply((), shape)
        return ()

    def apply(self, params, x, *, key=None):
        if not _is_tuple(x) or len(x) <= self.index:
            raise ValueError(f"Part: the input must be a tuple of more than {self.index} parts.")
        return x[self.index]


def _is_tuple(x) -> bool:
    """Whether it is several parts, or their shapes."""
    return isinstance(x, tuple | list) and not isinstance(x, Context) and not any(isinstance(part, int) for part in x)
