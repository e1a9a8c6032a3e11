"""What the kernel of many examples needs of each: factors of their gradients, and the products of these.

For a parameter whose gradient is ``df_o/dW = sum_t h_t g_(o,t)^T`` there are two ways to the same number,

    <df_o(x)/dW, df_p(x')/dW> = sum_(t,s) (h_t . h'_s) (g_(o,t) . g'_(p,s)),

the factors' Grams, or the gradients themselves, once for every example: whichever costs less.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from widelimit.empirical._uses import Layer, Shared, View, outputs

__all__ = ["Factored", "Part", "Sizes", "contracted", "factors_of", "parts_of"]


class Sizes(NamedTuple):
    """Of a parameter's gradient: groups, positions of all its uses, inputs and outputs of a group."""

    groups: int
    positions: int
    inputs: int
    outputs: int

    @property
    def entries(self) -> int:
        return self.groups * self.inputs * self.outputs


_NONE = Sizes(0, 0, 0, 0)

# Products of rows with themselves are halved while there are so many rows and multiplications.
_FEWEST_ROWS = 1024
_FEWEST_PRODUCTS = 2**24


class Part(NamedTuple):
    """How the gradient by one parameter is held: "Gram" of factors, "gradient" made of factors, "direct" by
    differentiation, or "shared", a bias with the factors of its layer; entries: of the parameter.
    """

    leaf: int
    way: str
    sizes: Sizes
    entries: int
    rows: bool = False
    shared: Shared | None = None

    def stored(self, outputs: int) -> int:
        """Numbers held for one example."""
        if self.way == "shared":
            return 0
        if self.way != "Gram":
            return outputs * self.entries
        b, t, i, j = self.sizes
        return b * t * ((1 if self.rows else i) + outputs * j)

    def per_pair(self, outputs: int, pairs: int) -> tuple[int, int]:
        """Operations and numbers held for one pair of examples; pairs: of outputs that are asked for, O or O^2."""
        if self.way == "shared":
            return 2 * pairs, pairs
        if self.way != "Gram":
            return 2 * pairs * self.entries, pairs
        b, t, i, j = self.sizes
        if t == 1 and b == 1:
            return 2 * (i + pairs * j + pairs), 1 + pairs
        return 2 * b * t * t * ((1 if self.rows else i) + pairs * j + pairs), b * t * t * (1 + pairs)

    def per_example(self, outputs: int) -> int:
        """Operations for one example beyond running the network both ways."""
        if self.way != "gradient":
            return 0
        b, t, i, j = self.sizes
        return 2 * outputs * b * t * i * j


class Factored(NamedTuple):
    """Of a batch: h (N, groups, positions, inputs) and g (N, O, groups, positions, outputs) of a Gram, or the gradient
    (N, O, entries).
    """

    h: Any
    g: Any


def parts_of(
    leaves: Sequence[Any], uses: dict, shared: dict, chosen: dict[int, bool], outputs: int, pairs: int, way: str, n: int
) -> list[Part]:
    """The way of each parameter for n examples; way: "best", or "Gram", "gradient" or "direct" wherever possible.

    chosen: numbers of the parameters that count, and whether each has one learning rate for all of its entries.
    """
    found = []
    for i, leaf in enumerate(leaves):
        direct = Part(i, "direct", _NONE, math.prod(jnp.shape(leaf)))
        if i not in uses or way == "direct" or not chosen.get(i, True):
            found.append(direct)
            continue
        rows = uses[i][0].layout.kind == "rows"
        sizes = _sizes(uses[i])
        gram = Part(i, "Gram", sizes, direct.entries, rows)
        gradient = direct if rows else Part(i, "gradient", sizes, direct.entries)
        cost = {p: n * n * p.per_pair(outputs, pairs)[0] + n * p.per_example(outputs) for p in (gram, gradient)}
        found.append({"Gram": gram, "gradient": gradient}.get(way) or min(cost, key=lambda p: cost[p]))
    for i, bias in shared.items():
        if found[bias.of].way == "Gram" and bias.of in chosen and chosen.get(i, True):
            found[i] = Part(i, "shared", _NONE, found[i].entries, shared=bias)
    return found


