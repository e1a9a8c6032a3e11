"""Loops over time with one program a step: second moments over pairs of times, one step traced for all of them.

A step ``h_t = F(h_(t-1), x_t)`` in which h_(t-1) is seen through weights only makes the moments of ``(h_t, h'_s)`` a
function of those of ``(h_(t-1), h'_(s-1))`` and of the variances at the two times: nothing else of the past is needed,
for fields behind weights are new Gaussians (Yang 2020, Tensor Programs II, section on RNNs).  So all pairs of times
follow from one step, applied along a scan over t to all s at once; equal times alone (the last state) from a scan.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from widelimit.fields._node import Const, Loop, Mat, Node, State, Vec
from widelimit.fields._placing import Tie, place_x, place_y

__all__ = ["Given", "Recurrence", "direct_sources", "given_pair", "loop_rule", "mean_of_loop"]


@dataclasses.dataclass(eq=False)
class Recurrence:
    """One loop on one input.

    program: equal for two loops that do the same with the same parameters.  step: ``(covariance, side, carried, outer,
    inputs) -> nodes``, the outputs after one step, the carried ones first.  inputs: arrays of the input by step, (T,
    ...).  initial: what is carried at first.  outer: fields from before the loop, and whether they have a first axis of
    time.  outputs: shape and whether Gaussian, of each.  sources: keys of the parameters that outputs depend on other
    than through weights.  unrolled: the same output as a graph without a loop.
    """

    program: Any
    step: Callable
    inputs: Any
    initial: list[Node]
    outer: list[tuple[Node, bool]]
    length: int
    outputs: list[tuple[tuple[int, ...], bool]]
    sources: frozenset
    unrolled: Callable[[int, bool], Node]

    @property
    def carried(self) -> int:
        """How many outputs are handed on to the next step."""
        return len(self.initial)

    def states(self, side: int) -> tuple[list[State], list[State]]:
        """What the step sees of one input: carried and outer values."""
        carried = [State(side, ("carried", i), *self.outputs[i]) for i in range(self.carried)]
        outer = [
            State(side, ("outer", i), node.shape[timed:], node.gaussian) for i, (node, timed) in enumerate(self.outer)
        ]
        return carried, outer


class Given:
    """Moments of the States of one step: arrays over pairs of positions, all untied, by kind and names."""

    def __init__(self, pairs: dict, means: dict):
        self.pairs, self.means = pairs, means

    def pair(self, kind: str, X: State, Y: State, tie: Tie):
        """The moment put in place; None: not known (a gap), or 0."""
        value, turned = self.pairs.get((kind, X.side, X.name, Y.side, Y.name)), False
        if value is None:
            value, turned = self.pairs.get((kind, Y.side, Y.name, X.side, X.name)), True
        if value is None:
            return None
        nx, ny = len(X.shape), len(Y.shape)
        if turned:
            value = jnp.transpose(value, [*range(ny, ny + nx), *range(ny)])
            value = -value if kind == "r" else value
        names = [chr(97 + i) for i in range(nx + ny)]
        for i, j in enumerate(tie):
            if j is not None:
                names[nx + i] = names[j]
        out = names[:nx] + [names[nx + i] for i, j in enumerate(tie) if j is None]
        return jnp.einsum("".join(names) + "->" + "".join(out), value)


def given_pair(cov, kind: str, X: State, Y: State, tie: Tie):
    """What a Covariance answers for two States."""
    if kind != "gap":
        return cov.given.pair(kind, X, Y, tie)
    found = tuple(cov.given.pair(k, X, Y, tie) for k in ("m", "p", "r"))
    return None if any(v is None for v in found) else found


def _full(value, X: Node, Y: Node):
    """An array over all pairs of positions, also where it was a number or a structural zero."""
    shape = (*X.shape, *Y.shape)
    return jnp.zeros(shape) if value is None else jnp.broadcast_to(jnp.asarray(value), shape)


def _moments(cov, first: list[Node], second: list[Node], gaps: bool) -> dict:
    """K, T and gaps of all pairs of outputs, (kind, i, j)."""
    out = {}
    for i, X in enumerate(first):
        for j, Y in enumerate(second):
            apart = (None,) * len(Y.shape)
            for kind in ("K", "T"):
                out[kind, i, j] = _full(cov.pair(kind, X, Y, apart), X, Y)
            gap = cov.gap(X, Y, apart) if gaps else None
            if gap is not None:
                out.update({(k, i, j): _full(v, X, Y) for k, v in zip(("m", "p", "r"), gap, strict=True)})
    return out


def _named(moments: dict, sides: tuple[int, int], what: str) -> dict:
    return {(kind, sides[0], (what, i), sides[1], (what, j)): v for (kind, i, j), v in moments.items()}


def _named_means(side: int, what: str, means: list) -> dict:
    return {(side, (what, i)): m for i, m in enumerate(means)}


def _outer_moments(cov, A: Recurrence, B: Recurrence, tied: bool) -> dict:
    """Moments of outer fields, (kind, i, j): (T, S, ...) over pairs of times, or (T, ...) of equal ones (`tied`)."""
    out = {}
    for i, (X, timed) in enumerate(A.outer):
        for j, (Y, timed2) in enumerate(B.outer):
            tie: Tie = (None,) * len(Y.shape)
            together = tied and timed and timed2
            tie = (0, *tie[1:]) if together else tie
            gap = cov.gap(X, Y, tie)
            found = {"K": cov.pair("K", X, Y, tie), "T": cov.pair("T", X, Y, tie)}
            found.update(zip(("m", "p", "r"), gap, strict=True) if gap is not None else ())
            for kind, value in found.items():
                shape = (*X.shape, *(Y.shape[1:] if together else Y.shape))
                value = jnp.zeros(shape) if value is None else jnp.broadcast_to(jnp.asarray(value), shape)
                out[kind, i, j] = _timed(value, X, timed, timed2, A.length, B.length, tied)
    return out


def _timed(value, X, timed, timed2, T, S, tied):
    """Axes of time put first, and added where a field has none."""
    if not timed:
        value = jnp.expand_dims(value, 0)
    nx = len(X.shape) + (not timed)
    if tied:
        if timed2 and not timed:
            value = jnp.moveaxis(value, nx, 0)[:, 0]
        return jnp.broadcast_to(value, (T, *value.shape[1:]))
    value = jnp.moveaxis(value, nx, 1) if timed2 else jnp.expand_dims(value, 1)
    return jnp.broadcast_to(value, (T, S, *value.shape[2:]))


def _means_of(cov, nodes: list[Node]) -> list:
    found = [cov.mean(node) for node in nodes]
    return [jnp.broadcast_to(jnp.asarray(0.0 if m is None else m), n.shape) for m, n in zip(found, nodes, strict=True)]


@dataclasses.dataclass(eq=False)
class _Single:
    """Of one loop: moments at equal times, and means; by step from 0 (initial) on where they are carried."""

    carried: dict  # (kind, i, j): (T + 1, ...)
    outputs: dict  # (kind, i, j): (T, ...)
    means: list  # (T + 1, ...) of the carried ones
    output_means: list  # (T, ...)
    outer: dict  # (kind, i, j): (T, ...)
    outer_means: list  # (T, ...)


def _own(moments: dict) -> dict:
    """Of one input with itself, K is all that is asked for; the rest is its own gap."""
    return {key: v for key, v in moments.items() if key[0] in ("K", "T")}


def single(cov, A: Recurrence) -> _Single:
    """The moments of a loop's values at one time each: needed wherever it meets anything."""
    known = cov.loops.get(id(A))
    if known is not None:
        return known
    outer = _own(_outer_moments(cov, A, A, tied=True))
    outer_means = [
        jnp.broadcast_to(m if timed else m[None], (A.length, *(m.shape[1:] if timed else m.shape)))
        for m, (_, timed) in zip(_means_of(cov, [n for n, _ in A.outer]), A.outer, strict=True)
    ]
    start = _own(_moments(cov, A.initial, A.initial, False)), _means_of(cov, A.initial)

    def step(state, now):
        (moments, means), (inputs, outer_now, outer_means_now) = state, now
        inner = cov.inside(Given(
            {**_named(moments, (0, 0), "carried"), **_named(outer_now, (0, 0), "outer")},
            {**_named_means(0, "carried", means), **_named_means(0, "outer", outer_means_now)},
        ))  # fmt: skip
        nodes = A.step(inner, 0, *A.states(0), inputs)
        new, new_means = _own(_moments(inner, nodes, nodes, False)), _means_of(inner, nodes)
        new, errors = _like(new, moments), inner.approximate.worst()
        kept = {k: v for k, v in new.items() if max(k[1:]) < A.carried}
        return (kept, _like(new_means[: A.carried], means)), (new, new_means, errors)

    _, (outputs, output_means, errors) = jax.lax.scan(step, start, (A.inputs, outer, outer_means))
    for (what, figure), error in errors.items():
        cov.approximate.note(what, figure, lambda error=error: (error,))
    carried = {k: jnp.concatenate([v[None], outputs[k]]) for k, v in start[0].items()}
    means = [jnp.concatenate([m[None], o]) for m, o in zip(start[1], output_means, strict=False)]
    found = _Single(carried, outputs, means, list(output_means), outer, outer_means)
    cov.loops[id(A)] = found
    cov.keep(A)
    return found


