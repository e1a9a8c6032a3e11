"""The kinds of wide random field: the nodes of the graph that `trace` builds and `Covariance` reads.

A node stands for one channel of a wide random array; channels are exchangeable, and all that is kept of them is their
law.  ``shape`` are its finite axes (positions, time, heads; ``()`` for a plain layer).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import numpy as np

__all__ = [
    "Axes", "Const", "Copies", "Ew", "Frozen", "Joint", "Linear", "Loop", "Mat", "Merge", "Node", "Noise", "Prior",
    "Prod", "Score", "Split", "State", "Sum", "Take", "Vec", "Window", "Windows", "height",
]  # fmt: skip


class Prior(NamedTuple):
    """Law of a parameter array: entries i.i.d. ``N(mean, variance)``, trained with learning rate `lr`."""

    variance: Any
    lr: Any
    mean: Any = 0.0


class Node:
    """A wide random field."""

    shape: tuple[int, ...] = ()
    gaussian = False


class Const(Node):
    """A deterministic array, the same in every channel."""

    gaussian = True

    def __init__(self, array: jax.Array):
        self.array = array
        self.shape = tuple(array.shape)


class Vec(Node):
    """A parameter used as a vector over channels (a bias, a gain): entries independent over its finite axes too.

    key: which parameter; offset: which channel of it is channel 0 here.  places: for each finite axis of the parameter
    the entry used, an array that broadcasts to `shape` (tokens of an embedding, which may be traced); None: the axes
    are those of the parameter.
    """

    gaussian = True

    def __init__(self, key, prior: Prior, shape=(), offset: int = 0, places: tuple | None = None):
        self.key, self.prior, self.shape, self.offset, self.places = key, prior, tuple(shape), offset, places

    def own_places(self) -> tuple:
        """`places`, also where the axes are those of the parameter."""
        if self.places is not None:
            return self.places
        rank = len(self.shape)
        return tuple(np.arange(n).reshape([n if j == i else 1 for j in range(rank)]) for i, n in enumerate(self.shape))


class Noise(Node):
    """Fresh noise per input and site (a dropout mask): independent across inputs; mean and second moment known."""

    def __init__(self, key, first, second, shape=(), offset: int = 0):
        self.key, self.first, self.second, self.shape, self.offset = key, first, second, tuple(shape), offset


class Mat(Node):
    """A Gaussian weight contracted with a value: ``z = sum_i W_i x_i`` over `n` channels and the contracted axes.

    child: the value, its last `contracted` finite axes summed over.  free: finite axes of the weight that remain; the
    shape is the child's other axes, then these.  rows: where the contracted channels start in the weight (blocks of a
    concatenation); offset: as in Vec.  key identifies the weight, so repeated use is right.
    own: kept axes that are the weight's too: another weight at each position (locally connected).
    """

    gaussian = True

    def __init__(
        self, key, prior: Prior, child: Node, n: int, contracted: int, free=(), rows: int = 0, offset: int = 0,
        own: tuple[int, ...] = (),
    ):  # fmt: skip
        self.key, self.prior, self.child, self.n = key, prior, child, n
        self.contracted, self.free, self.rows, self.offset = contracted, tuple(free), rows, offset
        self.kept, self.own = len(child.shape) - contracted, own
        self.shape = tuple(child.shape[: self.kept]) + self.free


class Sum(Node):
    """``sum_i c_i X_i`` of nodes of one shape; the coefficients are numbers or arrays of that shape.

    height: how many sums are nested in it, down to weights: of a residual stream, its blocks.
    """

    def __init__(self, terms: list[tuple[Any, Node]]):
        self.terms = terms
        self.shape = terms[0][1].shape
        self.height = 1 + max(height(node) for _, node in terms)
        self.gaussian = all(node.gaussian for _, node in terms)


def height(node: Node) -> int:
    """How many sums are nested in a node, down to weights."""
    while not isinstance(node, Sum):
        if isinstance(node, Mat) or not hasattr(node, "child"):
            return 0
        node = node.child  # type: ignore[attr-defined]
    return node.height


class Axes(Node):
    """Finite axes permuted, added (repeated) or, where their size is 1, dropped.

    source[i] is the child's axis that becomes axis i, or None for a new one of size shape[i].
    """

    def __init__(self, child: Node, source: tuple[int | None, ...], shape: tuple[int, ...]):
        self.child, self.source, self.shape = child, tuple(source), tuple(shape)
        self.gaussian = child.gaussian


class Linear(Node):
    """``y_i = sum_j A_ij x_j`` along one finite axis (pooling, mixing, attention).

    along: other finite axes on which A depends (heads); its own axes are these, then i and j.
    """

    def __init__(self, child: Node, axis: int, matrix: jax.Array | np.ndarray, along: tuple[int, ...] = ()):
        self.child, self.axis, self.matrix, self.along = child, int(axis), matrix, tuple(along)
        self.shape = (*child.shape[:axis], matrix.shape[-2], *child.shape[axis + 1 :])
        self.gaussian = child.gaussian


class Take(Node):
    """``y_o = x_index[o]`` along one finite axis, 0 where the index is negative (slices, flips, gathers, padding)."""

    def __init__(self, child: Node, axis: int, index: np.ndarray):
        self.child, self.axis, self.index = child, int(axis), np.asarray(index)
        self.shape = (*child.shape[:axis], len(self.index), *child.shape[axis + 1 :])
        self.gaussian = child.gaussian


class Merge(Node):
    """Neighbouring finite axes `axis`, ... seen as one: ``y_(i m + j) = x_ij``."""

    def __init__(self, child: Node, axis: int, count: int):
        self.child, self.axis, self.count = child, int(axis), int(count)
        self.sizes = child.shape[axis : axis + count]
        self.shape = (*child.shape[:axis], math.prod(self.sizes), *child.shape[axis + count :])
        self.gaussian = child.gaussian


class Split(Node):
    """One finite axis seen as several: ``y_ij = x_(i m + j)``."""

    def __init__(self, child: Node, axis: int, sizes: tuple[int, ...]):
        self.child, self.axis, self.sizes = child, int(axis), tuple(sizes)
        self.shape = (*child.shape[:axis], *self.sizes, *child.shape[axis + 1 :])
        self.gaussian = child.gaussian


class Window(NamedTuple):
    """What a filter sees along one axis: ``index(o, k) = (o stride + k dilation - low) / spread`` where that is whole.

    size: number of outputs o; taps: of filter offsets k; spread: the input's own dilation (transposed convolutions).
    A negative dilation is that of a filter read backwards.
    """

    size: int
    taps: int
    stride: int = 1
    dilation: int = 1
    low: int = 0
    spread: int = 1

    def index(self, n: int) -> np.ndarray:
        """(size, taps) positions of an axis of size n, -1 where the filter sees none."""
        at = np.arange(self.size)[:, None] * self.stride + np.arange(self.taps) * self.dilation - self.low
        position, rest = at // self.spread, at % self.spread
        return np.where((rest == 0) & (position >= 0) & (position < n), position, -1)

    def matrix(self, n: int) -> np.ndarray:
        """(size, n): how often each position is seen by each output, so that sums over windows are a product."""
        index, out = self.index(n), np.zeros((self.size, n))
        for k in range(self.taps):
            seen = np.nonzero(index[:, k] >= 0)[0]
            np.add.at(out, (seen, index[seen, k]), 1.0)
        return out


class Windows(Node):
    """``y_{.. o .. k} = x_{.. index(o, k) ..}`` along one finite axis, 0 where there is none; k is a new last axis."""

    def __init__(self, child: Node, axis: int, window: Window):
        self.child, self.axis, self.window = child, int(axis), window
        self.shape = (*child.shape[:axis], window.size, *child.shape[axis + 1 :], window.taps)
        self.gaussian = child.gaussian


class Copies(Node):
    """Independent copies of a field along a new last finite axis: `count` neighbouring channels seen as one group."""

    def __init__(self, child: Node, count: int):
        self.child, self.count, self.shape, self.gaussian = child, int(count), (*child.shape, count), child.gaussian


class Frozen(Node):
    """The same field, cut off from training (`stop_gradient`): its tangent is 0."""

    def __init__(self, child: Node):
        self.child, self.shape, self.gaussian = child, child.shape, child.gaussian


class Ew(Node):
    """``phi(u)``: an elementwise function (an expression) of one Gaussian field."""

    def __init__(self, expression, leaf: Node):
        self.expression, self.leaf, self.shape = expression, leaf, leaf.shape


class Joint(Node):
    """``phi(u_1, ..., u_k)``: an elementwise function (an expression) of several Gaussian fields."""

    def __init__(self, expression, leaves: list[Node]):
        self.expression, self.leaves, self.shape = expression, leaves, leaves[0].shape


class Prod(Node):
    """A product of fields, channel by channel (gates, masks, squares)."""

    def __init__(self, factors: list[Node]):
        self.factors, self.shape = factors, factors[0].shape


class Score(Node):
    """``S = sum_k X_k Y_k`` over n channels of one head, for fields whose channels are told apart by head too.

    A sum of many independent products of mean 0: Gaussian, independent from head to head (Hron et al. 2020, theorem 3).
    """

    gaussian = True

    def __init__(self, first: Node, second: Node, n: int):
        self.factors, self.n, self.shape = [first, second], n, first.shape


class State(Node):
    """Inside one step of a loop: a value from outside the step, of which only the moments are known.

    side: 0 or 1, of which input; name: ("carried", i), what the step before it left, or ("outer", i), a field that was
    there before the loop (at this step, if it is taken apart along time).
    """

    def __init__(self, side: int, name: tuple[str, int], shape, gaussian: bool):
        self.side, self.name, self.shape, self.gaussian = side, name, tuple(shape), gaussian


class Loop(Node):
    """An output of a loop: over time on a first axis, or (`last`) after the last step."""

    def __init__(self, recurrence, index: int, last: bool):
        self.recurrence, self.index, self.last = recurrence, index, last
        shape, self.gaussian = recurrence.outputs[index]
        self.shape = tuple(shape) if last else (recurrence.length, *shape)
