"""A network as a pair of traced programs: what `Limit` reads, whatever front door it came through."""

from __future__ import annotations

import copy
import dataclasses
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from widelimit._precision import enable_x64
from widelimit.fields import DEFAULT_POINTS, Prior, UnknownLimitError
from widelimit.trace._frameworks import check_batch_norms, remedy_of, trained
from widelimit.trace._prior import Normal, prior_of_draw

__all__ = [
    "Program", "is_module", "linen_builder", "makes_linen", "program_of_builder", "program_of_function",
    "program_of_module", "with_width",
]  # fmt: skip

# What vanishes as 1/width is then below rounding; nothing of this size is ever computed.
_WIDTHS = (2**44, 2**43)
_SMALL = 64


class Program(NamedTuple):
    """``apply(leaves, x)`` at two widths; the leaves' shapes and priors at both, and names."""

    apply: Callable
    apply2: Callable
    shapes: list
    shapes2: list
    priors: list[Prior]
    priors2: list[Prior]
    names: list[str]
    notes: list[str]
    points: int = DEFAULT_POINTS
    written_width: bool = False  # a module's: learning rates stay as at the width that is written
    fresh_noise: bool = False  # masks of dropout are drawn anew for each input, whatever their key

    def trace(self, example):
        """Closed jaxprs at the two widths for one example's shapes; literals in 64 bits, nothing is computed."""
        with enable_x64():
            x = jax.tree.map(_in_64_bits, example)
            out = []
            for function, shapes in ((self.apply, self.shapes), (self.apply2, self.shapes2)):
                leaves = [jax.ShapeDtypeStruct(s, jnp.float64) for s in shapes]
                try:
                    out.append(jax.make_jaxpr(function)(leaves, x))
                except Exception as error:
                    remedy = remedy_of(error)
                    if not remedy and not isinstance(error, TypeError | ValueError):
                        raise
                    message = f"the network cannot be applied to {_in_words(x)}: {error}"
                    raise ValueError(f"{message} {remedy}".rstrip()) from error
        return out[0], out[1]


def _in_64_bits(a):
    return jax.ShapeDtypeStruct(a.shape, jnp.float64 if jnp.issubdtype(a.dtype, jnp.floating) else a.dtype)


def _in_words(example) -> str:
    shapes = [f"{tuple(a.shape)}" for a in jax.tree.leaves(example)]
    return f"an input of shape {shapes[0]}" if len(shapes) == 1 else f"inputs of shapes {', '.join(shapes)}"


def _names(tree) -> list[str]:
    return [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]


def _learning_rate(lr, std):
    if lr == "ntk":
        return std**2
    return lr


def _widths(module) -> tuple[str, ...]:
    return getattr(module, "widths", ("width",))


def _widened(module):
    """The same module with every `width` doubled."""
    out = copy.copy(module)
    for field in dataclasses.fields(module):
        value = getattr(module, field.name)
        if field.name in _widths(module):
            value = 2 * value
        elif isinstance(value, tuple) and any(dataclasses.is_dataclass(v) for v in value):
            value = tuple(_widened(v) if dataclasses.is_dataclass(v) else v for v in value)
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = _widened(value)
        else:
            continue
        object.__setattr__(out, field.name, value)
    return out


