"""Kernel functions of one pair of inputs."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from widelimit._examples import as_example, described, floating, holds_jax, in_double, in_one_precision, signature
from widelimit._precision import enable_x64, exact_products, is_traced
from widelimit._segments import segmented
from widelimit.fields import Covariance, UnknownLimitError
from widelimit.trace import (
    _calls,
    _contraction,
    _convolution,
    _elementwise,
    _loops,
    _picking,
    _reduction,
    _shape,
)
from widelimit.trace._growth import check_growth, growth_lines
from widelimit.trace._interpreter import Interpreter
from widelimit.trace._outputs import over_outputs
from widelimit.trace._program import Program
from widelimit.trace._uses import Uses
from widelimit.trace._values import Det, Field, Flat, Heads, Weight, as_field

__all__ = ["Kernel", "Kernels", "evaluate"]

_RULE_FILES = (
    _calls,
    _contraction,
    _convolution,
    _elementwise,
    _loops,
    _picking,
    _reduction,
    _shape,
)  # importing them registers the rules


class Kernels(NamedTuple):
    """Both kernels of a network."""

    nngp: Any
    ntk: Any


def _run(program: Program, closed, closed2, covariance, x, log=None, kinds: tuple[str, ...] = ()) -> Field:
    """The network's output as a field; the kernels in `kinds` must have a limit (`explain` tells, and refuses none)."""
    interpreter = Interpreter(covariance, working_dtype(x), log, program.fresh_noise)
    jaxpr, jaxpr2 = closed.jaxpr, closed2.jaxpr
    wide = [
        tuple(a != b for a, b in zip(s, t, strict=True)) for s, t in zip(program.shapes, program.shapes2, strict=True)
    ]
    weights = [
        Weight(i, p, tuple(range(len(s))), (0,) * len(s), s, s, w, Uses())
        for i, (p, s, w) in enumerate(zip(program.priors, program.shapes, wide, strict=True))
    ]
    consts = [Det(interpreter.cast(c)) for c in closed.consts]
    outs = interpreter.run(jaxpr, jaxpr2, consts, [*weights, *map(Det, jax.tree.leaves(x))])
    if log is not None:
        log.append(("growth", growth_lines(program, closed, closed2)))
    elif kinds:
        check_growth(program, closed, closed2, kinds)
    if len(outs) != 1:
        raise UnknownLimitError(f"the network must return one array, and returns {len(outs)}.")
    out = as_field(outs[0]) if isinstance(outs[0], Weight) else outs[0]
    out = out.field if isinstance(out, Flat) else out  # the mean over outputs is the same
    if isinstance(out, Heads):
        raise UnknownLimitError("the output has an axis of infinitely many heads. Remedy: contract heads and channels.")
    if isinstance(out, Det):
        raise UnknownLimitError("the output does not depend on any Gaussian parameter, so it has no kernel.")
    return out


def evaluate(program: Program, kinds: tuple[str, ...], x1, x2=None, log=None, output: str = "mean"):
    """Kernels (K for "nngp", T for "ntk") of one pair, by `output`; `x2` None: the diagonal."""
    with exact_products():
        closed, closed2 = program.trace(described(x1))
        with _deep_recursion(closed.jaxpr):
            return _evaluate(program, kinds, x1, x2, log, closed, closed2, output)


@contextlib.contextmanager
def _deep_recursion(jaxpr):
    """The covariances of a deep network are pulled recursively, some 20 Python calls a line of the program."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, 2000 + 100 * _lines(jaxpr)))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def _lines(jaxpr) -> int:
    total = 0
    for eqn in jaxpr.eqns:
        inner = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
        inner = getattr(inner, "jaxpr", inner)
        total += 1 + (_lines(inner) * eqn.params.get("length", 1) if hasattr(inner, "eqns") else 0)
    return total


def _evaluate(program, kinds, x1, x2, log, closed, closed2, output):
    covariance = Covariance(program.points)
    first = _run(program, closed, closed2, covariance, x1, log, kinds)
    if x2 is None:
        second = first
    else:
        if signature(x2) != signature(x1):
            closed, closed2 = program.trace(described(x2))
        second = _run(program, closed, closed2, covariance, x2)
    names = {"nngp": "K", "ntk": "T"}
    out = [over_outputs(covariance, names[kind], first, second, output, working_dtype(x1)) for kind in kinds]
    if log is not None:
        log.append(("approximate", covariance.approximate))
        log.append(("covariance", covariance))
    return out


def working_dtype(x):
    """The precision of an example: that of its floating-point arrays."""
    floats = [a.dtype for a in jax.tree.leaves(x) if jnp.issubdtype(a.dtype, jnp.floating)]
    return jnp.result_type(*floats) if floats else jnp.result_type(float)


class Kernel:
    """A kernel ``k(x, x')`` of one pair of inputs; ``k.diag(x)`` is ``k(x, x)`` with the noise of dropout shared.

    An input is an array, or a tuple or dict of arrays if the network takes one (a graph: nodes and adjacency).
    JAX arrays (traced or not) in, JAX arrays out, in their precision; NumPy in (or lists), NumPy float64 out, or JAX in
    its default precision where the network's hyperparameters or priors are being traced.
    Booleans (masks) reach the network as they are, and so do integers (tokens) if `keeps_integers`: of functions and
    models, not of `nn` modules, which compute with floating-point numbers (images of integers).
    """

    positive_semidefinite = True  # a covariance, of outputs or of their tangents

    def __init__(
        self, program_for: Callable[[Any], Program], kinds: tuple[str, ...], output: str = "mean",
        keeps_integers: bool = True,
    ):  # fmt: skip
        self._program_for, self.kinds, self.output = program_for, kinds, output
        self.keeps_integers = keeps_integers
        self._compiled: dict = {}

    def __call__(self, x1, x2):
        """Kernel of the pair (x1, x2): a scalar, (O,) or (O, O) by `output`."""
        return self._of(x1, x2)

    def diag(self, x):
        """Kernel of x with itself."""
        return self._of(x)

    def _of(self, *xs):
        xs = [as_example(x) if self.keeps_integers else floating(as_example(x)) for x in xs]
        if holds_jax(xs):
            return self._packed(self._values(*in_one_precision(*xs)))
        with enable_x64():
            values = self._values(*map(in_double, xs))
        if any(map(is_traced, values)):
            return self._packed(self._values(*in_one_precision(*xs)))
        return self._packed([np.asarray(v) for v in values])

    def _values(self, *xs):
        """Vectors operation by operation, which the next network finds compiled; with axes of positions a program."""
        arrays = jax.tree.leaves(xs)
        if all(a.ndim < 2 for a in arrays) or any(map(is_traced, arrays)):
            return self._evaluate(*xs)
        form = tuple(map(signature, xs))
        if form not in self._compiled:
            self._compiled[form] = segmented(self._evaluate, *xs)
        return self._compiled[form](*xs)

    def _evaluate(self, x1, x2=None):
        return evaluate(self._program_for(described(x1)), self.kinds, x1, x2, output=self.output)

    def _packed(self, values):
        return Kernels(*values) if len(self.kinds) == 2 else values[0]