def _like(new, old):
    """Of the type of the state it takes the place of."""
    dtype = jnp.result_type(*jax.tree.leaves(old), jnp.float32)
    return jax.tree.map(lambda a: jnp.asarray(a, dtype), new)


def together(cov, A: Recurrence, B: Recurrence, tied: bool) -> dict:
    """Moments of all pairs of outputs, (kind, i, j): (T, S, ...), or of equal times (T, ...)."""
    key = (id(A), id(B), tied)
    if key not in cov.loops:
        cov.loops[key] = (_equal_times if tied else _all_times)(cov, A, B)
        cov.keep((A, B))
    return cov.loops[key]


class _Step:
    """One step of two loops at once: new moments from those of the step before."""

    def __init__(self, cov, A: Recurrence, B: Recurrence):
        self.cov, self.A, self.B = cov, A, B

    def __call__(self, cross, cross_outer, first, second) -> dict:
        """first, second: (carried, carried means, outer, outer means, inputs) of each side."""
        pairs = {**_named(cross, (0, 1), "carried"), **_named(cross_outer, (0, 1), "outer")}
        means = {}
        for side, (carried, carried_means, outer, outer_means, _) in enumerate((first, second)):
            pairs.update(_named(carried, (side, side), "carried"))
            pairs.update(_named(outer, (side, side), "outer"))
            means.update(_named_means(side, "carried", carried_means))
            means.update(_named_means(side, "outer", outer_means))
        inner = self.cov.inside(Given(pairs, means))
        x = self.A.step(inner, 0, *self.A.states(0), first[-1])
        y = self.B.step(inner, 1, *self.B.states(1), second[-1])
        return _moments(inner, x, y, gaps=True)


