"""What a kernel costs, read from its program before anything runs: operations and bytes of one pair."""

from __future__ import annotations

import collections
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from widelimit.trace._calls import inner_program
from widelimit.trace._kernel import evaluate

__all__ = ["Plan", "plan_of"]

# Moved or renamed, not computed.
_FREE = {
    "reshape", "broadcast_in_dim", "transpose", "squeeze", "expand_dims", "slice", "convert_element_type", "copy",
    "stop_gradient", "concatenate", "pad", "rev", "iota", "dynamic_slice", "split", "unstack", "copy_p",
}  # fmt: skip


class Plan(NamedTuple):
    """Cost of the kernels of one pair; printing it gives a table.

    operations: additions, multiplications and functions of a number.  bytes: the most that is held at once for one pair
    (XLA, which fuses, holds less).  equal, pairs: fields whose moments are needed at equal positions only, and at pairs
    of positions, by numbers in each array.
    """

    operations: int
    bytes: int
    equal: dict[int, int]
    pairs: dict[int, int]

    def __str__(self) -> str:
        lines = [f"one pair: {self.operations:,} operations, at most {self.bytes:,} bytes held at once (float32)"]
        for what, found in (("at equal positions", self.equal), ("at pairs of positions", self.pairs)):
            lines += [f"  {count} moments {what}: {size:,} numbers each" for size, count in sorted(found.items())]
        return "\n".join(lines)


def plan_of(program, kinds: tuple[str, ...], example: Any) -> Plan:
    """The plan of a program for examples of these shapes; nothing is computed."""
    log: list = []
    closed = jax.make_jaxpr(lambda a, b: evaluate(program, kinds, a, b, log=log))(example, example)
    covariance = next(entry[1] for entry in log if entry[0] == "covariance")
    equal: collections.Counter = collections.Counter()
    pairs: collections.Counter = collections.Counter()
    for apart, size in covariance.requests():
        (pairs if apart else equal)[size] += 1
    jaxpr = closed.jaxpr
    return Plan(_operations(jaxpr), _held(jaxpr), dict(equal), dict(pairs))


def _operations(jaxpr) -> int:
    return sum(_cost(eqn) for eqn in jaxpr.eqns)


def _cost(eqn) -> int:
    inner = inner_program(eqn.params)
    if inner is not None:
        return _operations(inner[0]) * int(eqn.params.get("length", 1))
    if eqn.primitive.name in _FREE:
        return 0
    size = max(math.prod(v.aval.shape) for v in eqn.outvars)
    if eqn.primitive.name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        return 2 * size * math.prod(eqn.invars[0].aval.shape[a] for a in contracted)
    if eqn.primitive.name.startswith("reduce"):
        return math.prod(eqn.invars[0].aval.shape)
    return size


def _bytes(variables) -> int:
    return sum(math.prod(v.aval.shape) * jnp.dtype(v.aval.dtype).itemsize for v in variables if hasattr(v, "aval"))


def _held(jaxpr) -> int:
    """The most bytes alive at once if every array is kept until its last use."""
    last: dict = {}
    for i, eqn in enumerate(jaxpr.eqns):
        last.update((v, i) for v in eqn.invars if not hasattr(v, "val"))
    last.update((v, len(jaxpr.eqns)) for v in jaxpr.outvars if not hasattr(v, "val"))
    alive = {v for v in [*jaxpr.invars, *jaxpr.constvars] if v in last}
    now = most = _bytes(alive)
    dying: dict = collections.defaultdict(list)
    for v, i in last.items():
        dying[i].append(v)
    for i, eqn in enumerate(jaxpr.eqns):
        inner = inner_program(eqn.params)
        made = [v for v in eqn.outvars if v in last]
        now += _bytes(made)
        alive.update(made)
        most = max(most, now + (_held(inner[0]) if inner is not None else 0))
        dead = [v for v in dying[i] if v in alive]
        now -= _bytes(dead)
        alive.difference_update(dead)
    return most
