"""What a variable of the user's program holds while its limit is read: a number, a parameter or a wide field."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from widelimit._precision import at_once
from widelimit.fields import (
    Axes,
    Const,
    Copies,
    Ew,
    Frozen,
    Joint,
    Linear,
    Loop,
    Mat,
    Merge,
    Node,
    Noise,
    Prior,
    Prod,
    Score,
    Split,
    State,
    Sum,
    Take,
    UnknownLimitError,
    Vec,
    Windows,
    copied,
)
from widelimit.trace._uses import Uses

__all__ = ["BOTH_USES", "Det", "Field", "Flat", "Heads", "Weight", "aligned", "known", "rebuilt", "shifted"]


@dataclasses.dataclass(frozen=True)
class Det:
    """A deterministic array; along a wide axis it is constant and has size 1."""

    array: Any


@dataclasses.dataclass(frozen=True)
class Weight:
    """A parameter array, or a part of it.

    key: which parameter; axes: for each axis of the array, the parameter's own axis (None: a new axis of size 1);
    start, size: the part taken along each of the parameter's axes; wide: which of them are wide; scale: a factor;
    uses: of the parameter, shared by all its parts; splits: which of its axes are seen as several, and their sizes;
    flips: which of its axes are read backwards.
    """

    key: Any
    prior: Prior
    axes: tuple[int | None, ...]
    start: tuple[int, ...]
    size: tuple[int, ...]
    full: tuple[int, ...]
    wide: tuple[bool, ...]
    uses: Uses
    scale: Any = 1.0
    splits: tuple = ()
    flips: frozenset[int] = frozenset()

    def split(self, position: int, sizes: tuple[int, ...], wide: tuple[bool, ...]) -> Weight:
        """The parameter with one axis of the array, whole, seen as several."""
        own = self.axes[position]
        if own is None or self.size[own] != self.full[own] or own in self.flips:
            raise UnknownLimitError(
                "a part of a parameter's axis, or one that is reversed, is split into several axes. Remedy: give each "
                "part its own parameter, and reverse axes after the split."
            )

        def spread(values, new):
            return (*values[:own], *new, *values[own + 1 :])

        more = len(sizes) - 1
        axes = tuple(a if a is None or a < own else a + more for a in self.axes)
        return dataclasses.replace(
            self,
            axes=(*axes[:position], *range(own, own + len(sizes)), *axes[position + 1 :]),
            start=spread(self.start, (0,) * len(sizes)), size=spread(self.size, sizes),
            full=spread(self.full, sizes), wide=spread(self.wide, wide), splits=(*self.splits, (own, sizes)),
            flips=frozenset(a if a < own else a + more for a in self.flips),
        )  # fmt: skip

    def flipped(self, position: int) -> Weight:
        """The parameter with one finite axis of the array reversed: the value that it meets will be, in its place."""
        own = self.axes[position]
        return self if own is None else dataclasses.replace(self, flips=self.flips ^ {own})

    def of_one_head(self, position: int) -> Weight:
        """The parameter without one wide axis of the array: that of each head, alike and independent."""
        own = self.axes[position]
        other = self.uses.matrices or self.uses.axis_of_heads not in (None, own)
        if own is None or (self.start[own], self.size[own]) != (0, self.full[own]) or other:
            raise UnknownLimitError(
                "part of a parameter's axis of heads is used, or the parameter is used without heads, or with another "
                "axis as that of heads, too. Remedy: give each use its own parameter."
            )
        self.uses.heads, self.uses.axis_of_heads = self.uses.heads or Uses(), own

        def rest(values):
            return (*values[:own], *values[own + 1 :])

        axes = [a if a is None or a < own else a - 1 for i, a in enumerate(self.axes) if i != position]
        return dataclasses.replace(
            self, key=(self.key, "head", own), axes=tuple(axes), start=rest(self.start), size=rest(self.size),
            full=rest(self.full), wide=rest(self.wide), uses=self.uses.heads,
            flips=frozenset(a if a < own else a - 1 for a in self.flips),
        )  # fmt: skip

    def taken_key(self):
        """The parameter and the part of its finite axes: two parts are the same weight only if these agree."""
        self.uses.seen(self.splits)
        part = tuple(
            (a, self.start[a], self.size[a])
            for a in range(len(self.full))
            if not self.wide[a] and (self.start[a], self.size[a]) != (0, self.full[a])
        )
        self.uses.took([(a, a + n) for a, n in zip(self.start, self.size, strict=True)], self.wide)
        return (self.key, part, self.splits)


@dataclasses.dataclass(frozen=True)
class Field:
    """A wide random array: blocks of (node, number of channels) along the wide axis (None: no wide axis)."""

    blocks: tuple[tuple[Node, int], ...]
    wide_axis: int | None

    def map(self, function) -> Field:
        """Apply a function of nodes to every block."""
        return Field(tuple((function(node), n) for node, n in self.blocks), self.wide_axis)

    @property
    def shape(self) -> tuple[int, ...]:
        """Finite axes."""
        return self.blocks[0][0].shape


@dataclasses.dataclass(frozen=True)
class Flat:
    """A field whose wide axis is merged with axes around it (positions, heads): axis `axis` of the array stands for
    `sizes`.

    sizes2: the same at the other width.
    """

    field: Field | Heads
    axis: int
    sizes: tuple[int, ...]
    sizes2: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Heads:
    """A field with one more wide axis, of heads: axis `axis` of the array; `field` is that of one head.

    alike: whether heads and channels may change places (a weight applied), which they may not once a head's channels
    have something in common (its attention).
    """

    field: Field
    axis: int
    count: int
    alike: bool = True


def rebuilt(node: Node, leaf: Callable[[Node], Node]) -> Node:
    """The same function of other fields: `leaf` gives what stands for each constant, parameter, weight and loop.

    Of groups of channels too: what moves channels moves them by groups.
    """

    def again(x: Node) -> Node:
        return rebuilt(x, leaf)

    if isinstance(node, Const | Vec | Noise | Mat | Loop | State | Copies):
        return leaf(node)
    if isinstance(node, Sum):
        return Sum([(c, again(x)) for c, x in node.terms])
    if isinstance(node, Prod):
        return Prod([again(x) for x in node.factors])
    if isinstance(node, Score):
        return Score(again(node.factors[0]), again(node.factors[1]), node.n)
    if isinstance(node, Ew):
        return Ew(node.expression, again(node.leaf))
    if isinstance(node, Joint):
        return Joint(node.expression, [again(u) for u in node.leaves])
    if isinstance(node, Axes):
        return Axes(again(node.child), node.source, node.shape)
    if isinstance(node, Linear):
        return Linear(again(node.child), node.axis, node.matrix, node.along)
    if isinstance(node, Take):
        return Take(again(node.child), node.axis, node.index)
    if isinstance(node, Merge):
        return Merge(again(node.child), node.axis, node.count)
    if isinstance(node, Split):
        return Split(again(node.child), node.axis, node.sizes)
    if isinstance(node, Windows):
        return Windows(again(node.child), node.axis, node.window)
    if isinstance(node, Frozen):
        return Frozen(again(node.child))
    raise TypeError(type(node).__name__)


def shifted(node: Node, by: int) -> Node:
    """The same field read from channel `by` on: its parameters' channels move."""

    def moved(x: Node) -> Node:
        if isinstance(x, Const):
            return x
        if isinstance(x, Vec):
            return Vec(x.key, x.prior, x.shape, x.offset + by, x.places)
        if isinstance(x, Noise):
            return Noise(x.key, x.first, x.second, x.shape, x.offset + by)
        if isinstance(x, Mat):
            return Mat(x.key, x.prior, x.child, x.n, x.contracted, x.free, x.rows, x.offset + by, x.own)
        if isinstance(x, Copies):
            return copied(shifted(x.child, by * x.count), x.count)
        if isinstance(x, Loop):
            return shifted(x.recurrence.unrolled(x.index, x.last), by)
        raise UnknownLimitError("channels of a value carried by a loop are cut apart inside it.")

    return node if by == 0 else rebuilt(node, moved)