def _sides(cov, A: Recurrence):
    """What a step sees of one side, by step: states before it, outer fields and inputs at it."""
    own = single(cov, A)
    before = {k: v[:-1] for k, v in own.carried.items()}, [m[:-1] for m in own.means]
    return (*before, own.outer, own.outer_means, A.inputs)


def _known(cov, A: Recurrence, B: Recurrence, step: Callable, start: dict, outer) -> dict:
    """What the step keeps of the moments at the start: a gap that it cannot give is not handed on either."""
    first, second = (jax.tree.map(lambda a: a[0], _sides(cov, X)) for X in (A, B))
    while True:
        found = jax.eval_shape(lambda s: step(s, outer, first, second), start)
        kept = {k: v for k, v in start.items() if k in found}
        if len(kept) == len(start):
            return kept
        start = kept


def _equal_times(cov, A: Recurrence, B: Recurrence) -> dict:
    step, outer = _Step(cov, A, B), _outer_moments(cov, A, B, tied=True)
    start = _moments(cov, A.initial, B.initial, True)
    start = _known(cov, A, B, step, start, jax.tree.map(lambda a: a[0], outer))

    def body(state, now):
        new = _like(step(state, *now), state)
        return {k: new[k] for k in state}, new

    return jax.lax.scan(body, start, (outer, _sides(cov, A), _sides(cov, B)))[1]


def _all_times(cov, A: Recurrence, B: Recurrence) -> dict:
    """Row after row of the table over (t, s): row t at s from row t - 1 at s - 1."""
    step, outer = _Step(cov, A, B), _outer_moments(cov, A, B, tied=False)
    corner = _moments(cov, A.initial, B.initial, True)
    corner = _known(cov, A, B, step, corner, jax.tree.map(lambda a: a[0, 0], outer))
    a, b = single(cov, A), single(cov, B)
    top = {k: _edge(k, corner[k], a, b, along=1) for k in corner}  # (S + 1, ...): initial of A with B at each time
    side = {k: _edge(k, corner[k], a, b, along=0) for k in corner}  # (T + 1, ...)

    def body(row, now):
        outer_now, first, edge = now
        new = jax.vmap(step, (0, 0, None, 0))({k: v[:-1] for k, v in row.items()}, outer_now, first, _sides(cov, B))
        new = _like(new, row)
        return {k: jnp.concatenate([edge[k][None], new[k]]) for k in row}, new

    edges = {k: v[1:] for k, v in side.items()}
    return jax.lax.scan(body, top, (outer, _sides(cov, A), edges))[1]


