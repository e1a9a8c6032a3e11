"""Reads a jaxpr, traced at two widths, into nodes: one rule per primitive, nothing guessed."""

from __future__ import annotations

import contextlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex_core

from widelimit._equations import needed
from widelimit._precision import at_once, enable_x64, is_traced
from widelimit.fields import Covariance, Noise, UnknownLimitError
from widelimit.trace._flat import on_parts
from widelimit.trace._heads import each_head
from widelimit.trace._rules import RULES, Equation, paired_equation
from widelimit.trace._values import Det, Field, Flat, Heads, Weight

__all__ = ["Interpreter", "available"]


class Interpreter:
    """Runs a pair of jaxprs on one input; `covariance` supplies the moments that become deterministic.

    fresh: masks are drawn anew for this input; else a mask depends on its key only, and two inputs share it.
    """

    def __init__(self, covariance: Covariance, dtype, log: list | None = None, fresh: bool = True):
        self.covariance, self.dtype, self.log = covariance, dtype, log
        self.fresh = object() if fresh else None

    def run(self, jaxpr, jaxpr2, consts, values):
        """Values of the outputs, given those of the constants and inputs."""
        env: dict = {}
        shapes: dict = {}

        def write(var, var2, value):
            env[var] = value
            shapes[var] = (tuple(var.aval.shape), tuple(var2.aval.shape))

        def read(atom, atom2):
            if isinstance(atom, jex_core.Literal):
                return Det(self.cast(atom.val)), (np.shape(atom.val), np.shape(atom2.val))
            return env[atom], shapes[atom]

        for var, var2, value in zip(jaxpr.constvars, jaxpr2.constvars, consts, strict=True):
            write(var, var2, value)
        for var, var2, value in zip(jaxpr.invars, jaxpr2.invars, values, strict=True):
            write(var, var2, value)
        if len(jaxpr.eqns) != len(jaxpr2.eqns):
            raise UnknownLimitError(
                "the program has different operations at two widths, so its limit cannot be read. Remedy: let the "
                "code not branch on the width."
            )
        for i in needed(jaxpr):
            eqn, eqn2 = jaxpr.eqns[i], jaxpr2.eqns[i]
            ins = [read(a, b) for a, b in zip(eqn.invars, eqn2.invars, strict=True)]
            equation = paired_equation(eqn, eqn2, [s for _, s in ins])
            outs = self.apply(equation, [v for v, _ in ins])
            for var, var2, value in zip(eqn.outvars, eqn2.outvars, outs, strict=True):
                write(var, var2, value)
        return [read(a, b)[0] for a, b in zip(jaxpr.outvars, jaxpr2.outvars, strict=True)]

    def apply(self, equation: Equation, values: list) -> list:
        """Outputs of one equation; constants are computed at once, so that numbers stay known while tracing."""
        if all(isinstance(v, Det) and not is_traced(v.array) for v in values):
            with jax.ensure_compile_time_eval():
                return self._apply(equation, values)
        return self._apply(equation, values)

    def _apply(self, equation: Equation, values: list) -> list:
        function = RULES.get(equation.name)
        deterministic = all(isinstance(v, Det) for v in values)
        if (
            deterministic
            and not any(map(any, map(equation.wide_in, range(len(values)))))
            and (not any(any(equation.wide_out(i)) for i in range(len(equation.out_shapes))))
        ) and (function is None or not getattr(function, "structural", False)):
            return self._evaluate(equation, values)
        if function is None:
            kinds = ", ".join(_kind(v) for v in values)
            raise equation.refuse(f"no rule gives its infinite-width limit (operands: {kinds}).")
        if any(isinstance(v, Flat) for v in values) and not getattr(function, "takes_flat", False):
            if not getattr(function, "elementwise", False):
                raise equation.refuse(
                    "axes (positions, heads, or groups of channels that have something in common) are merged with the "
                    "width there.",
                    "Remedy: do it before the reshape, or contract the merged axis with a parameter first.",
                )
            out = on_parts(self, equation, values, function)
        elif any(isinstance(v, Heads) for v in values) and not getattr(function, "takes_heads", False):
            if not getattr(function, "elementwise", False):
                raise equation.refuse(
                    "it acts on a field with two wide axes, of infinitely many heads and of their channels.",
                    "Remedy: contract both at once with a parameter, einsum('hpd,hdc->pc', y, O).",
                )
            out = each_head(self, equation, values, function)
        else:
            out = function(self, equation, values)
        outs = list(out) if isinstance(out, list) else [out]
        if self.log is not None:
            self.log.append((equation, outs))
        return outs

    def _evaluate(self, equation, values):
        arrays = [v.array for v in values]
        params = {
            k: available(v) if k in ("new_dtype", "dtype", "index_dtype") else v for k, v in equation.params.items()
        }
        if equation.name == "convert_element_type" and jnp.issubdtype(equation.params["new_dtype"], jnp.floating):
            return [Det(jnp.asarray(arrays[0]).astype(self.dtype))]
        arrays = [
            jnp.broadcast_to(a, shape) if not _is_key(a) and jnp.shape(a) != shape else a
            for a, (shape, _) in zip(arrays, equation.in_shapes, strict=True)
        ]
        if all(not _is_key(a) for a in arrays) and equation.primitive.name not in (
            "random_wrap",
            "random_seed",
        ):
            arrays = as_arrays(arrays)
        if params.get("preferred_element_type") is not None:
            params["preferred_element_type"] = jnp.result_type(*arrays)
        # the program is traced with 64-bit types, and a seed is one of its integers
        with enable_x64() if equation.name == "random_seed" else contextlib.nullcontext():
            out = equation.primitive.bind(*arrays, **params)
        outs = out if equation.primitive.multiple_results else [out]
        return [Det(self.cast(o)) for o in outs]

    def cast(self, value):
        """Floating-point arrays in the working precision; numbers stay Python numbers, exact until they are used."""
        if isinstance(value, float):
            return float(value)  # JAX's literals are floats with a dtype
        if isinstance(value, np.ndarray | np.generic) and np.ndim(value) == 0 and value.dtype.kind in "fiub":
            return value.item()
        if hasattr(value, "dtype") and not _is_key(value) and jnp.issubdtype(value.dtype, jnp.floating):
            with at_once(value):
                return jnp.asarray(value).astype(self.dtype)
        return value

    def noise(self, key, keep, shape, n) -> Noise | None:
        """The mask drawn with a random key; None where the same key has drawn another kind of mask."""
        data = np.asarray(jax.random.key_data(key) if _is_key(key) else key)
        source = (data.tobytes(), self.fresh)
        kind = (None if is_traced(keep) else float(keep), shape, n)
        known, node = self.covariance.noises.setdefault(source, (kind, Noise(source, keep, keep, shape, 0)))
        return node if known == kind else None

    def field_mean(self, field: Field):
        """``sum over blocks of n E[X]`` and the finite shape: a sum over the wide axis."""
        total: Any = None
        for node, n in field.blocks:
            value = self.covariance.mean(node)
            if value is not None:
                value = float(n) * jnp.asarray(value, self.dtype)
                total = value if total is None else total + value
        return np.zeros(field.shape) if total is None else total


def as_arrays(values: list) -> list:
    """Operands as arrays; a whole number has the type of the integers beside it (32-bit tokens and a literal)."""
    integers = [v.dtype for v in values if hasattr(v, "dtype") and jnp.issubdtype(v.dtype, jnp.integer)]
    return [
        jnp.asarray(v, integers[0]) if integers and type(v) is int else jnp.asarray(v)  # not bool
        for v in values
    ]


def available(dtype: Any) -> Any:
    """The type at hand: programs are traced in 64 bits, and run in those of the input."""
    if dtype is None or jnp.issubdtype(dtype, jax.dtypes.extended):
        return dtype
    return jax.dtypes.canonicalize_dtype(dtype)


def _is_key(value) -> bool:
    return hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def _kind(value) -> str:
    if isinstance(value, Det):
        return "deterministic"
    return "parameter" if isinstance(value, Weight) else "wide field"