def with_width(module, n: int, output: bool = True):
    """The same network with every `width` set to n; output: but for that of its last layer."""
    out = copy.copy(module)
    for field in dataclasses.fields(module):
        value = getattr(module, field.name)
        if field.name in _widths(module) and not output:
            value = n if field.name == "width" else max(1, value * n // module.width)
        elif isinstance(value, tuple):
            ends = [output and (field.name != "layers" or i == len(value) - 1) for i in range(len(value))]
            value = tuple(with_width(v, n, e) if is_module(v) else v for v, e in zip(value, ends, strict=True))
        elif is_module(value):
            value = with_width(value, n, output)
        object.__setattr__(out, field.name, value)
    return out


def is_module(f) -> bool:
    """Whether it is a module of `nn` or like one: ``init(key, shape)`` and ``apply(params, x)``, not called itself."""
    return hasattr(f, "init") and hasattr(f, "apply") and dataclasses.is_dataclass(f) and not callable(f)


def makes_linen(builder) -> bool:
    """Whether a builder returns Flax Linen modules."""
    if "flax.linen" not in sys.modules:
        return False
    try:
        return _is_linen(builder(_SMALL, jax.random.key(0)))
    except Exception:  # whatever is wrong with it is told when it is called in earnest
        return False


def _is_linen(model) -> bool:
    return any(c.__module__.startswith("flax.linen") for c in type(model).__mro__)


def linen_builder(builder, example) -> Callable:
    """The builder of callable models, parameters drawn for an example of these shapes."""

    def build(n, key):
        model = builder(n, key)
        x = jax.tree.map(lambda a: jnp.zeros(a.shape, jax.dtypes.canonicalize_dtype(a.dtype)), example)
        return jax.tree_util.Partial(model.apply, model.init(key, x))

    return build


def program_of_module(net, example) -> Program:
    """For objects with ``init(key, shape)`` and ``apply(params, x, key=None)`` whose `width` fields may be scaled.

    example: the input's shapes and types; `init` is given its shape, or the tuple or dict of its shapes.
    """
    shape = jax.tree.map(lambda a: tuple(a.shape), example)
    nets = [net, _widened(net)]
    key = jax.random.key(0)
    closed, shapes, trees = [], [], []
    for n in nets:
        try:
            with enable_x64():
                closed.append(jax.make_jaxpr(lambda k, n=n: n.init(k, shape))(key))
                tree = jax.eval_shape(lambda n=n: n.init(key, shape))
        except (TypeError, ValueError) as error:
            remedy = (
                " (A residual or sum whose branches have different widths, one of them the input itself, has no limit. "
                "Remedy: put a Dense layer before it.)"
            )
            message = f"the network cannot be built for an input of shape {shape} at two widths: {error}"
            raise UnknownLimitError(message + remedy * ("incompatible shapes" in str(error))) from error
        leaves, structure = jax.tree.flatten(tree)
        shapes.append([tuple(leaf.shape) for leaf in leaves])
        trees.append(structure)
    priors, priors2 = ([Prior(std**2, 1.0, mean) for mean, std, _ in prior_of_draw(c, [key])] for c in closed)

    def apply(n, structure):
        def function(leaves, x):
            return n.apply(jax.tree.unflatten(structure, leaves), x, key=jax.random.key(0))

        return function

    names = _names(jax.tree.unflatten(trees[0], shapes[0])) if priors else []
    return Program(
        apply(nets[0], trees[0]),
        apply(nets[1], trees[1]),
        shapes[0],
        shapes[1],
        priors,
        priors2,
        names[: len(priors)],
        [],
        written_width=True,
        fresh_noise=True,
    )


def _checked_prior(prior, n: int):
    try:
        tree = prior(n)
    except TypeError as error:
        raise TypeError(
            f"limit: prior(n) failed ({error}). It is a function of the width only: limit(f, prior)."
        ) from error
    leaves, structure = jax.tree.flatten(tree, is_leaf=lambda a: isinstance(a, Normal))
    wrong = [a for a in leaves if not isinstance(a, Normal)]
    if wrong or not leaves:
        raise TypeError(
            "prior must be a function of the width that returns a pytree of wl.normal(shape, std, lr)"
            + (f"; it holds {type(wrong[0]).__name__}." if wrong else "; it is empty.")
        )
    return leaves, structure


def program_of_function(f, prior: Callable[[int], Any], lr="own") -> Program:
    """For ``f(params, x)`` with ``prior(n)`` a pytree of `normal` at width n."""
    flat = [_checked_prior(prior, n) for n in (_SMALL, *_WIDTHS)][1:]  # the small one first: arrays would be too large
    if flat[0][1] != flat[1][1]:
        raise ValueError("prior: the pytree must have the same structure at every width.")
    priors, priors2 = ([leaf.prior() for leaf in leaves] for leaves, _ in flat)
    if lr == "ntk":
        priors, priors2 = ([p._replace(lr=p.variance) for p in ps] for ps in (priors, priors2))

    def apply(structure):
        return lambda leaves, x: f(jax.tree.unflatten(structure, leaves), x)

    names = _names(jax.tree.unflatten(flat[0][1], [leaf.shape[:0] or 0 for leaf in flat[0][0]]))
    return Program(
        apply(flat[0][1]),
        apply(flat[1][1]),
        [leaf.shape for leaf in flat[0][0]],
        [leaf.shape for leaf in flat[1][0]],
        priors,
        priors2,
        names,
        [],
    )


def program_of_builder(builder, lr="ntk") -> Program:
    """For ``builder(n, key)`` returning a callable pytree (an Equinox module, say) of width n."""
    key = jax.random.key(0)
    applies, shapes, laws, names, trains = [], [], [], [], []
    for n in _WIDTHS:
        held: dict = {}

        def draw(k, n=n, held=held):
            model = builder(n, k)
            leaves, structure = jax.tree.flatten(model)
            is_array = [hasattr(a, "dtype") and jnp.issubdtype(a.dtype, jnp.inexact) for a in leaves]
            held.update(
                structure=structure, is_array=is_array,
                static=[a for a, i in zip(leaves, is_array, strict=True) if not i],
                names=[m for m, i in zip(_names(model), is_array, strict=True) if i], callable=callable(model),
                trained=[t for t, i in zip(trained(model), is_array, strict=True) if i],
            )  # fmt: skip
            return [a for a, i in zip(leaves, is_array, strict=True) if i]

        try:
            with enable_x64():  # indices of so large arrays need 64 bits
                closed = jax.make_jaxpr(draw)(key)
        except (MemoryError, RuntimeError) as error:
            raise TypeError(
                "limit: builder(n, key) makes arrays that are not traced. Remedy: draw every parameter with "
                "jax.random. (A builder of PyTorch modules takes the width only, builder(n).)"
            ) from error
        except (TypeError, IndexError) as error:
            raise TypeError(
                f"limit: builder(n, key) failed ({error}). A function f(params, x) needs its prior: limit(f, prior)."
            ) from error
        if not held["callable"]:
            raise TypeError("builder(n, key) must return a model that can be called on one example x.")
        shapes.append([tuple(v.aval.shape) for v in closed.jaxpr.outvars])
        laws.append(prior_of_draw(closed, [key]))
        names, trains = held["names"], held["trained"]

        def apply(leaves, x, held=held):
            arrays, static = iter(leaves), iter(held["static"])
            merged = [next(arrays) if i else next(static) for i in held["is_array"]]
            model = jax.tree.unflatten(held["structure"], merged)
            check_batch_norms(model, x)
            return model(x)

        applies.append(apply)
    priors, priors2 = (
        [
            Prior(std**2, _learning_rate(lr, std) if train else 0.0, mean)
            for (mean, std, _), train in zip(both, trains, strict=True)
        ]
        for both in laws
    )
    notes = [
        f"{name}: initialiser is not Gaussian; replaced by a Gaussian of the same variance (exact for wide inputs)"
        for name, (_, _, gaussian) in zip(names, laws[0], strict=True)
        if not gaussian
    ]
    notes += [
        f'{name}: starts at {mean:g}, and is not trained under lr="ntk" (lr = std^2 = 0); a number for lr trains it'
        for name, (mean, std, _), train in zip(names, laws[0], trains, strict=True)
        if train and lr == "ntk" and isinstance(std, float | int) and std == 0
    ]
    notes += [f"{name}: state, not a parameter" for name, train in zip(names, trains, strict=True) if not train]
    return Program(applies[0], applies[1], shapes[0], shapes[1], priors, priors2, names, notes)
