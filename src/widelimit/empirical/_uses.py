"""Where a program uses its parameters: the layers that the empirical NTK is factorised by.

A network is run equation by equation.  A parameter that is only reshaped, transposed or scaled stays a `View` of it;
where a view meets the data in a matrix product, a convolution or a lookup of rows, that is a `Use`: the gradient by the
parameter is then a sum over positions of outer products of what went in and the gradient by what came out,

    df_o/dW = sum_t h_t g_(o,t)^T,

so that products of gradients need h and g only (Goodfellow 2015; Novak et al. 2022, section 3).  A parameter that is
used in any other way is differentiated directly: nothing is approximate, and nothing has to be refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core as jex_core

__all__ = ["Layer", "Layout", "View", "run", "uses_of"]

# A program inside the equation is run as part of this one.
_INLINED = {"jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"}
_VIEWS = {"reshape", "transpose", "squeeze", "rev", "copy", "copy_p"}


class Layout(NamedTuple):
    """How the gradient by a parameter is laid out in a use: equal for two uses whose gradients may be added.

    kind: "dense", "conv" or "rows"; chain: what was done to the parameter before; details: axes, groups or slices.
    """

    kind: str
    chain: tuple
    details: tuple


class View(NamedTuple):
    """Parameter number `leaf`, reshaped by `chain` and times `scale`."""

    leaf: int
    chain: tuple
    scale: float
    array: Any


class Layer(NamedTuple):
    """A use of a parameter: h (groups, positions, inputs), or the numbers of rows (positions,); `split` brings the
    gradient by the output to (groups, positions, outputs).
    """

    leaf: int
    layout: Layout
    h: Any
    split: Callable[[Any], Any]
    output: Any  # before the tap: for its shape


def run(closed: jex_core.ClosedJaxpr, arguments: Sequence[Any], use: Callable[[View, Layer], Any]) -> list:
    """Outputs of a program whose arguments are arrays or views.

    use: called with each `Layer`, returns its output; ``None`` as layer: the view is used in another way.
    """
    jaxpr = closed.jaxpr
    env: dict[Any, Any] = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    env.update(zip(jaxpr.invars, arguments, strict=True))
    for eqn in jaxpr.eqns:
        values = [v.val if isinstance(v, jex_core.Literal) else env[v] for v in eqn.invars]
        env.update(zip(eqn.outvars, _equation(eqn, values, use), strict=True))
    return [v.val if isinstance(v, jex_core.Literal) else env[v] for v in jaxpr.outvars]


def _equation(eqn, values, use) -> list:
    name = eqn.primitive.name
    if not any(isinstance(v, View) for v in values):
        return _applied(eqn, values)
    if name in _INLINED:
        inner = eqn.params["jaxpr"]
        inner = inner if isinstance(inner, jex_core.ClosedJaxpr) else jex_core.ClosedJaxpr(inner, ())
        return run(inner, values, use)
    view = _viewed(eqn, name, values)
    if view is not None:
        return [view]
    plain = [v.array if isinstance(v, View) else v for v in values]
    layer = _layer(eqn, name, values, plain)
    if layer is not None:
        return [use(next(v for v in values if isinstance(v, View)), layer)]
    for v in values:
        if isinstance(v, View):
            use(v, None)
    return _applied(eqn, plain)


def _applied(eqn, values) -> list:
    """The equation by itself; one with functions inside as a program of one equation, which keeps their rules."""
    if not _holds_programs(eqn.params):
        out = eqn.primitive.bind(*values, **eqn.params)
        return list(out) if eqn.primitive.multiple_results else [out]
    given = {v: a for v, a in zip(eqn.invars, values, strict=True) if not isinstance(v, jex_core.Literal)}
    alone = jex_core.Jaxpr([], list(given), eqn.outvars, [eqn], eqn.effects)
    return list(jex_core.jaxpr_as_fun(jex_core.ClosedJaxpr(alone, []))(*given.values()))


def _holds_programs(params) -> bool:
    items = (i for value in params.values() for i in (value if isinstance(value, tuple | list) else [value]))
    return any(isinstance(i, jex_core.Jaxpr | jex_core.ClosedJaxpr) for i in items)


def _viewed(eqn, name, values) -> View | None:
    """The view that the equation makes of a view, if it only moves its entries or scales all of them."""
    first = values[0]
    if len(values) == 1 and isinstance(first, View):
        aval = eqn.outvars[0].aval
        same_size = math.prod(aval.shape) == math.prod(jnp.shape(first.array))
        floating = name == "convert_element_type" and jnp.issubdtype(aval.dtype, jnp.floating)
        if name in _VIEWS or floating or (name == "broadcast_in_dim" and same_size):
            array = eqn.primitive.bind(first.array, **eqn.params)
            step = () if name in ("copy", "copy_p") or floating else ((name, _described(eqn.params), jnp.shape(array)),)
            return View(first.leaf, first.chain + step, first.scale, array)
        if name == "neg":
            return View(first.leaf, first.chain, -first.scale, -first.array)
    if name in ("mul", "div") and len(values) == 2:
        view, other = (values[0], values[1]) if isinstance(first, View) else (values[1], first)
        number = _number(other)
        if isinstance(view, View) and number is not None and not (name == "div" and view is values[1]):
            scale = number if name == "mul" else 1 / number
            return View(view.leaf, view.chain, view.scale * scale, view.array * jnp.asarray(scale, view.array.dtype))
    return None


def _number(value) -> float | None:
    """A number known now."""
    if isinstance(value, View | jax.core.Tracer) or np.size(value) != 1 or np.ndim(value) > 0:
        return None
    return float(value)


def _described(params) -> str:
    return str(sorted((k, str(v)) for k, v in params.items() if k != "sharding"))


def _layer(eqn, name, values, plain) -> Layer | None:
    if sum(isinstance(v, View) for v in values) != 1:
        return None
    if name == "dot_general":
        return _dense(eqn, values, plain)
    if name == "conv_general_dilated" and isinstance(values[1], View):
        return _convolution(eqn, values, plain)
    if name == "gather" and isinstance(values[0], View):
        return _rows(eqn, values, plain)
    return None


def _dense(eqn, values, plain) -> Layer:
    """``h (groups, positions, inputs)`` times the view laid out as (groups, inputs, outputs)."""
    (contract, batch) = eqn.params["dimension_numbers"]
    side = 1 if isinstance(values[1], View) else 0  # of the parameter
    view, h = values[side], plain[1 - side]
    order = sorted(range(len(contract[side])), key=lambda i: contract[side][i])
    groups = sorted(range(len(batch[side])), key=lambda i: batch[side][i])
    inner = [contract[1 - side][i] for i in order]
    shared = [batch[1 - side][i] for i in groups]
    free = [i for i in range(h.ndim) if i not in inner and i not in shared]
    sizes = [math.prod(h.shape[i] for i in axes) for axes in (shared, free, inner)]
    kept = view.array.ndim - len(inner) - len(shared)
    first, second = (len(free), kept) if side == 1 else (kept, len(free))

    def split(g):
        """The output has the groups in the order of the equation, the left operand's free axes, then the right's."""
        n = len(groups)
        left, right = list(range(n, n + first)), list(range(n + first, n + first + second))
        positions, outputs = (left, right) if side == 1 else (right, left)
        return jnp.transpose(g, [*groups, *positions, *outputs]).reshape(sizes[0], sizes[1], -1)

    details = (tuple(sorted(contract[side])), tuple(sorted(batch[side])))
    rows = jnp.transpose(h, [*shared, *free, *inner]).reshape(sizes)
    return Layer(view.leaf, Layout("dense", view.chain, details), rows, split, _applied(eqn, plain)[0])


def _convolution(eqn, values, plain) -> Layer | None:
    p, view, x = eqn.params, values[1], plain[0]
    if p["batch_group_count"] != 1:
        return None
    dims, groups = p["dimension_numbers"], p["feature_group_count"]
    window = [view.array.shape[i] for i in dims.rhs_spec[2:]]
    patches = lax.conv_general_dilated_patches(
        x, window, p["window_strides"], p["padding"], p["lhs_dilation"], p["rhs_dilation"],
        dimension_numbers=dims, precision=lax.Precision.HIGHEST,
    )  # fmt: skip
    at = dims.out_spec

    def grouped(a):
        """(groups, positions, channels of a group); channels are the slow axis of the patches."""
        a = jnp.moveaxis(a, at[1], 0).reshape(groups, a.shape[at[1]] // groups, -1)
        return jnp.swapaxes(a, 1, 2)

    layout = Layout("conv", view.chain, (dims.rhs_spec, groups, tuple(window)))
    return Layer(view.leaf, layout, grouped(patches), grouped, _applied(eqn, plain)[0])


def _rows(eqn, values, plain) -> Layer | None:
    """Whole rows of a table looked up by their numbers, as an embedding does."""
    p, view, index = eqn.params, values[0], plain[1]
    dims, table = p["dimension_numbers"], view.array
    whole = tuple(p["slice_sizes"]) == (1, *table.shape[1:]) and table.ndim == 2
    if not (whole and tuple(dims.collapsed_slice_dims) == (0,) and tuple(dims.start_index_map) == (0,)):
        return None
    if getattr(dims, "operand_batching_dims", ()):
        return None
    mode = str(p.get("mode"))
    rows = index.reshape(-1).astype(jnp.int32)
    if "CLIP" in mode.upper() or mode == "0":
        rows = jnp.clip(rows, 0, table.shape[0] - 1)
    rows = jnp.where((rows >= 0) & (rows < table.shape[0]), rows, -1)  # of none, which has no gradient
    offsets = list(dims.offset_dims)

    def split(g):
        axes = [i for i in range(g.ndim) if i not in offsets]
        return jnp.transpose(g, [*axes, *offsets]).reshape(1, rows.shape[0], -1)

    return Layer(view.leaf, Layout("rows", view.chain, (table.shape,)), rows, split, _applied(eqn, plain)[0])


def uses_of(closed: jex_core.ClosedJaxpr, leaves: Sequence[Any], x: Sequence[Any]) -> dict[int, list[Layer]]:
    """For each parameter that is only used in layers of one layout: these, with shapes for arrays."""
    found: dict[int, list[Layer]] = {}
    direct: set[int] = set()

    def use(view, layer):
        if layer is None:
            direct.add(view.leaf)
            return None
        found.setdefault(view.leaf, []).append(layer)
        return layer.output

    def traced(leaves, x):
        found.clear()
        outs = run(closed, [*(View(i, (), 1.0, a) for i, a in enumerate(leaves)), *x], use)
        for out in outs:
            if isinstance(out, View):
                direct.add(out.leaf)
        hs = {leaf: [layer.h for layer in layers] for leaf, layers in found.items()}
        return hs, {leaf: [layer.output for layer in layers] for leaf, layers in found.items()}

    hs, outputs = jax.eval_shape(traced, leaves, x)
    kept = {}
    for leaf, layers in found.items():
        if leaf not in direct and all(layer.layout == layers[0].layout for layer in layers):
            shapes = zip(layers, hs[leaf], outputs[leaf], strict=True)
            kept[leaf] = [layer._replace(h=h, output=out) for layer, h, out in shapes]
    return kept
