"""Long programs in pieces: each compiled once, equal pieces shared, run one after the other.

A deep network's kernel is thousands of elementwise operations in a row.  Compiled as one program, XLA fuses across
layers and recomputes shared values, so that both the compiler's time and the run time grow exponentially with depth
(measured on a CPU: 0.1 s for 10 layers, 1.9 s for 15, 102 s for 20).  Cut at the length of the repeated layer, every
layer is the same piece and is compiled once.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.extend import core as jex_core

from widelimit._precision import is_traced

__all__ = ["fenced", "segmented"]

# Operations in one piece, those of inner programs included: about two layers of a ReLU network.
_LONGEST = 1500
_SHORTEST_PERIOD = 8
# Operations in a row that are compared at once.
_RUN = 12


def segmented(function: Callable, *examples: Any) -> Callable:
    """`function` compiled for arrays like the examples: whole if it is short, else in pieces.

    The result takes and returns what `function` does.  Values between pieces are held as arrays and freed after their
    last use.  It is `function` itself where that holds values being traced: pieces are only run forwards, and
    compiled functions would outlive the trace.
    """
    closed, out = jax.make_jaxpr(function, return_shape=True)(*examples)
    if any(map(is_traced, closed.consts)):
        return function
    eqns = closed.jaxpr.eqns
    weights = [_weight(e) for e in eqns]
    if sum(weights) <= _LONGEST:
        return jax.jit(function)
    structure = jax.tree.structure(out)
    pieces = _pieces(closed.jaxpr, _cuts(eqns, weights))

    def run(*arguments):
        env = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
        env.update(zip(closed.jaxpr.invars, jax.tree.leaves(arguments), strict=True))
        for compiled, needed, made, dead in pieces:
            env.update(zip(made, compiled(*(env[v] for v in needed)), strict=True))
            for v in dead:
                del env[v]
        leaves = [v.val if isinstance(v, jex_core.Literal) else env[v] for v in closed.jaxpr.outvars]
        return jax.tree.unflatten(structure, leaves)

    return run


def fenced(function: Callable, *examples: Any) -> Callable:
    """The same for use inside a larger traced program: one program, through whose fences XLA does not fuse.

    Run time is linear in depth as for `segmented`, but equal pieces are compiled each.
    """
    closed, out = jax.make_jaxpr(function, return_shape=True)(*examples)
    eqns = closed.jaxpr.eqns
    weights = [_weight(e) for e in eqns]
    if sum(weights) <= _LONGEST:
        return function
    structure = jax.tree.structure(out)
    parts = _parts(closed.jaxpr, _cuts(eqns, weights))

    def run(*arguments):
        env = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
        env.update(zip(closed.jaxpr.invars, jax.tree.leaves(arguments), strict=True))
        for equations, needed, made, dead in parts:
            values = jax.lax.optimization_barrier([env[v] for v in needed])
            env.update(zip(made, _evaluator(equations, needed, made)(*values), strict=True))
            for v in dead:
                del env[v]
        leaves = [v.val if isinstance(v, jex_core.Literal) else env[v] for v in closed.jaxpr.outvars]
        return jax.tree.unflatten(structure, leaves)

    return run


def _inner(eqn) -> list:
    """The programs inside an equation."""
    found = []
    for value in eqn.params.values():
        for item in value if isinstance(value, tuple | list) else [value]:
            if isinstance(item, jex_core.ClosedJaxpr):
                found.append(item.jaxpr)
            elif isinstance(item, jex_core.Jaxpr):
                found.append(item)
    return found


def _weight(eqn) -> int:
    """Number of operations."""
    return max(1, sum(_weight(e) for jaxpr in _inner(eqn) for e in jaxpr.eqns))


def _cuts(eqns, weights) -> list[int]:
    """Where to cut: at multiples of the period wherever the operations repeat, else at even lengths."""
    codes: dict = {}
    kinds = [(e.primitive.name, tuple(getattr(v.aval, "shape", ()) for v in e.outvars)) for e in eqns]
    runs = [tuple(kinds[i : i + _RUN]) for i in range(len(kinds))]
    sequence = np.array([codes.setdefault(k, len(codes)) for k in runs])
    cuts = {0, len(eqns)}
    for low, high, length in _stretches(sequence, 0, len(eqns)):
        parts = max(1, math.ceil(sum(weights[low:high]) / (high - low) * length / _LONGEST))
        for start in range(low, high, length):
            cuts.update(p for p in (start + length * i // parts for i in range(parts)) if p < high)
    return sorted(cuts)


def _stretches(sequence, low: int, high: int) -> list[tuple[int, int, int]]:
    """(start, end, period) of the stretches between low and high; one that does not repeat has its length as period."""
    found = _longest_repeat(sequence[low:high])
    if found is None:
        return [(low, high, high - low)] if high > low else []
    start, end, shift = low + found[0], low + found[1], found[2]
    return [*_stretches(sequence, low, start), (start, end, shift), *_stretches(sequence, end, high)]


def _longest_repeat(sequence) -> tuple[int, int, int] | None:
    """The longest stretch that repeats itself at least twice, (start, end, period), the shortest of nearly as long."""
    best = None
    for shift in range(_SHORTEST_PERIOD, len(sequence) // 2 + 1):
        same = np.concatenate([[False], sequence[shift:] == sequence[:-shift], [False]])
        edges = np.flatnonzero(same[1:] != same[:-1]).reshape(-1, 2)  # where runs of agreement begin and end
        if not len(edges):
            continue
        i = int(np.argmax(edges[:, 1] - edges[:, 0]))
        start, end = (int(e) for e in edges[i])
        if end - start >= shift and (best is None or end - start > 1.1 * (best[1] - best[0] - best[2])):
            best = (start, end + shift, shift)
    return best


def _pieces(jaxpr, cuts) -> list:
    """(compiled function, variables it needs, variables it makes that are needed later, variables dead after it)."""
    compiled: dict = {}
    out = []
    for eqns, needed, made, dead in _parts(jaxpr, cuts):
        key = _signature(eqns, needed, made)
        if key not in compiled:
            compiled[key] = jax.jit(_evaluator(eqns, needed, made))
        out.append((compiled[key], needed, made, dead))
    return out


def _parts(jaxpr, cuts) -> list:
    """(equations, variables they need, variables they make that are needed later, variables dead after them)."""
    bounds = list(itertools.pairwise(cuts))
    last = {}
    for number, (low, high) in enumerate(bounds):
        for eqn in jaxpr.eqns[low:high]:
            last.update((v, number) for v in eqn.invars if not isinstance(v, jex_core.Literal))
    last.update((v, len(bounds)) for v in jaxpr.outvars if not isinstance(v, jex_core.Literal))
    out = []
    for number, (low, high) in enumerate(bounds):
        eqns = jaxpr.eqns[low:high]
        inside = {v for e in eqns for v in e.outvars}
        read = (v for e in eqns for v in e.invars if not isinstance(v, jex_core.Literal) and v not in inside)
        needed = list(dict.fromkeys(read))
        made = [v for e in eqns for v in e.outvars if last.get(v, -1) > number]
        dead = [v for v in needed if last[v] == number]
        out.append((eqns, needed, made, dead))
    return out


def _signature(eqns, needed, made) -> tuple:
    """Equal for pieces that compute the same from the same kinds of arrays, whatever their variables are called."""
    names = {v: i for i, v in enumerate(needed)}
    rows = []
    for eqn in eqns:
        inputs = tuple(
            ("literal", str(v.val), str(v.aval)) if isinstance(v, jex_core.Literal) else names[v] for v in eqn.invars
        )
        for v in eqn.outvars:
            names[v] = len(names)
        rows.append((eqn.primitive.name, _described(eqn.params), inputs, tuple(str(v.aval) for v in eqn.outvars)))
    return tuple(rows), tuple(str(v.aval) for v in needed), tuple(names[v] for v in made)


def _described(params) -> tuple:
    # functions (the derivative rules of a custom_jvp_call) are left out: pieces are only run forwards
    return tuple((k, str(v)) for k, v in sorted(params.items()) if not callable(v) or hasattr(v, "eqns"))


def _evaluator(eqns, needed, made) -> Callable:
    def piece(*values):
        env = dict(zip(needed, values, strict=True))
        for eqn in eqns:
            arguments = [v.val if isinstance(v, jex_core.Literal) else env[v] for v in eqn.invars]
            env.update(zip(eqn.outvars, _apply(eqn, arguments), strict=True))
        return [env[v] for v in made]

    return piece


def _apply(eqn, arguments) -> list:
    """Outputs of one equation; a function with a derivative rule of its own is run as what it computes."""
    inner = eqn.params.get("call_jaxpr")
    if isinstance(inner, jex_core.ClosedJaxpr):
        return list(jex_core.jaxpr_as_fun(inner)(*arguments))
    out = eqn.primitive.bind(*arguments, **eqn.params)
    return list(out) if eqn.primitive.multiple_results else [out]
