"""Where a program uses its parameters: the layers that the empirical NTK is factorised by.

A network is run equation by equation.  A parameter that is only reshaped, transposed or scaled stays a `View` of it;
where a view meets the data in a matrix product, a convolution or a lookup of rows, that is a `Layer`: the gradient by
the parameter is then a sum over positions of outer products of what went in and the gradient by what came out,

    df_o/dW = sum_t h_t g_(o,t)^T,

so that products of gradients need h and g only (Goodfellow 2015; Novak et al. 2022, section 3).  A parameter that is
used in any other way is differentiated directly: nothing is approximate, and nothing has to be refused.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.extend import core as jex_core

from widelimit._equations import applied, bound, inlined

__all__ = ["Layer", "Layout", "Shared", "Shift", "View", "outputs", "uses_of"]

_MOVES = {"reshape", "transpose", "squeeze", "rev", "slice", "broadcast_in_dim"}
_KEEPS = {"copy", "copy_p", "convert_element_type"}


class Layout(NamedTuple):
    """How the gradient by a parameter is laid out in a use: equal for two uses whose gradients may be added.

    kind: "dense", "conv" or "rows"; chain: what was done to the parameter before; details: axes, groups or slices.
    """

    kind: str
    chain: tuple
    details: tuple


class View(NamedTuple):
    """Parameter number `leaf`, reshaped by `chain` (the same as equations: `steps`) and times `scale`.

    spread: whether its entries are there several times, as those of a bias at each position.
    """

    leaf: int
    array: Any
    chain: tuple = ()
    scale: float = 1.0
    steps: tuple = ()
    spread: bool = False


class Layer(NamedTuple):
    """A use of a parameter: h (groups, positions, inputs), or the numbers of rows (positions,); `split` brings the
    gradient by the output to (groups, positions, outputs).
    """

    leaf: int
    layout: Layout
    h: Any
    split: Callable[[Any], Any]
    output: Any  # before the tap: for its shape


class Output(NamedTuple):
    """What a layer gives, reshaped by the equations `steps` and times `scale`.

    alone: whether nothing else reads it, so that its gradient is that of the sum with a bias.
    """

    layer: Layer
    array: Any
    scale: float = 1.0
    steps: tuple = ()
    alone: bool = True


class Shift(NamedTuple):
    """A parameter added to what a layer gives, one entry for each of its outputs and the same at all positions.

    ratio: of the gradient by the shift to the gradient by what the layer gives; entries: which entry of the parameter
    is added to each output, as bytes.
    """

    layer: Layer
    ratio: float
    entries: bytes


class Shared(NamedTuple):
    """A bias whose gradient is that of layer `of` without what goes in, times `ratio`."""

    of: int
    ratio: float


def run(closed: jex_core.ClosedJaxpr, arguments: Sequence[Any], use: Callable[[View, Layer], Any]) -> list:
    """Outputs of a program whose arguments are arrays or views.

    use: called with each `Layer`, returns its output; with a `Shift`; or with None where a view is used in another way.
    """
    jaxpr = closed.jaxpr
    env: dict[Any, Any] = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    env.update(zip(jaxpr.invars, arguments, strict=True))
    names = [v for eqn in jaxpr.eqns for v in eqn.invars] + list(jaxpr.outvars)
    readers = Counter(v for v in names if not isinstance(v, jex_core.Literal))

    def read(v):
        if isinstance(v, jex_core.Literal):
            return v.val
        value = env[v]
        return value._replace(alone=False) if isinstance(value, Output) and readers[v] > 1 else value

    for eqn in jaxpr.eqns:
        env.update(zip(eqn.outvars, _equation(jaxpr, eqn, list(map(read, eqn.invars)), use), strict=True))
    return list(map(read, jaxpr.outvars))


def outputs(closed: jex_core.ClosedJaxpr, arguments: Sequence[Any], use: Callable[[View, Any], Any]) -> list:
    """`run`, with arrays for what layers give and views used otherwise."""
    found = run(closed, arguments, use)
    for out in found:
        if isinstance(out, View):
            use(out, None)
    return [out.array if isinstance(out, View | Output) else out for out in found]


def _equation(jaxpr, eqn, values, use) -> list:
    name = eqn.primitive.name
    if not any(isinstance(v, View | Output) for v in values):
        return applied(jaxpr, eqn, values)
    inner = inlined(eqn)
    if inner is not None:
        return run(inner, values, use)
    moved = _viewed(eqn, name, values)
    if moved is not None:
        return [moved]
    plain = [v.array if isinstance(v, View | Output) else v for v in values]
    layer = _layer(eqn, name, values, plain)
    if layer is not None:
        return [Output(layer, use(next(v for v in values if isinstance(v, View)), layer))]
    shift = _shift(name, values)
    for v in values:
        if isinstance(v, View):
            use(v, shift)
    return applied(jaxpr, eqn, plain)


def _shift(name, values) -> Shift | None:
    """A bias: a view added to what a layer gives."""
    if name != "add" or {type(v) for v in values} != {View, Output}:
        return None
    view, output = sorted(values, key=lambda v: isinstance(v, Output))
    if not output.alone:
        return None
    with jax.ensure_compile_time_eval():
        added, at = (_entries(v.steps, v.array) for v in (view, output))
        entries = np.empty(at.size, int)
        entries[at.ravel()] = np.broadcast_to(added, at.shape).ravel()
        groups = np.asarray(output.layer.split(jnp.asarray(entries.reshape(output.layer.output.shape))))
    same = (groups == groups[:, :1]).all() and len(np.unique(groups[:, 0])) == groups[:, 0].size
    return Shift(output.layer, view.scale / output.scale, groups[:, 0].tobytes()) if same and output.scale else None


def _entries(steps: tuple, array) -> np.ndarray:
    """Which entry of what the steps began with is where in what they gave."""
    shape = steps[0] if steps else array.shape
    entries = jnp.arange(math.prod(shape)).reshape(shape)
    for primitive, params in steps[1:]:
        entries = primitive.bind(entries, **params)
    return np.asarray(entries)


def _viewed(eqn, name, values) -> View | Output | None:
    """A view of which the equation moves or repeats entries, or a view or output that it multiplies by a number."""
    first = values[0]
    aval = eqn.outvars[0].aval
    if name in _KEEPS and (name != "convert_element_type" or jnp.issubdtype(aval.dtype, jnp.floating)):
        return first._replace(array=eqn.primitive.bind(first.array, **eqn.params))
    if name in _MOVES:
        array = eqn.primitive.bind(first.array, **eqn.params)
        whole = array.size == first.array.size
        steps = (*(first.steps or (jnp.shape(first.array),)), (eqn.primitive, eqn.params))
        if isinstance(first, Output):
            return first._replace(array=array, steps=steps) if whole else None
        if whole or name == "broadcast_in_dim":
            chain = (*first.chain, (name, _described(eqn.params), jnp.shape(array)))
            return first._replace(array=array, chain=chain, steps=steps, spread=first.spread or not whole)
    if name == "neg":
        return first._replace(array=-first.array, scale=-first.scale)
    if name in ("mul", "div") and len(values) == 2:
        held, other = (values[0], values[1]) if isinstance(first, View | Output) else (values[1], first)
        number = _number(other)
        if number is not None and not (name == "div" and (held is values[1] or number == 0)):
            scale = number if name == "mul" else 1 / number
            array = held.array * jnp.asarray(scale, held.array.dtype)
            return held._replace(array=array, scale=held.scale * scale)
    return None


def _number(value) -> float | None:
    """A number known now."""
    if isinstance(value, View | Output | Tracer) or np.size(value) != 1 or np.ndim(value) > 0:
        return None
    return float(value)


def _described(params) -> str:
    return str(sorted((k, str(v)) for k, v in params.items() if k != "sharding"))


def _layer(eqn, name, values, plain) -> Layer | None:
    views = [v for v in values if isinstance(v, View)]
    if len(views) != 1 or views[0].spread:
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
    return Layer(view.leaf, Layout("dense", view.chain, details), rows, split, bound(eqn, plain)[0])


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
    return Layer(view.leaf, layout, grouped(patches), grouped, bound(eqn, plain)[0])


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
    rows = index.reshape(-1)
    if "CLIP" in mode.upper() or mode == "0":
        rows = jnp.clip(rows, 0, table.shape[0] - 1)
    rows = jnp.where((rows >= 0) & (rows < table.shape[0]), rows.astype(jnp.int32), -1)  # of none: no gradient
    offsets = list(dims.offset_dims)

    def split(g):
        axes = [i for i in range(g.ndim) if i not in offsets]
        return jnp.transpose(g, [*axes, *offsets]).reshape(1, rows.shape[0], -1)

    return Layer(view.leaf, Layout("rows", view.chain, (table.shape,)), rows, split, bound(eqn, plain)[0])


def uses_of(closed, leaves: Sequence[Any], x: Sequence[Any]) -> tuple[dict[int, list[Layer]], dict[int, Shared]]:
    """For each parameter that is only used in layers of one layout: these, with shapes for arrays; and the biases."""
    found: dict[int, list[Layer]] = {}
    shifts: dict[int, list[tuple[int, int, float, bytes]]] = {}
    other: set[int] = set()

    def use(view, what):
        if what is None:
            other.add(view.leaf)
            return None
        if isinstance(what, Shift):
            leaf = what.layer.leaf
            number = next(i for i, layer in enumerate(found[leaf]) if layer is what.layer)
            if scale := scales[leaf][number]:
                shifts.setdefault(view.leaf, []).append((leaf, number, what.ratio / scale, what.entries))
            else:
                other.add(view.leaf)
            return None
        found.setdefault(view.leaf, []).append(what)
        scales.setdefault(view.leaf, []).append(view.scale)
        return what.output

    scales: dict[int, list[float]] = {}

    def traced(leaves, x):
        for known in (found, shifts, scales):
            known.clear()
        outputs(closed, [*(View(i, a) for i, a in enumerate(leaves)), *x], use)
        hs = {leaf: [layer.h for layer in layers] for leaf, layers in found.items()}
        return hs, {leaf: [layer.output for layer in layers] for leaf, layers in found.items()}

    hs, outs = jax.eval_shape(traced, leaves, x)
    kept = {}
    for leaf, layers in found.items():
        if leaf not in other and leaf not in shifts and all(layer.layout == layers[0].layout for layer in layers):
            shapes = zip(layers, hs[leaf], outs[leaf], strict=True)
            kept[leaf] = [layer._replace(h=h, output=out) for layer, h, out in shapes]
    shared = {}
    for leaf, rows in shifts.items():
        of, _, ratio, entries = rows[0]
        whole = [(of, i, ratio, entries) for i in range(len(kept.get(of, [])))]  # beside every use of that one
        if leaf not in other and leaf not in found and rows == whole:
            shared[leaf] = Shared(of, ratio)
    return kept, shared