def _sizes(layers) -> Sizes:
    shapes = [layer.h.shape if layer.layout.kind != "rows" else (1, *layer.h.shape, 0) for layer in layers]
    outputs = [jax.eval_shape(layer.split, layer.output).shape[2] for layer in layers]
    return Sizes(shapes[0][0], sum(s[1] for s in shapes), shapes[0][2], outputs[0])


def factors_of(closed, parts: Sequence[Part], leaves, x, count: int) -> dict[int, Factored]:
    """Factors of one example by parameter."""
    ways = {p.leaf: p for p in parts}
    direct = [p.leaf for p in parts if p.way == "direct"]

    def tapped(taps, varied):
        """The outputs with a tap added to what each layer gives, and what went into the layers."""
        given, seen, left = dict(zip(direct, varied, strict=True)), {}, {leaf: list(t) for leaf, t in taps.items()}

        def use(view, layer):
            if not isinstance(layer, Layer) or view.leaf not in left:
                return layer.output if isinstance(layer, Layer) else None
            seen.setdefault(view.leaf, []).append((layer.h, view.scale))
            return layer.output + left[view.leaf].pop(0)

        arguments = [given[i] if i in given else View(i, a) for i, a in enumerate(leaves)]
        outs = outputs(closed, [*arguments, *x], use)
        if any(left.values()):
            raise AssertionError("a layer that was found before was not found again")
        return outs[0], {leaf: [h for h, _ in pairs] for leaf, pairs in seen.items()}

    layers = _layers(closed, ways, leaves, x)
    taps = {
        leaf: [jnp.zeros(layer.output.shape, layer.output.dtype) for layer, _ in found]
        for leaf, found in layers.items()
    }
    out, pull, seen = jax.vjp(tapped, taps, [leaves[i] for i in direct], has_aux=True)
    back, by_leaf = jax.vmap(pull)(jnp.eye(count, dtype=out.dtype))
    found = {i: Factored(None, d.reshape(count, -1)) for i, d in zip(direct, by_leaf, strict=True)}
    for leaf, here in layers.items():
        gs = [
            jax.vmap(layer.split)(g) * jnp.asarray(scale, g.dtype)
            for (layer, scale), g in zip(here, back[leaf], strict=True)
        ]
        g = jnp.concatenate(gs, axis=2)
        h = jnp.concatenate(seen[leaf], axis=0 if ways[leaf].rows else 1)
        if ways[leaf].way == "gradient":
            found[leaf] = Factored(None, _gradient(h, g).reshape(count, -1))
        else:
            found[leaf] = Factored(h, g)
    return found


def _gradient(h, g):
    """``sum_t h_t g_(o,t)^T``, (O, groups, inputs, outputs)."""
    if h.shape[1] < g.shape[3]:  # to repeat the fewer inputs costs less than to move the axis O of the result
        return jnp.matmul(jnp.broadcast_to(jnp.swapaxes(h, 1, 2), (g.shape[0], h.shape[0], *h.shape[:0:-1])), g)
    return jnp.einsum("bti,obtj->obij", h, g)


def _layers(closed, ways, leaves, x) -> dict[int, list]:
    """(layer, scale) of each use of a parameter that is not differentiated directly."""
    found: dict[int, list] = {}

    def use(view, layer):
        if not isinstance(layer, Layer):
            return None
        if ways[view.leaf].way != "direct":
            found.setdefault(view.leaf, []).append((layer, view.scale))
        return layer.output

    def traced(leaves, x):
        found.clear()
        outputs(closed, [*(View(i, a) for i, a in enumerate(leaves)), *x], use)
        return {leaf: [layer.output for layer, _ in layers] for leaf, layers in found.items()}

    shapes = jax.eval_shape(traced, leaves, x)
    return {
        leaf: [(layer._replace(output=o, h=None), s) for (layer, s), o in zip(found[leaf], outs, strict=True)]
        for leaf, outs in shapes.items()
    }


