"""Primitives that hold another program: inlined."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex_core

from widelimit._precision import enable_x64, is_traced
from widelimit.trace._rules import rule
from widelimit.trace._values import Det, Field

__all__ = ["inner_program"]


def inner_program(params):
    """(jaxpr, constants) that a primitive holds; None where it holds none."""
    for name in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        if name in params:
            inner = params[name]
            return getattr(inner, "jaxpr", inner), list(getattr(inner, "consts", []))
    return None


@rule("jit", "pjit", "closed_call", "core_call", "remat", "checkpoint", "custom_jvp_call", "custom_vjp_call",
      "custom_vjp_call_jaxpr", "custom_lin", structural=True, takes_flat=True, takes_heads=True)  # fmt: skip
def _inline(interpreter, equation, values):
    if equation.params.get("name") == "_bernoulli":
        return _bernoulli(interpreter, equation, values)
    jaxpr, consts = inner_program(equation.params)  # type: ignore[misc]
    if len(values) == 1 and _cuts_bits(jaxpr) and _is_gaussian(jaxpr, consts):
        return _gaussian(interpreter, equation, values)
    jaxpr2, _ = inner_program(equation.params2)  # type: ignore[misc]
    consts = [Det(interpreter.cast(c)) for c in consts]
    return interpreter.run(jaxpr, jaxpr2, consts, values)


def _cuts_bits(jaxpr) -> bool:
    return any(eqn.primitive.name == "bitcast_convert_type" for eqn in jaxpr.eqns)


def _is_gaussian(jaxpr, consts) -> bool:
    """Whether the program is ``exp(-z^2)`` by its values."""
    z = np.linspace(-4.0, 4.0, 33)
    with enable_x64(), jax.ensure_compile_time_eval():
        try:
            (value,) = jex_core.jaxpr_as_fun(jex_core.ClosedJaxpr(jaxpr, consts))(jnp.asarray(z))
        except (TypeError, ValueError):
            return False
        return np.shape(value) == z.shape and np.allclose(value, np.exp(-(z**2)), rtol=1e-12, atol=0)


def _gaussian(interpreter, equation, values):
    """``exp(-z^2)`` in the derivative of erf, which JAX since 0.12 computes by cutting the bits of z in two."""
    with enable_x64():
        programs = [
            jax.make_jaxpr(lambda z: jnp.exp(-(z * z)))(jax.ShapeDtypeStruct(s, jnp.float64))
            for s in equation.in_shapes[0]
        ]
    return interpreter.run(programs[0].jaxpr, programs[1].jaxpr, [], values)


def _bernoulli(interpreter, equation, values):
    """A mask, ``E[mask] = E[mask^2] = keep``; masks drawn with one key are the same mask."""
    keep = values[1].array if len(values) > 1 else 0.5
    wide = equation.wide_out()
    if sum(wide) > 1:
        raise equation.refuse("a mask with two wide axes.")
    if not isinstance(values[0], Det) or is_traced(values[0].array):
        raise equation.refuse(
            "the random key of a mask depends on the input or the parameters.",
            "Remedy: use nn.Dropout, whose mask is fresh for each input.",
        )
    axis = wide.index(True) if any(wide) else None
    shape = tuple(n for i, n in enumerate(equation.out_shapes[0][0]) if i != axis)
    n = 1 if axis is None else equation.out_shapes[0][0][axis]
    node = interpreter.noise(values[0].array, jnp.reshape(jnp.asarray(keep, interpreter.dtype), ()), shape, n)
    if node is None:
        raise equation.refuse(
            "two masks of different shapes or probabilities are drawn with the same random key.",
            "Remedy: jax.random.split the key.",
        )
    return [Field(((node, n),), axis)]
