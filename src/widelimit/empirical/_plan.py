"""How the kernel of many examples is computed: chosen from shapes, and fitted into memory before anything runs."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from widelimit._precision import exact_products
from widelimit.empirical._factors import contracted, factors_of, parts_of
from widelimit.empirical._products import products
from widelimit.empirical._uses import uses_of

__all__ = ["METHODS", "Design", "Plan"]

METHODS = ("auto", "structured", "factorised", "jacobian", "products")
_WAYS = {"structured": "best", "factorised": "Gram", "jacobian": "direct", "auto": "best", "products": "direct"}
_LIVE = 3  # arrays of the size of the layers' outputs held at once in the backward pass, by measurement
_LARGEST_TILE = 256


class Design(NamedTuple):
    """What a kernel computes: functions (params, x) -> real outputs (O,) of either side, and what of their products.

    output: "full", "diag" or "sum"; gradients: how each side's gradients enter, "plain" or "sign".
    """

    f: Callable
    other: Callable
    output: str
    method: str
    gradients: tuple[str, str]
    by_parameter: bool

    @property
    def symmetric(self) -> bool:
        return self.f is self.other and self.gradients[0] == self.gradients[1]


class Plan:
    """How the kernels of pairs of examples are computed.  Printing it gives a table.

    Made by ``kernel.plan(x)``.  method: that chosen; tile: examples at once; bytes: what is held at once, as compiled.
    """

    def __init__(self, design: Design, leaves, names, chosen, x1, x2, n: int, is_complex=(False, False)):
        """leaves, x1, x2: shapes; chosen: as in `parts_of`; n: examples of the larger side; is_complex: either side."""
        self.design, self.names, self.chosen = design, names, dict(chosen)
        self.is_complex = is_complex
        self._examples = x1, x2
        same = design.f is design.other and x1 == x2
        self._one_sided = same and design.symmetric
        self._closed = [_program(f, leaves, x) for f, x in ((design.f, x1), (design.other, x2))[: 1 if same else 2]]
        counts = [math.prod(c.out_avals[0].shape) for c in self._closed]
        self.outputs = counts[0]
        if len(set(counts)) > 1 and design.output != "full":
            raise ValueError(
                f"empirical_ntk: the two functions have {counts[0]} and {counts[1]} outputs; output must be 'full'."
            )
        uses = [uses_of(c, leaves, jax.tree.leaves(x)) for c, x in zip(self._closed, self._examples, strict=False)]
        if not same or design.gradients != ("plain", "plain"):
            uses = [({}, {})]  # gradients of two functions have no layers in common, and a sign none at all
        pairs = self.outputs**2 if design.output == "full" else self.outputs
        way = _WAYS[design.method]
        self._all = parts_of(leaves, *uses[0], self.chosen, self.outputs, pairs, way, n)
        self.parts = [p for p in self._all if p.leaf in self.chosen]
        self._run = _operations(self._closed[0].jaxpr)
        self._pairs, self._n, self._layers = pairs, n, uses[0][0]
        self._itemsize = np.dtype(self._closed[0].out_avals[0].dtype).itemsize
        self.method = design.method
        if design.method == "auto":
            self.method = "products" if self._cost_of_products() < self.operations else "structured"
        self.tile, self.bytes, self._compiled = n, 0, self

    def _cost_of_products(self) -> float:
        return self._n**2 * self.outputs * 2 * self._run + self._n * self.outputs * 3 * self._run

    @property
    def operations(self) -> float:
        """Multiplications and additions for the kernel of all pairs."""
        if self.method == "products":
            return self._cost_of_products()
        once = sum(p.per_example(self.outputs) for p in self.parts) + (1 + 2 * self.outputs) * self._run
        return self._n * once + self._n**2 * sum(p.per_pair(self.outputs, self._pairs)[0] for p in self.parts)

    def _needed(self, tile: int) -> float:
        """Bytes held at once, by the model."""
        taps = sum(math.prod(layer.output.shape) for layers in self._layers.values() for layer in layers)
        back = _LIVE * (1 + self.outputs) * (taps + 1)
        if self.method == "products":
            return self._itemsize * (tile * back + self.outputs * sum(p.entries for p in self._all))
        stored = sum(p.stored(self.outputs) for p in self.parts)
        pair = max(p.per_pair(self.outputs, self._pairs)[1] for p in self.parts) + 2 * self._pairs
        return self._itemsize * (tile * (2 * stored + back) + tile**2 * pair)

    def fitted(self, leaves, weights, memory: float, largest: int) -> Plan:
        """The plan with the largest tile whose compiled programs take at most `memory` bytes.

        Raises MemoryError where one example does not fit.
        """
        tile = max(1, min(largest, _LARGEST_TILE))
        while tile > 1 and self._needed(tile) > memory:
            tile = (tile + 1) // 2
        while True:
            needed = self._measured(leaves, weights, tile)
            if needed <= memory:
                found = copy.copy(self)  # a plan serves every budget
                found.tile, found.bytes = tile, needed
                return found
            if tile == 1:
                raise MemoryError(
                    f"empirical_ntk: one pair of examples takes {needed / 2**20:.3g} MiB with method "
                    f"{self.method!r}, more than memory = {memory / 2**20:.3g} MiB. Remedy: a larger memory, "
                    'method="products", or output="sum" or a function to one number.'
                )
            tile = (tile + 1) // 2

    def _measured(self, leaves, weights, tile: int) -> int:
        """Bytes of arguments, results and temporaries of the compiled programs at this tile."""
        batch = [jax.tree.map(lambda s: jax.ShapeDtypeStruct((tile, *s.shape), s.dtype), x) for x in self._examples]
        sides = [self._factors(side).lower(leaves, batch[side]) for side in (0, 1)]
        held = [jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), s.out_info) for s in sides]
        made = [_bytes(s.compile()) for s in sides[: 1 if self._one_sided else 2]]
        product = _bytes(self._product().lower(leaves, weights, held[0], held[1]).compile())
        kept = sum(_size(h) for h in held)
        return int(max(max(made) + kept, product))

    def _factors(self, side: int):
        return _compiled_factors(self._compiled, 0 if self._one_sided else side)

    def _product(self):
        return _compiled_product(self._compiled)

    def factors(self, leaves, x, side: int = 0):
        """What is held of a batch x of examples."""
        return self._factors(side)(leaves, x)

    def pairs(self, leaves, weights, a, b):
        """Kernels of all pairs of two batches, from their factors: (n, m, ...); b the same as a: each product once."""
        return self._product()(leaves, weights, a, None if a is b and self._one_sided else b)

    def __str__(self) -> str:
        first = f"method {self.method}, {self.tile} examples at once, {self.bytes / 2**20:.1f} MiB, "
        first += f"{self.operations:.3g} operations for {self._n} x {self._n} examples"
        lines = [first, f"{'parameter':<28}{'entries':>10}  held as"]
        for p in self.parts:
            how = {
                "Gram": "factors",
                "gradient": "gradient, made of factors",
                "direct": "gradient",
                "shared": "its layer's factors",
            }[p.way]
            if self.method == "products":
                how = "nothing: products with vectors"
            if p.way == "Gram":
                how += f" ({p.sizes.positions} positions: {p.sizes.inputs} in, {p.sizes.outputs} out)"
            lines.append(f"{self.names[p.leaf]:<28}{p.entries:>10}  {how}")
        return "\n".join(lines)


def _operations(jaxpr) -> int:
    """Multiplications and additions of matrix products and convolutions in a program, run once."""
    total = 0
    for eqn in jaxpr.eqns:
        inner = [getattr(v, "jaxpr", v) for v in eqn.params.values() if hasattr(getattr(v, "jaxpr", v), "eqns")]
        total += eqn.params.get("length", 1) * sum(map(_operations, inner)) + math.prod(eqn.outvars[0].aval.shape)
        if eqn.primitive.name == "dot_general":
            (contract, _), _ = eqn.params["dimension_numbers"]
            shape = eqn.invars[0].aval.shape
            total += 2 * math.prod(eqn.outvars[0].aval.shape) * math.prod(shape[i] for i in contract)
        elif eqn.primitive.name == "conv_general_dilated":
            of_output = eqn.invars[1].aval.shape[eqn.params["dimension_numbers"].rhs_spec[0]]
            total += 2 * math.prod(eqn.outvars[0].aval.shape) * math.prod(eqn.invars[1].aval.shape) // of_output
    return total


def _program(f, leaves, x):
    """f as a program of flat arguments."""
    flat, structure = jax.tree.flatten(x)

    def of_leaves(leaves, flat):
        return f(leaves, jax.tree.unflatten(structure, flat))

    with exact_products():
        return jax.make_jaxpr(of_leaves)(list(leaves), flat)


@functools.lru_cache(maxsize=64)
def _compiled_factors(plan: Plan, side: int):
    closed = plan._closed[min(side, len(plan._closed) - 1)]
    sign = plan.design.gradients[side] == "sign"

    def one(leaves, x):
        found = factors_of(closed, plan._all, leaves, jax.tree.leaves(x), plan.outputs if side == 0 else _count(closed))
        found = {i: found[i] for i in found if i in plan.chosen}
        return {i: a._replace(g=jnp.sign(a.g)) for i, a in found.items()} if sign else found

    @jax.jit
    def factors(leaves, x):
        if plan.method == "products":
            return x
        with exact_products():
            return jax.vmap(one, (None, 0))(leaves, x)

    return factors


def _count(closed) -> int:
    return math.prod(closed.out_avals[0].shape)


@functools.lru_cache(maxsize=64)
def _compiled_product(plan: Plan):
    @jax.jit
    def product(leaves, weights, a, b):
        with exact_products():
            if plan.method == "products":
                other = a if b is None else b
                found = products(plan.design.f, plan.design.other, leaves, weights, a, other, plan.design.output)
                return {"all": found}
            found = contracted(plan.parts, (a, b), weights, plan.design.output)
            if plan.design.by_parameter:
                return {plan.names[leaf]: value for leaf, value in sorted(found.items())}
            return {"all": functools.reduce(jnp.add, found.values())}

    return product


def _size(tree) -> int:
    return sum(math.prod(a.shape) * np.dtype(a.dtype).itemsize for a in jax.tree.leaves(tree))


def _bytes(compiled) -> int:
    """Of a compiled program: arguments, results and temporaries."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return 0
    names = ("argument_size_in_bytes", "output_size_in_bytes", "temp_size_in_bytes")
    return sum(getattr(analysis, name, 0) for name in names)