def contracted(
    parts: Sequence[Part], factors: tuple[dict, dict | None], weights: Sequence[Any], output: str
) -> dict[int, Any]:
    """Products of the gradients by each parameter, times its learning rates, of every pair of two batches.

    The second None: of every pair of the first with itself, each product once.
    (N, O, M, O) for "full", (O, N, M) for "diag", (N, M), summed over outputs, for "sum".
    """
    a, b = factors
    found = {}
    for p in parts:
        if p.way == "shared":
            continue
        one, two = a[p.leaf], None if b is None else b[p.leaf]
        weight = jnp.asarray(weights[p.leaf], one.g.dtype)
        if p.way != "Gram":
            found[p.leaf] = _of_gradients(one.g, None if two is None else two.g, weight, output)
            continue
        of_outputs = _of_outputs(one, two, output)
        found[p.leaf] = weight * _reduced(of_outputs, _of_inputs(p, one, two, of_outputs.dtype), output)
        for q in parts:
            if q.shared and q.shared.of == p.leaf:
                alone = _reduced(of_outputs, None, output)
                found[q.leaf] = alone * jnp.asarray(q.shared.ratio**2 * weights[q.leaf], alone.dtype)
    return found


def _of_gradients(one, two, weight, output: str):
    """Of gradients (N, O, entries); weight: a number, or one of each entry."""
    if weight.ndim:
        return _of_gradients(one * weight, one if two is None else two, jnp.ones((), one.dtype), output)
    if output == "diag":
        return weight * row_products(*(None if g is None else jnp.swapaxes(g, 0, 1) for g in (one, two)))
    if output == "sum":
        return weight * row_products(*(None if g is None else g.reshape(g.shape[0], -1) for g in (one, two)))
    found = row_products(*(None if g is None else g.reshape(-1, g.shape[2]) for g in (one, two)))
    return weight * found.reshape(*one.shape[:2], *(one if two is None else two).shape[:2])


def row_products(a, b=None):
    """``a_r . b_s`` of the rows of (..., R, k) and (..., S, k); b None: of a with itself, equal halves once."""
    rows, k = a.shape[-2:]
    if b is None and rows >= _FEWEST_ROWS and rows * rows * k >= _FEWEST_PRODUCTS:
        one, two = a[..., : rows // 2, :], a[..., rows // 2 :, :]
        across = row_products(one, two)
        above = jnp.concatenate([row_products(one), across], -1)
        below = jnp.concatenate([jnp.swapaxes(across, -1, -2), row_products(two)], -1)
        return jnp.concatenate([above, below], -2)
    return jnp.einsum("...rk,...sk->...rs", a, a if b is None else b)


def _of_outputs(one: Factored, two: Factored | None, output: str):
    """(groups, N, O, positions, M, O, positions), (groups, O, N, positions, M, positions) or, for "sum", without O."""

    def rows(g):
        n, count, groups, positions, size = g.shape
        if output == "full":
            return jnp.moveaxis(g, 2, 0).reshape(groups, n * count * positions, size)
        if output == "diag":
            return jnp.transpose(g, (2, 1, 0, 3, 4)).reshape(groups, count, n * positions, size)
        return jnp.transpose(g, (2, 0, 3, 1, 4)).reshape(groups, n * positions, count * size)

    found = row_products(rows(one.g), None if two is None else rows(two.g))
    sides = [(g.shape[0], *((g.shape[1],) if output == "full" else ()), g.shape[3]) for g in (one.g, (two or one).g)]
    return found.reshape(*found.shape[:-2], *sides[0], *sides[1])


def _of_inputs(part: Part, one: Factored, two: Factored | None, dtype):
    """(groups, N, positions, M, positions)"""
    if part.rows:
        h, other = one.h, (two or one).h
        same = (h[:, :, None, None] == other[None, None]) & (h >= 0)[:, :, None, None]
        return same[None].astype(dtype)

    def rows(h):
        return jnp.moveaxis(h, 1, 0).reshape(h.shape[1], -1, h.shape[3])

    found = row_products(rows(one.h), None if two is None else rows(two.h))
    return found.reshape(found.shape[0], *(n for h in (one.h, (two or one).h) for n in (h.shape[0], h.shape[2])))


def _reduced(outputs, inputs, output: str):
    if output == "full":
        return (outputs if inputs is None else outputs * inputs[:, :, None, :, :, None, :]).sum((0, 3, 6))
    if output == "diag":
        return (outputs if inputs is None else outputs * inputs[:, None]).sum((0, 3, 5))
    return (outputs if inputs is None else outputs * inputs).sum((0, 2, 4))