def aligned(fields: list[Field]) -> list[tuple[list[Node], int]]:
    """Blocks of several fields cut at common boundaries: lists of nodes, one per field, and the channels of each."""
    edges = sorted({e for f in fields for e in _edges(f)})
    out = []
    for low, high in itertools.pairwise(edges):
        out.append(([_piece(f, low) for f in fields], high - low))
    return out


def _edges(field: Field) -> list[int]:
    out = [0]
    for _, n in field.blocks:
        out.append(out[-1] + n)
    return out


def _piece(field: Field, low: int) -> Node:
    start = 0
    for node, n in field.blocks:
        if start <= low < start + n:
            return shifted(node, low - start) if len(field.blocks) > 1 or low else node
        start += n
    raise ValueError("channel outside the field")


def _check_vector(weight: Weight) -> None:
    if sum(weight.wide) > 1:
        raise UnknownLimitError(
            "a parameter with two wide axes is used entry by entry, not in a matrix product; its limit has no rule. "
            "Remedy: apply each matrix to the value, W @ x + V @ x instead of (W + V) @ x, or compare finite networks "
            "with wl.monte_carlo."
        )
    if weight.uses.matrices:
        raise UnknownLimitError(BOTH_USES)
    weight.uses.vector = True


BOTH_USES = (
    "one parameter is used as a vector over channels (an embedding, a gain) and in a contraction over the width (a "
    "readout); the two are correlated at every channel and the limit has no rule. Remedy: two parameters, or "
    "wl.monte_carlo for an estimate."
)


