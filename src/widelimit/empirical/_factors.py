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

from widelimit.empirical._uses import View, run

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


class Part(NamedTuple):
    """How the gradient by one parameter is held: "Gram" of factors, "gradient" made of factors, or "direct" by
    differentiation; entries: of the parameter.
    """

    leaf: int
    way: str
    sizes: Sizes | None
    entries: int
    rows: bool = False

    def stored(self, outputs: int) -> int:
        """Numbers held for one example."""
        if self.way != "Gram":
            return outputs * self.entries
        b, t, i, j = self.sizes
        return b * t * ((1 if self.rows else i) + outputs * j)

    def per_pair(self, outputs: int, pairs: int) -> tuple[int, int]:
        """Operations and numbers held for one pair of examples; pairs: of outputs that are asked for, O or O^2."""
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


def parts_of(leaves: Sequence[Any], uses: dict, outputs: int, pairs: int, way: str, n: int) -> list[Part]:
    """The way of each parameter for n examples; way: "best", or "Gram", "gradient" or "direct" wherever possible."""
    found = []
    for i, leaf in enumerate(leaves):
        direct = Part(i, "direct", None, math.prod(jnp.shape(leaf)))
        if i not in uses or way == "direct":
            found.append(direct)
            continue
        rows = uses[i][0].layout.kind == "rows"
        sizes = _sizes(uses[i])
        gram = Part(i, "Gram", sizes, direct.entries, rows)
        gradient = Part(i, "gradient", sizes, direct.entries)
        if rows:
            gradient = direct
        cost = {p: n * n * p.per_pair(outputs, pairs)[0] + n * p.per_example(outputs) for p in (gram, gradient)}
        chosen = {"Gram": gram, "gradient": gradient}.get(way) or min(cost, key=lambda p: cost[p])
        found.append(chosen)
    return found


def _sizes(layers) -> Sizes:
    shapes = [layer.h.shape if layer.layout.kind != "rows" else (1, *layer.h.shape, 0) for layer in layers]
    outputs = [jax.eval_shape(layer.split, layer.output).shape[2] for layer in layers]
    return Sizes(shapes[0][0], sum(s[1] for s in shapes), shapes[0][2], outputs[0])


def factors_of(closed, parts: Sequence[Part], leaves, x, outputs: int) -> dict[int, Factored]:
    """Factors of one example by parameter."""
    ways = {p.leaf: p for p in parts}
    direct = [p.leaf for p in parts if p.way == "direct"]

    def tapped(taps, varied):
        """The outputs with a tap added to what each layer gives, and what went into the layers."""
        given, seen, left = dict(zip(direct, varied, strict=True)), {}, {leaf: list(t) for leaf, t in taps.items()}

        def use(view, layer):
            if layer is None or view.leaf not in left:
                return None if layer is None else layer.output
            seen.setdefault(view.leaf, []).append((layer.h, view.scale))
            return layer.output + left[view.leaf].pop(0)

        arguments = [given[i] if i in given else View(i, (), 1.0, a) for i, a in enumerate(leaves)]
        outs = run(closed, [*arguments, *x], use)
        return outs[0], {leaf: [h for h, _ in pairs] for leaf, pairs in seen.items()}

    layers = _layers(closed, ways, leaves, x)
    taps = {
        leaf: [jnp.zeros(layer.output.shape, layer.output.dtype) for layer, _ in found]
        for leaf, found in layers.items()
    }
    out, pull, seen = jax.vjp(tapped, taps, [leaves[i] for i in direct], has_aux=True)
    back, by_leaf = jax.vmap(pull)(jnp.eye(outputs, dtype=out.dtype))
    found = {i: Factored(None, d.reshape(outputs, -1)) for i, d in zip(direct, by_leaf, strict=True)}
    for leaf, here in layers.items():
        gs = [
            jax.vmap(layer.split)(g) * jnp.asarray(scale, g.dtype)
            for (layer, scale), g in zip(here, back[leaf], strict=True)
        ]
        g = jnp.concatenate(gs, axis=2)
        h = jnp.concatenate(seen[leaf], axis=0 if ways[leaf].rows else 1)
        if ways[leaf].way == "gradient":
            found[leaf] = Factored(None, jnp.einsum("bti,obtj->obij", h, g).reshape(outputs, -1))
        else:
            found[leaf] = Factored(h, g)
    return found


def _layers(closed, ways, leaves, x) -> dict[int, list]:
    """(layer, scale) of each use of a parameter that is not differentiated directly."""
    found: dict[int, list] = {}

    def use(view, layer):
        if layer is None:
            return None
        if ways[view.leaf].way != "direct":
            found.setdefault(view.leaf, []).append((layer, view.scale))
        return layer.output

    def traced(leaves, x):
        found.clear()
        run(closed, [*(View(i, (), 1.0, a) for i, a in enumerate(leaves)), *x], use)
        return {leaf: [layer.output for layer, _ in layers] for leaf, layers in found.items()}

    outputs = jax.eval_shape(traced, leaves, x)
    return {
        leaf: [(layer._replace(output=o, h=None), s) for (layer, s), o in zip(found[leaf], outs, strict=True)]
        for leaf, outs in outputs.items()
    }


def contracted(part: Part, a: Factored, b: Factored, output: str, weight):
    """Products of the gradients by one parameter, times its learning rates, of every pair of two batches.

    (N, O, M, O) for "full", (O, N, M) for "diag", (N, M), summed over outputs, for "sum".
    """
    if part.way != "Gram":
        spec = {"full": "nok,mpk->nomp", "diag": "nok,mok->onm", "sum": "nok,mok->nm"}[output]
        return jnp.einsum(spec, a.g * jnp.asarray(weight, a.g.dtype), b.g)
    spec = {"full": "nobtj,mpbsj->bnotmps", "diag": "nobtj,mobsj->bontms", "sum": "nobtj,mobsj->bntms"}[output]
    outputs = jnp.einsum(spec, a.g, b.g)
    if part.rows:
        inputs = (a.h[:, :, None, None] == b.h[None, None]) & (a.h >= 0)[:, :, None, None]
        inputs = inputs[None].astype(outputs.dtype)
    else:
        inputs = jnp.einsum("nbti,mbsi->bntms", a.h, b.h)
    inputs = inputs * jnp.asarray(weight, inputs.dtype)
    if output == "full":
        return (outputs * inputs[:, :, None, :, :, None, :]).sum((0, 3, 6))
    if output == "diag":
        return (outputs * inputs[:, None]).sum((0, 3, 5))
    return (outputs * inputs).sum((0, 2, 4))
