"""Loops (`scan`): over time with one step traced for all pairs of times where that is exact, else written out."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from widelimit._equations import loop_sizes
from widelimit.fields import (
    Axes,
    Const,
    Copies,
    Ew,
    Frozen,
    Given,
    Linear,
    Loop,
    Mat,
    Merge,
    Node,
    Recurrence,
    Split,
    State,
    Sum,
    Take,
    UnknownLimitError,
    Windows,
    direct_sources,
)
from widelimit.trace._calls import inner_program
from widelimit.trace._interpreter import Interpreter
from widelimit.trace._picking import cut
from widelimit.trace._rules import Equation, rule
from widelimit.trace._shape import _reshape, stacked
from widelimit.trace._uses import Uses
from widelimit.trace._values import Det, Field, Weight, as_field

__all__: list[str] = []

# Fewer steps than this are written out: no table over times is smaller.
_FEWEST = 4


@rule("scan", structural=True)
def _scan(interpreter, equation, values):
    if equation.params["length"] != equation.params2["length"]:
        raise equation.refuse("the number of steps of the loop depends on the width.")
    body = _Body(interpreter, equation, values)
    return body.rolled() or body.written_out()


class _Body:
    """One `scan` with the values it is applied to."""

    def __init__(self, interpreter, equation, values):
        self.interpreter, self.equation = interpreter, equation
        p, p2 = equation.params, equation.params2
        self.length, self.reverse = p["length"], p["reverse"]
        self.constants, self.carried = loop_sizes(p)
        (self.jaxpr, consts), (self.jaxpr2, _) = inner_program(p), inner_program(p2)  # type: ignore[misc]
        self.consts = [Det(interpreter.cast(c)) for c in consts]
        ends = self.constants + self.carried
        self.fixed, self.initial, self.xs = values[: self.constants], values[self.constants : ends], values[ends:]
        self._written: list | None = None

    def written_out(self) -> list:
        """Step after step, as one long program."""
        if self._written is not None:
            return self._written
        interpreter, equation = self.interpreter, self.equation
        carry, stacks = self.initial, []
        for t in reversed(range(self.length)) if self.reverse else range(self.length):
            pieces = [
                _at(interpreter, equation, v, self.constants + self.carried + i, t) for i, v in enumerate(self.xs)
            ]
            outs = interpreter.run(self.jaxpr, self.jaxpr2, self.consts, [*self.fixed, *carry, *pieces])
            carry = outs[: self.carried]
            stacks.append(outs[self.carried :])
        if self.reverse:
            stacks.reverse()
        shapes = equation.out_shapes[self.carried :]
        ys = [stacked(interpreter, equation, [s[i] for s in stacks], 0, shape) for i, shape in enumerate(shapes)]
        self._written = [*carry, *ys]
        return self._written

    def rolled(self) -> list | None:
        """As loops over time; None where the step is not seen through weights only."""
        if self.length < _FEWEST or any(isinstance(v, Weight) for v in self.xs):
            return None
        initial = [_one_block(_carried_field(self, i, v)) for i, v in enumerate(self.initial)]
        held = [v for v in [*self.fixed, *self.xs] if isinstance(v, Field)]
        carried = [f for f in initial if f is not None]
        if len(carried) < len(initial) or any(_one_block(v) is None or v.wide_axis is None for v in held):
            return None
        timed = [v for v in self.xs if isinstance(v, Field)]
        if any(v.wide_axis == 0 for v in timed):
            return None
        return _Rolled(self, carried).outputs()


def _one_block(field: Field | None) -> Field | None:
    return field if isinstance(field, Field) and len(field.blocks) == 1 else None


def _carried_field(body: _Body, i: int, value) -> Field | None:
    """What is carried at first as a field; None for numbers and arrays without a wide axis."""
    shape, shape2 = body.equation.in_shapes[body.constants + i]
    wide = [a for a, (n, m) in enumerate(zip(shape, shape2, strict=True)) if n != m]
    if len(wide) != 1:
        return None
    if isinstance(value, Weight):
        return as_field(value)
    if isinstance(value, Field):
        return value
    array = jnp.asarray(value.array).astype(body.interpreter.dtype)
    array = jnp.broadcast_to(array, tuple(1 if a == wide[0] else n for a, n in enumerate(shape)))
    return Field(((Const(jnp.squeeze(array, wide[0])), shape[wide[0]]),), wide[0])


class _Rolled:
    """A loop whose step is traced once; `outputs` is None where that would not be exact."""

    def __init__(self, body: _Body, initial: list[Field]):
        self.body, self.initial = body, initial
        flip = body.reverse
        self.inputs = [jnp.flip(jnp.asarray(v.array), 0) if flip else v.array for v in body.xs if isinstance(v, Det)]
        self.outer: list[tuple[Node, bool]] = []
        for v in body.fixed:
            if isinstance(v, Field):
                self.outer.append((v.blocks[0][0], False))
        for v in body.xs:
            if isinstance(v, Field):
                node = v.blocks[0][0]
                self.outer.append((Take(node, 0, np.arange(body.length)[::-1]) if flip else node, True))
        self.uses: dict = {}  # of each parameter inside the loop

    def step(self, covariance, side: int, carried, outer, inputs) -> list[Node]:
        """The outputs of one step; raises UnknownLimitError where they are not fields like those carried."""
        body = self.body
        interpreter = Interpreter(covariance, body.interpreter.dtype, None, body.interpreter.fresh is not None)
        fields, arrays = iter(outer), iter(inputs)
        self.uses = {}
        values: list[Any] = []
        for v in body.fixed:
            if isinstance(v, Weight):
                v = dataclasses.replace(v, uses=self.uses.setdefault(v.key, Uses()))
            elif isinstance(v, Field):
                v = Field(((next(fields), v.blocks[0][1]),), v.wide_axis)
            values.append(v)
        values += [Field(((node, v.blocks[0][1]),), v.wide_axis) for node, v in zip(carried, self.initial, strict=True)]
        for v in body.xs:
            if isinstance(v, Field):
                values.append(Field(((next(fields), v.blocks[0][1]),), v.wide_axis - 1))  # type: ignore[operator]
            else:
                values.append(Det(next(arrays)))
        self.outs = interpreter.run(body.jaxpr, body.jaxpr2, body.consts, values)
        return [self._node(i, v) for i, v in enumerate(self.outs)]

    def _node(self, i: int, value) -> Node:
        value = as_field(value) if isinstance(value, Weight) else value
        field = _one_block(value)
        like = self.initial[i] if i < len(self.initial) else None
        if field is None or (like and (field.wide_axis, field.blocks[0][1]) != (like.wide_axis, like.blocks[0][1])):
            raise UnknownLimitError("an output of the step is no single field")
        return field.blocks[0][0]

    def outputs(self) -> list | None:
        """The values of the `scan`; None where its step is not seen through weights only."""
        try:
            recurrence = self._recurrence()
        except (UnknownLimitError, jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError):
            return None  # written out, it is refused with a reason, or it is not
        if recurrence is None:
            return None
        self._note_uses()
        out = []
        for i, value in enumerate(self.outs):
            last = i < self.body.carried
            node: Node = Loop(recurrence, i, last)
            if self.body.reverse and not last:
                node = Take(node, 0, np.arange(self.body.length)[::-1])
            field = as_field(value) if isinstance(value, Weight) else value
            assert isinstance(field, Field)
            axis = field.wide_axis
            out.append(Field(((node, field.blocks[0][1]),), axis if last or axis is None else axis + 1))
        return out

    def _recurrence(self) -> Recurrence | None:
        nodes = self._probe([False] * self.body.carried)
        gaussian = [n.gaussian for n in nodes]
        if any(gaussian[: self.body.carried]):
            nodes = self._probe(gaussian[: self.body.carried])
        if [n.gaussian for n in nodes] != gaussian or not self._is_exact(nodes):
            return None
        sources: set = set()
        for node in nodes:
            sources |= direct_sources(node)
        outer = [n for n, _ in self.outer]
        if any(direct_sources(n) & sources for n in [*outer, *(f.blocks[0][0] for f in self.initial)]):
            return None
        for node in nodes:
            for name in _states(node):
                if name[0] == "outer":
                    sources |= direct_sources(outer[name[1]])
        return Recurrence(
            self._program(), self.step, self.inputs, [f.blocks[0][0] for f in self.initial], self.outer,
            self.body.length, [(n.shape, n.gaussian) for n in nodes], frozenset(sources), self._unrolled,
        )  # fmt: skip

    def _probe(self, gaussian: list[bool]) -> list[Node]:
        """The nodes of one step on made-up moments: only their kinds are looked at."""
        found: list[Node] = []
        covariance = self.body.interpreter.covariance
        carried = [
            State(0, ("carried", i), f.shape, g) for i, (f, g) in enumerate(zip(self.initial, gaussian, strict=True))
        ]
        outer = [
            State(0, ("outer", i), node.shape[timed:], node.gaussian) for i, (node, timed) in enumerate(self.outer)
        ]

        def run(pairs, means, inputs):
            inner = covariance.inside(Given(pairs, means))
            found[:] = self.step(inner, 0, carried, outer, inputs)
            centred = [not n.gaussian or inner.mean(n) is None for n in found]
            if not all(centred):
                raise UnknownLimitError("a Gaussian value with a mean is carried")
            return 0

        states = [*carried, *outer]
        dtype = self.body.interpreter.dtype
        pairs = {("K", 0, a.name, 0, b.name): jax.ShapeDtypeStruct((*a.shape, *b.shape), dtype)
                 for a in states for b in states}  # fmt: skip
        means = {(0, a.name): jax.ShapeDtypeStruct(a.shape, dtype) for a in states}
        inputs = [jax.ShapeDtypeStruct(a.shape[1:], a.dtype) for a in map(jnp.asarray, self.inputs)]
        jax.eval_shape(run, pairs, means, inputs)
        return list(found)

    def _is_exact(self, nodes: list[Node]) -> bool:
        """Whether the step sees the past through weights only, each used in one direction."""
        centred = all(not n.gaussian or self.body.interpreter.covariance.mean(n) is None for n, _ in self.outer)
        for v in self.body.fixed:
            if isinstance(v, Weight):
                inside = {d for d, _ in self.uses[v.key].matrices}
                before = {d for d, _ in v.uses.matrices} | v.uses.rolled
                if len(inside | before) > 1 or (inside and v.uses.vector) or (before and self.uses[v.key].vector):
                    return False
        # what is carried may hold fields from outside (x U, of all times at once) if no weight of the loop is applied
        # to any: else moments of what is carried with those of other times would be needed
        applied, carried = any(map(_outer_behind_weights, nodes)), self.body.carried
        if any(map(_sees_groups, nodes)):  # which channels of what is carried are the same is not followed there
            return False
        return centred and all(_behind_weights(n, applied and i < carried) for i, n in enumerate(nodes))

    def _note_uses(self) -> None:
        for v in self.body.fixed:
            if isinstance(v, Weight):
                inside = self.uses[v.key]
                v.uses.vector |= inside.vector
                v.uses.rolled |= {d for d, _ in inside.matrices}

    def _program(self):
        """What two loops have in common that do the same: the step, and the parameters it is applied to."""
        body = self.body
        weights = tuple(
            (v.key, v.axes, v.start, v.size, v.splits, v.flips, v.scale if isinstance(v.scale, float) else id(v.scale))
            for v in body.fixed
            if isinstance(v, Weight)
        )
        kinds = tuple(type(v).__name__ for v in [*body.fixed, *body.xs])
        return (str(body.jaxpr), body.reverse, weights, kinds)

    def _unrolled(self, index: int, last: bool) -> Node:
        value = self.body.written_out()[index]
        value = as_field(value) if isinstance(value, Weight) else value
        if self.body.reverse and not last:  # the order of the steps, as in the loop
            return Take(value.blocks[0][0], 0, np.arange(self.body.length)[::-1])
        return value.blocks[0][0]


_MOVES = (Axes, Linear, Take, Windows, Merge, Split, Frozen, Copies)


def _parts(node: Node) -> list[Node]:
    if isinstance(node, Sum):
        return [n for _, n in node.terms]
    if isinstance(node, Ew):
        return [node.leaf]
    if isinstance(node, (*_MOVES, Mat)):
        return [node.child]
    return [*getattr(node, "factors", []), *getattr(node, "leaves", [])]


def _states(node: Node) -> set:
    """Names of the States that a node is made of other than through weights."""
    if isinstance(node, State):
        return {node.name}
    if isinstance(node, Mat):
        return set()
    return set().union(*map(_states, _parts(node)))


def _sees_groups(node: Node) -> bool:
    """Whether channels of a State are seen as groups of a fixed size."""
    if isinstance(node, Copies):
        return bool(_states(node)) or _sees_groups(node.child)
    return any(map(_sees_groups, _parts(node)))


def _outer_behind_weights(node: Node) -> bool:
    """Whether a weight is applied to a field from outside the loop."""
    if isinstance(node, Mat):
        return any(name[0] == "outer" for name in _states(node.child)) or _outer_behind_weights(node.child)
    return any(map(_outer_behind_weights, _parts(node)))


def _behind_weights(node: Node, outer_too: bool) -> bool:
    """Whether States are met behind weights only, and there as they are, or by a function of one of them."""
    if isinstance(node, State):
        return node.name[0] == "outer" and not outer_too
    if isinstance(node, Mat):
        return _behind_weights(node.child, True) or _is_state(node.child)
    return all(_behind_weights(part, outer_too) for part in _parts(node))


def _is_state(node: Node) -> bool:
    """A linear function of States, or a function of a Gaussian one."""
    if isinstance(node, State):
        return True
    if isinstance(node, _MOVES):
        return _is_state(node.child)
    if isinstance(node, Ew):
        return node.leaf.gaussian and _is_state(node.leaf)
    if isinstance(node, Sum):
        return all(isinstance(n, Const) or _is_state(n) for _, n in node.terms)
    return False


def _at(interpreter, equation, value, i, t):
    """Entry t along axis 0."""
    shapes = equation.in_shapes[i]
    if isinstance(value, Det):
        return Det(value.array[t])
    piece = cut(interpreter, equation, value, 0, t, t + 1, 1, False)
    after = tuple((1, *s[1:]) for s in shapes), tuple(s[1:] for s in shapes)
    step = Equation("squeeze", None, {}, {}, [after[0]], [after[1]], equation.source)  # type: ignore[list-item]
    return _reshape(interpreter, step, [piece])