def _edge(key, corner, a: _Single, b: _Single, along: int):
    """Moments of what one loop begins with and the other carries at each time: their means are all they share."""
    kind, i, j = key
    first, second = (a.means[i][:1], b.means[j]) if along else (a.means[i], b.means[j][:1])
    nx, ny = first.ndim - 1, second.ndim - 1
    left = first.reshape(first.shape + (1,) * ny)
    right = second.reshape(second.shape[:1] + (1,) * nx + second.shape[1:])
    K = left * right
    if kind == "T":
        value = jnp.zeros_like(K)
    elif kind == "K":
        value = K
    else:
        v1, v2 = (_variances(s, n, i == 0, along) for i, (s, n) in enumerate(((a, i), (b, j))))
        d1 = jnp.sqrt(v1).reshape(v1.shape + (1,) * ny)
        d2 = jnp.sqrt(v2).reshape(v2.shape[:1] + (1,) * nx + v2.shape[1:])
        s = d1 * d2
        value = {"m": jnp.maximum(s - K, 0), "p": jnp.maximum(s + K, 0), "r": d1 - d2}[kind]
    return jnp.concatenate([jnp.broadcast_to(corner, value.shape[1:])[None], value[1:]])


def _variances(own: _Single, i: int, first: bool, along: int):
    """E[h_i^2] at each time, or at the first alone."""
    v = own.carried["K", i, i]
    n = (v.ndim - 1) // 2
    v = jnp.diagonal(v.reshape(v.shape[0], math.prod(v.shape[1 : 1 + n]), -1), axis1=1, axis2=2).reshape(
        v.shape[: 1 + n]
    )
    return v[:1] if first == bool(along) else v


def loop_rule(cov, kind: str, X: Node, Y: Node, tie: Tie):
    """K, T or gap of a loop's output and another field."""
    nx = len(X.shape)
    if not isinstance(X, Loop) or not isinstance(Y, Loop) or X.recurrence.program != Y.recurrence.program:
        return _with_other(cov, kind, X, Y, tie)
    A, B = X.recurrence, Y.recurrence
    ends = X.last and Y.last and A.length == B.length
    shared = not X.last and not Y.last and tie[0] == 0 and A.length == B.length
    apart = (X.last or 0 not in tie) and (Y.last or tie[0] is None)
    if not (ends or shared or apart):
        return _with_other(cov, kind, X, Y, tie)
    tied = ends or shared
    table = together(cov, A, B, tied)
    kinds = ("m", "p", "r") if kind == "gap" else (kind,)
    if any((k, X.index, Y.index) not in table for k in kinds):
        return None
    found = []
    for k in kinds:
        value = table[k, X.index, Y.index]  # times, positions of X, positions of Y
        if ends:
            value = value[-1]
        elif not tied:
            # axes of time: X's first, Y's before its positions
            value = jnp.moveaxis(value, 1, 1 + len(A.outputs[X.index][0]))
            value = value[-1] if X.last else value
            value = jnp.take(value, B.length - 1, axis=nx) if Y.last else value
        found.append(_placed(value, X, Y, tie, tied and not ends))
    return tuple(found) if kind == "gap" else found[0]


def _placed(value, X: Node, Y: Node, tie: Tie, shared_time: bool):
    """From (X's axes, Y's axes but a shared axis of time) to those of the tie."""
    nx = len(X.shape)
    names = [chr(97 + i) for i in range(nx + len(Y.shape))]
    own = names[:nx] + names[nx + shared_time :]
    for i, j in enumerate(tie):
        if j is not None:
            old, names[nx + i] = names[nx + i], names[j]
            own = [names[j] if n == old else n for n in own]
    out = names[:nx] + [names[nx + i] for i, j in enumerate(tie) if j is None]
    return jnp.einsum("".join(own) + "->" + "".join(out), value)


def mean_of_loop(cov, X: Loop):
    """``E[X]`` over time, or after the last step."""
    mean = single(cov, X.recurrence).output_means[X.index]
    return mean[-1] if X.last else mean


def direct_sources(node: Node) -> set:
    """Keys of parameters that a field depends on other than through weights: fields without a common one are apart."""
    if isinstance(node, Mat):
        return {node.key[0][0]}
    if isinstance(node, Vec):
        return {node.key[0]}
    if isinstance(node, Loop):
        return set(node.recurrence.sources)
    parts = getattr(node, "factors", None) or getattr(node, "leaves", None) or []
    parts = [*parts, *(n for _, n in getattr(node, "terms", []))]
    parts += [p for p in (getattr(node, "leaf", None), getattr(node, "child", None)) if p is not None]
    found: set = set()
    for part in parts:
        found |= direct_sources(part)
    return found


def _with_other(cov, kind, X, Y, tie):
    """Of fields of other parameters means are all that is shared; else the loop is written out."""
    if isinstance(X, Const) or isinstance(Y, Const) or not direct_sources(X) & direct_sources(Y):
        if kind != "K":
            return None
        mx, my = cov.mean(X), cov.mean(Y)
        return None if mx is None or my is None else place_x(mx, tie) * place_y(my, tie, len(X.shape))
    X, Y = (n.recurrence.unrolled(n.index, n.last) if isinstance(n, Loop) else n for n in (X, Y))
    return cov.gap(X, Y, tie) if kind == "gap" else cov.pair(kind, X, Y, tie)