def _is_fixed(prior: Prior) -> bool:
    return all(isinstance(v, float | int) for v in prior) and prior.variance == 0 and prior.lr == 0


def known(value, dtype):
    """A vector that starts at a constant and is not trained (a gain of ones, running averages) as that constant."""
    if not isinstance(value, Weight) or not _is_fixed(value.prior) or sum(value.wide) > 1:
        return value
    shape = tuple(1 if a is None or value.wide[a] else value.size[a] for a in value.axes)
    with at_once(value.scale):
        return Det(jnp.full(shape, value.prior.mean * value.scale, dtype))


def _places(weight: Weight) -> tuple | None:
    """Which entries along the parameter's finite axes; None: all of each."""
    finite = [a for a in range(len(weight.full)) if not weight.wide[a]]
    present = [a for a in finite if a in weight.axes]
    if (
        not weight.flips
        and present == finite
        and all((weight.start[a], weight.size[a]) == (0, weight.full[a]) for a in finite)
    ):
        return None
    out = []
    for a in finite:
        shape = [weight.size[b] if b == a else 1 for b in present]
        entries = np.arange(weight.start[a], weight.start[a] + weight.size[a])
        entries = entries[::-1] if a in weight.flips else entries
        out.append(entries.reshape(shape) if a in present else entries[0].reshape(shape))
    return tuple(out)


def as_field(weight: Weight) -> Field:
    """A parameter used as a vector over channels (bias, gain, embedding row)."""
    _check_vector(weight)
    own = [a for a in weight.axes if a is not None]
    wide = [a for a in own if weight.wide[a]]
    finite = sorted(a for a in own if not weight.wide[a])
    offset = weight.start[wide[0]] if wide else 0
    sizes = tuple(weight.size[a] for a in finite)
    weight.uses.seen(weight.splits)
    node: Node = Vec((weight.key, weight.splits), weight.prior, sizes, offset, _places(weight))
    if _is_fixed(weight.prior):  # a gain of ones, zeros of a bias, that are not trained
        node = Const(jnp.full(sizes, weight.prior.mean))
    wide_axis = weight.axes.index(wide[0]) if wide else None
    source = [None if a is None else finite.index(a) for i, a in enumerate(weight.axes) if i != wide_axis]
    if source != list(range(len(finite))):
        sizes = tuple(1 if j is None else node.shape[j] for j in source)
        node = Axes(node, tuple(source), sizes)
    if not (isinstance(weight.scale, float) and weight.scale == 1.0):
        node = Sum([(weight.scale, node)])
    return Field(((node, weight.size[wide[0]] if wide else 1),), wide_axis)
