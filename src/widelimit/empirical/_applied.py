"""Products of the kernel of many examples with vectors, by one pass of the network each way: no kernel, no Jacobian."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from widelimit._precision import exact_products
from widelimit.empirical._convolutions import by_products

__all__ = ["Applied", "batches", "examples_at_once", "scaled"]

_LARGEST_BATCH = 256
_LIVE = 3  # values of one pass held at once for each that the network's program makes, by measurement
_VECTORS = 4  # vectors of the size of the parameters held at once


class Applied(NamedTuple):
    """``K v = J(x1) (lr J(x2)^T v)`` for functions ``(leaves, x) -> (O,)``, real.

    output: "full", all pairs of outputs, v (n2, O); "diag", each output with itself, v (n2, O); "sum", their sum, and
    "mean", that over their number, v (n2,).  Hashable, so that a program is compiled once for all parameters.
    Other arguments: leaves, those of the parameters; rates, a factor of each as in `weights_of`; x1, x2: (n, ...).
    """

    f: Callable
    other: Callable
    output: str

    @property
    def symmetric(self) -> bool:
        return self.f is self.other

    def product(self, leaves: Sequence[Any], rates: Sequence[Any], x1, x2, v: jax.Array, batch: int) -> jax.Array:
        """v: (n2, ...) as above, with any further axes, each of which is a product of its own."""
        with exact_products():
            plain = self._replace(f=by_products(self.f), other=by_products(self.other))
            of = functools.partial(plain._of_one, leaves, rates, x1, x2, batch)
            inner = 1 + (self.output in ("full", "diag"))
            columns = v.reshape(*v.shape[:inner], -1)
            each = jnp.moveaxis(columns, -1, 0)
            found = jnp.moveaxis(jax.lax.map(of, each) if len(each) > 1 else of(each[0])[None], 0, -1)
            return found.reshape(*found.shape[:-1], *v.shape[inner:])

    def _of_one(self, leaves, rates, x1, x2, batch, v):
        outputs = _outputs(self.f, leaves, x1)
        if self.output == "full":
            u = _pulled(self.other, leaves, rates, x2, v, batch)
            return _pushed(self.f, leaves, rates, x1, u, batch)

        def of_output(o):
            part = v[:, o] if self.output == "diag" else v
            cotangent = part[:, None] * (jnp.arange(outputs) == o).astype(v.dtype)
            u = _pulled(self.other, leaves, rates, x2, cotangent, batch)
            return _pushed(self.f, leaves, rates, x1, u, batch)[:, o]

        if self.output == "diag":
            return jax.lax.map(of_output, jnp.arange(outputs)).T
        start = jnp.zeros(len(jax.tree.leaves(x1)[0]), v.dtype)
        total = jax.lax.scan(lambda total, o: (total + of_output(o), None), start, jnp.arange(outputs))[0]
        return total / outputs if self.output == "mean" else total

    def diagonal(self, leaves: Sequence[Any], rates: Sequence[Any], x, batch: int) -> jax.Array:
        """``K_ii``, (n,), or (n, O), each output with itself, for "diag" and "full"."""
        outputs = _outputs(self.f, leaves, x)
        f, other = by_products(self.f), by_products(self.other)

        def of_example(x):
            out, pull = _vjp(f, leaves, rates, x)
            _, pull_other = _vjp(other, leaves, rates, x)

            def of_output(o):
                e = (jnp.arange(outputs) == o).astype(out.dtype)
                (a,) = pull(e)
                b = a if self.symmetric else pull_other(e)[0]
                return sum(jnp.vdot(p, q) for p, q in zip(a, scaled(b, rates), strict=True))

            return jax.lax.map(of_output, jnp.arange(outputs))

        with exact_products():
            found = jax.lax.map(of_example, x, batch_size=max(1, batch // max(outputs, 1)))
        if self.output in ("full", "diag"):
            return found
        return found.mean(1) if self.output == "mean" else found.sum(1)

    def examples_at_once(
        self, where: str, leaves: Sequence[Any], x1, x2, memory: float, largest: int | None = None
    ) -> tuple[int, int]:
        """Examples of a batch whose passes take at most `memory` bytes, and how many these take."""
        xs = x1, x1 if x2 is None else x2
        return examples_at_once(where, (self.f, self.other), leaves, xs, memory, largest)


def scaled(u: Sequence[jax.Array], rates: Sequence[Any]) -> list[jax.Array]:
    """lr u; rates of those that do not count are None, and u has none of these."""
    given = [r for r in rates if r is not None]
    return [
        a * jnp.broadcast_to(jnp.asarray(r, a.dtype), (a.size,)).reshape(a.shape) for a, r in zip(u, given, strict=True)
    ]


def _of_counted(f, leaves, rates) -> tuple[Callable, list]:
    """f as a function of the parameters that count and an example, and these parameters."""
    counted = [i for i, r in enumerate(rates) if r is not None]

    def g(chosen, x):
        given = list(leaves)
        for i, a in zip(counted, chosen, strict=True):
            given[i] = a
        return f(given, x)

    return g, [leaves[i] for i in counted]


def _vjp(f, leaves, rates, x):
    g, chosen = _of_counted(f, leaves, rates)
    return jax.vjp(lambda chosen: g(chosen, x), chosen)


def _outputs(f, leaves, x) -> int:
    one = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), x)
    return math.prod(jax.eval_shape(f, leaves, one).shape)


def batches(x, size: int):
    """(batches, size, ...), filled up with copies of the last example."""
    n = len(jax.tree.leaves(x)[0])
    index = jnp.minimum(jnp.arange(-(-n // size) * size), n - 1)
    return jax.tree.map(lambda a: a[index].reshape(-1, size, *a.shape[1:]), x)


def _pulled(f, leaves, rates, x, v, size: int) -> list[jax.Array]:
    """``lr J(x)^T v``, v (n, O)."""
    g, chosen = _of_counted(f, leaves, rates)
    whole = batches(x, size)
    count = len(jax.tree.leaves(whole)[0])
    filled = jnp.concatenate([v, jnp.zeros((count * size - len(v), v.shape[1]), v.dtype)]).reshape(count, size, -1)

    def step(total, part):
        x, v = part
        out, pull = jax.vjp(lambda chosen: jax.vmap(g, (None, 0))(chosen, x), chosen)
        return jax.tree.map(jnp.add, total, pull(v.astype(out.dtype))[0]), None

    total = jax.lax.scan(step, jax.tree.map(jnp.zeros_like, chosen), (whole, filled))[0]
    return scaled(total, rates)


def _pushed(f, leaves, rates, x, u, size: int) -> jax.Array:
    """``J(x) u``, (n, O)."""
    g, chosen = _of_counted(f, leaves, rates)

    def step(x):
        return jax.jvp(lambda chosen: jax.vmap(g, (None, 0))(chosen, x), (chosen,), (u,))[1]

    found = jax.lax.map(step, batches(x, size))
    return found.reshape(-1, found.shape[-1])[: len(jax.tree.leaves(x)[0])]


def examples_at_once(
    where: str, functions: Sequence[Callable], leaves, xs: Sequence[Any], memory: float, largest: int | None = None
) -> tuple[int, int]:
    """Examples in a batch so that a pass of the network each way takes at most `memory` bytes, and how many it takes.

    Counted from the network's program: every value that it makes, times 3.  Raises MemoryError where one does not fit.
    """
    once = _VECTORS * sum(a.size * a.dtype.itemsize for a in leaves)
    each = max(_LIVE * _values(by_products(f), leaves, x) for f, x in zip(functions, xs, strict=True))
    if once + each > memory:
        raise MemoryError(
            f"{where}: one example takes {(once + each) / 2**20:.3g} MiB, {once / 2**20:.3g} of them for vectors like "
            f"the parameters, more than memory = {memory / 2**20:.3g} MiB. Remedy: a larger memory, or parameters= for "
            "fewer of them."
        )
    count = max(len(jax.tree.leaves(x)[0]) for x in xs)
    fitting = int((memory - once) // each)
    batch = max(1, min(count, fitting, _LARGEST_BATCH if largest is None else largest))
    return batch, int(once + batch * each)


def _values(f, leaves, x) -> int:
    """Bytes of all values that f makes of one example."""
    one = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), x)
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in leaves]
    jaxpr = jax.make_jaxpr(f)(shapes, one).jaxpr
    return sum(math.prod(a.shape[1:]) * a.dtype.itemsize for a in jax.tree.leaves(x)) + _made(jaxpr)


def _made(jaxpr) -> int:
    total = 0
    for eqn in jaxpr.eqns:
        inner = [getattr(v, "jaxpr", v) for v in eqn.params.values() if hasattr(getattr(v, "jaxpr", v), "eqns")]
        total += eqn.params.get("length", 1) * sum(map(_made, inner))
        total += sum(math.prod(v.aval.shape) * np.dtype(v.aval.dtype).itemsize for v in eqn.outvars)
    return total
