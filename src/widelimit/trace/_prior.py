"""Priors: stated with `normal`, or read from the program that draws the parameters."""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex_core

from widelimit._equations import needed
from widelimit._precision import is_traced
from widelimit.fields import Prior

__all__ = ["Normal", "normal", "prior_of_draw"]


class Normal(NamedTuple):
    """A parameter array with i.i.d. ``N(mean, std^2)`` entries, trained with learning-rate factor `lr`."""

    shape: tuple[int, ...]
    std: Any = 1.0
    lr: Any = 1.0
    mean: Any = 0.0

    def prior(self) -> Prior:
        """Variance, learning rate and mean."""
        return Prior(self.std**2, self.lr, self.mean)

    def draw(self, key: jax.Array) -> jax.Array:
        """A sample."""
        return self.mean + self.std * jax.random.normal(key, self.shape)


def normal(shape, std: Any = 1.0, lr: Any = 1.0, mean: Any = 0.0) -> Normal:
    """State that a parameter array has i.i.d. entries ``N(mean, std^2)`` and learning-rate factor `lr`.

    ``lr = 1`` is the code's own parameterisation; ``lr = std^2`` gives the NTK of its NTK-parameterised twin, and 0
    freezes it.  std 0 is allowed (a bias that starts at 0 is trained all the same).
    Raises ValueError for a shape that is not of integers >= 1, or a negative or infinite std or lr; TypeError for a
    std, lr or mean that is no number.
    """
    sizes = (shape,) if isinstance(shape, int | np.integer) else tuple(shape)
    if any(isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1 for n in sizes):
        raise ValueError(f"normal: shape must be an integer or a tuple of integers >= 1, not {shape!r}.")
    for name, value in (("std", std), ("lr", lr), ("mean", mean)):
        if isinstance(value, jax.Array):
            continue  # perhaps traced
        if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
            raise TypeError(f"normal: {name} must be a number, not {value!r}.")
        if not np.isfinite(value) or (name != "mean" and value < 0):
            raise ValueError(f"normal: {name} must be finite{'' if name == 'mean' else ' and >= 0'}, not {value!r}.")
    shape = tuple(int(n) for n in sizes)
    return Normal(shape, std, lr, mean)


class _Random:
    """A value derived from random bits whose law is not (yet) Gaussian."""


class _Law(NamedTuple):
    mean: Any
    std: Any
    gaussian: bool


def prior_of_draw(closed, inputs: list) -> list[tuple[Any, Any, bool]]:
    """(mean, std, whether Gaussian) of each output of the jaxpr of an initialiser, whose inputs are random keys."""
    values: list = [_Random() for _ in inputs]
    # while a kernel is traced, numbers stay numbers: std of the initialiser's own precision, not float32's
    by_numbers = not any(map(is_traced, closed.consts))
    with jax.ensure_compile_time_eval() if by_numbers else contextlib.nullcontext():
        out = _run(closed.jaxpr, closed.consts, values)
    laws = []
    for i, v in enumerate(out):
        if isinstance(v, _Law):
            laws.append((v.mean, v.std, v.gaussian))
        elif isinstance(v, _Random):
            raise ValueError(
                f"the law of parameter array {i} cannot be read from its initialiser (known: jax.random.normal, "
                "truncated_normal and uniform, shifted and scaled). Remedy: state it with "
                "wl.limit(f, lambda n: {... wl.normal(shape, std) ...})."
            )
        else:
            array = _without_repeats(np.asarray(v)) if not is_traced(v) else v
            if np.size(array) and np.ptp(array) != 0:
                raise ValueError(
                    f"parameter array {i} starts at constants that differ from entry to entry; only equal entries "
                    "(zeros, ones) or i.i.d. Gaussian ones have a known limit."
                )
            laws.append((float(array.ravel()[0]) if np.size(array) else 0.0, 0.0, True))
    return laws


def _without_repeats(array: np.ndarray) -> np.ndarray:
    """One of the entries along axes that only repeat it: zeros of a width that no memory holds."""
    return array[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in array.strides)]


_UNIFORM_STD = 12**-0.5


def _run(jaxpr, consts, values):
    env: dict = dict(zip(jaxpr.constvars, consts, strict=True))
    env.update(zip(jaxpr.invars, values, strict=True))

    def read(a):
        return a.val if isinstance(a, jex_core.Literal) else env[a]

    for i in needed(jaxpr):  # initialisers may run the model, at a width that no memory holds
        eqn = jaxpr.eqns[i]
        outs = _step(eqn, [read(a) for a in eqn.invars])
        env.update(zip(eqn.outvars, outs, strict=True))
    return [read(a) for a in jaxpr.outvars]


_PASS = {
    "convert_element_type",
    "copy",
    "reshape",
    "broadcast_in_dim",
    "squeeze",
    "transpose",
    "slice",
    "stop_gradient",
}


def _step(eqn, values):
    name, params = eqn.primitive.name, eqn.params
    random = [v for v in values if isinstance(v, _Law | _Random)]
    inner = params.get("jaxpr") or params.get("call_jaxpr")
    called = str(params.get("name", ""))
    if random and inner is not None:
        if called == "_normal":
            return [_Law(0.0, 1.0, True)]
        if called == "_truncated_normal":
            low, high = (float(v) for v in values[1:3])
            return [_truncated(low, high)]
        if called == "_uniform":
            low, high = values[1:3]
            return [_Law((low + high) / 2, (high - low) * _UNIFORM_STD, False)]
        jaxpr, consts = (inner.jaxpr, inner.consts) if hasattr(inner, "consts") else (inner, [])
        return _run(jaxpr, consts, values)
    if not random:
        if name in ("broadcast_in_dim", "iota"):
            shape = params["shape"]
            if name == "broadcast_in_dim" and np.size(values[0]) == 1:
                return [np.broadcast_to(np.reshape(values[0], ()), shape) if not is_traced(values[0]) else values[0]]
        values = [jnp.asarray(v) for v in values]
        out = eqn.primitive.bind(*values, **params)
        return out if eqn.primitive.multiple_results else [out]
    laws = [v for v in values if isinstance(v, _Law)]
    if laws and name in _PASS:
        return [laws[0]]
    if len(laws) == 1 and len(random) == 1 and len(values) == 2:
        return [_affine(name, values)]
    if laws and name == "neg":
        return [laws[0]._replace(mean=-laws[0].mean)]
    return [_Random() for _ in eqn.outvars]


def _affine(name, values):
    first = isinstance(values[0], _Law)
    law, number = (values[0], values[1]) if first else (values[1], values[0])
    if np.size(number) != 1:
        return _Random()
    number = number if is_traced(number) else float(np.reshape(number, ()))
    if name == "mul":
        return _Law(law.mean * number, law.std * abs(number), law.gaussian)
    if name == "div" and first:
        return _Law(law.mean / number, law.std / abs(number), law.gaussian)
    if name in ("add", "sub"):
        sign = -1 if name == "sub" else 1
        mean = law.mean + sign * number if first else number + sign * law.mean
        return law._replace(mean=mean)
    return _Random()


def _truncated(low, high):
    from scipy import stats

    law = stats.truncnorm(low, high)
    return _Law(float(law.mean()), float(law.std()), False)
