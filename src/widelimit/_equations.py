"""Programs run equation by equation, some of them by other functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core as jex_core

__all__ = ["applied", "bound", "inlined", "loop_sizes", "needed", "replaced"]

# A program inside the equation is run as part of the one around it.
_INLINED = {"jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"}

Rule = Callable[[Any], Callable[..., list] | None]


def inlined(eqn) -> jex_core.ClosedJaxpr | None:
    """The program inside an equation that is run as part of the one around it."""
    if eqn.primitive.name not in _INLINED:
        return None
    return _closed(eqn.params.get("jaxpr", eqn.params.get("call_jaxpr")))


def applied(jaxpr, eqn, values) -> list:
    """The equation by itself; one with functions inside as a program of one equation, which keeps their rules."""
    if not _holds_programs(eqn.params):
        return bound(eqn, values)
    given = {v: a for v, a in zip(eqn.invars, values, strict=True) if not isinstance(v, jex_core.Literal)}
    alone = jaxpr.replace(constvars=[], invars=list(given), outvars=eqn.outvars, eqns=[eqn])
    return list(jex_core.jaxpr_as_fun(jex_core.ClosedJaxpr(alone, []))(*given.values()))


def bound(eqn, values) -> list:
    """What a primitive without functions inside gives."""
    out = eqn.primitive.bind(*values, **eqn.params)
    return list(out) if eqn.primitive.multiple_results else [out]


def needed(jaxpr) -> list[int]:
    """Numbers of the equations that the outputs depend on, and of those with effects."""
    wanted = {v for v in jaxpr.outvars if not isinstance(v, jex_core.Literal)}
    kept = []
    for i, eqn in reversed(list(enumerate(jaxpr.eqns))):
        if eqn.effects or any(v in wanted for v in eqn.outvars):
            kept.append(i)
            wanted.update(v for v in eqn.invars if not isinstance(v, jex_core.Literal))
    return kept[::-1]


def loop_sizes(params) -> tuple[int, int]:
    """How many constants and carried values a `scan` has."""
    if "num_carry" in params:
        return params["num_consts"], params["num_carry"]
    constants, carried, _ = (len(list(part)) for part in params["ft_in"].elts)  # since JAX 0.12
    return constants, carried


def replaced(f: Callable, rule: Rule) -> Callable:
    """f of arrays and pytrees of them, with some equations of its program run by other functions.

    rule: of an equation, the function of its inputs that gives its outputs, or None to leave it.  Those in loops and
    branches are replaced too; those inside functions with derivatives of their own are not, nor those that reach the
    result through `stop_gradient` only.  An f that looks at values (``if x > 0``) cannot be traced, and is left as it
    is.
    """

    def g(*arguments):
        try:
            closed, shape = jax.make_jaxpr(f, return_shape=True)(*arguments)
        except (jax.errors.JAXTypeError, jax.errors.JAXIndexError):  # of those that ask for values
            return f(*arguments)
        leaves = jax.tree.leaves(arguments)
        if _holds(closed.jaxpr, rule):
            found = _run(closed, leaves, rule)
        else:
            found = jex_core.jaxpr_as_fun(closed)(*leaves)
        return jax.tree.unflatten(jax.tree.structure(shape), found)

    return g


def _closed(jaxpr) -> jex_core.ClosedJaxpr:
    return jaxpr if isinstance(jaxpr, jex_core.ClosedJaxpr) else jex_core.ClosedJaxpr(jaxpr, ())


def _holds_programs(params) -> bool:
    items = (i for value in params.values() for i in (value if isinstance(value, tuple | list) else [value]))
    return any(isinstance(i, jex_core.Jaxpr | jex_core.ClosedJaxpr) for i in items)


def _programs_of(eqn) -> list[jex_core.ClosedJaxpr]:
    """The programs inside an equation in which equations are replaced."""
    name, p = eqn.primitive.name, eqn.params
    inner = inlined(eqn)
    if inner is not None:
        return [inner]
    if name == "scan":
        return [p["jaxpr"]]
    if name == "while":
        return [p["body_jaxpr"]]  # the condition has no derivative
    return list(p["branches"]) if name == "cond" else []


def _holds(jaxpr, rule: Rule) -> bool:
    wanted = _with_derivatives(jaxpr)
    return any(
        any(v in wanted for v in e.outvars)
        and (rule(e) is not None or any(_holds(c.jaxpr, rule) for c in _programs_of(e)))
        for e in jaxpr.eqns
    )


def _with_derivatives(jaxpr) -> set:
    """The variables through which the result has derivatives."""
    found = {v for v in jaxpr.outvars if not isinstance(v, jex_core.Literal)}
    for eqn in reversed(jaxpr.eqns):
        if eqn.primitive.name != "stop_gradient" and any(v in found for v in eqn.outvars):
            found.update(v for v in eqn.invars if not isinstance(v, jex_core.Literal))
    return found


def _run(closed: jex_core.ClosedJaxpr, values: Sequence[Any], rule: Rule) -> list[Any]:
    jaxpr = closed.jaxpr
    wanted = _with_derivatives(jaxpr)
    known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*closed.consts, *values], strict=True))
    for eqn in jaxpr.eqns:
        given = [v.val if isinstance(v, jex_core.Literal) else known[v] for v in eqn.invars]
        own = rule(eqn) if any(v in wanted for v in eqn.outvars) else None
        if own is not None:
            out = own(*given)
        elif any(_holds(c.jaxpr, rule) for c in _programs_of(eqn)):
            out = _with_programs(eqn, given, rule)
        else:
            out = applied(jaxpr, eqn, given)
        known |= dict(zip(eqn.outvars, out, strict=True))
    return [v.val if isinstance(v, jex_core.Literal) else known[v] for v in jaxpr.outvars]


def _with_programs(eqn, values: Sequence[Any], rule: Rule) -> list[Any]:
    """An equation with programs inside, in which equations are replaced."""
    name, p = eqn.primitive.name, eqn.params
    programs = _programs_of(eqn)
    if inlined(eqn) is not None:
        return _run(programs[0], values, rule)
    if name == "cond":
        return jax.lax.switch(values[0], [lambda *v, c=c: _run(c, v, rule) for c in programs], *values[1:])
    if name == "while":
        return _loop(eqn, values, lambda v: _run(programs[0], v, rule))
    consts, kept = loop_sizes(p)

    def body(carry, x):
        out = _run(programs[0], [*values[:consts], *carry, *x], rule)
        return out[:kept], out[kept:]

    start, over = list(values[consts : consts + kept]), list(values[consts + kept :])
    carry, made = jax.lax.scan(body, start, over, p["length"], reverse=p["reverse"], unroll=p["unroll"])
    return [*carry, *made]


def _loop(eqn, values: Sequence[Any], body: Callable) -> list[Any]:
    p = eqn.params
    of_condition, of_body = p["cond_nconsts"], p["body_nconsts"]
    for_condition, for_body = values[:of_condition], values[of_condition : of_condition + of_body]
    condition = jex_core.jaxpr_as_fun(p["cond_jaxpr"])

    def going(state):
        return condition(*for_condition, *state)[0]

    def step(state):
        new = body([*for_body, *state])
        if not p["cond_jaxpr"].out_avals[0].shape:
            return new
        on = going(state)  # of loops side by side, as `vmap` makes of one: those that have ended keep their state
        return [
            jax.lax.select(jax.lax.broadcast_in_dim(on, jnp.shape(a), range(on.ndim)), a, b)
            for a, b in zip(new, state, strict=True)
        ]

    return jax.lax.while_loop(lambda state: jnp.any(going(state)), step, list(values[of_condition + of_body :]))
