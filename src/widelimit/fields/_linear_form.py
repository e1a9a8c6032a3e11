"""Gaussian fields as linear forms in the values of a few others, their roots, at all positions of one axis.

``u_r = sum_j A_rj v_j``: what is picked from v, its mean over the axis, and the difference of the two have one root v.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from widelimit._precision import is_traced
from widelimit.fields._expanding import same_field
from widelimit.fields._node import Axes, Const, Linear, Node, Sum, Take

__all__ = ["Part", "Slot", "linear_forms"]


class Slot(NamedTuple):
    """A field of one side (0: X, 1: Y), or its values at all positions of one axis, which then are variables each.

    own: the axis of X or Y that each axis of the field is; axis: that of the positions, or None.
    """

    side: int
    node: Node
    own: tuple[int, ...]
    axis: int | None = None

    @property
    def size(self) -> int:
        return 1 if self.axis is None else self.node.shape[self.axis]


class Part(NamedTuple):
    """``sum_j matrix_rj v_j``: what a field takes of a slot v, r along its own axis `along` (None: one row)."""

    slot: int
    matrix: np.ndarray
    along: int | None = None


class _Term(NamedTuple):
    """``root`` moved, picked and summed: a matrix for each of its axes, and which axis of the field that is now.

    A root without axes has one matrix (1, 1), its coefficient.
    """

    root: Node
    matrices: list[np.ndarray]
    axes: list[int | None]


def _terms(node: Node, deep: bool) -> list[_Term] | None:
    """The field as a sum of terms; not deep: of one that is only moved and picked from.  None where it is none."""
    if isinstance(node, Take) and np.min(node.index, initial=0) >= 0:
        return _along(_terms(node.child, deep), node.axis, lambda m: m[node.index])
    if isinstance(node, Axes):
        terms = _terms(node.child, deep)
        return None if terms is None else [_moved(t, node.source) for t in terms]
    if deep and isinstance(node, Linear) and not node.along and not is_traced(node.matrix):
        matrix = np.asarray(node.matrix, np.float64)
        return _along(_terms(node.child, deep), node.axis, lambda m: matrix @ m, matrix.sum(-1))
    if deep and isinstance(node, Sum) and not any(isinstance(x, Const) or is_traced(c) for c, x in node.terms):
        found: list[_Term] = []
        for c, child in node.terms:
            terms = _terms(child, deep)
            if terms is None or np.ndim(c):
                return None
            found += [t._replace(matrices=_scaled(t.matrices, float(c))) for t in terms]
        return found
    return [_Term(node, [np.eye(n) for n in node.shape] or [np.eye(1)], list(range(len(node.shape))))]


def _scaled(matrices, c: float):
    """The number goes to the last axis."""
    return [*matrices[:-1], c * matrices[-1]]


def _along(terms, axis: int, change, total: Any = None) -> list[_Term] | None:
    """Terms changed along one axis; where a term does not vary along it, the row sums `total` must be one number."""
    found = []
    for t in terms or []:
        if axis in t.axes:
            at = t.axes.index(axis)
            found.append(t._replace(matrices=[change(m) if i == at else m for i, m in enumerate(t.matrices)]))
        elif total is None or np.ptp(total) == 0:
            found.append(t if total is None else t._replace(matrices=_scaled(t.matrices, float(total[0]))))
        else:
            return None
    return found or None


def _moved(term: _Term, source) -> _Term:
    return term._replace(axes=[source.index(a) if a in source and a is not None else None for a in term.axes])


def _is_identity(matrix: np.ndarray) -> bool:
    return matrix.shape[0] == matrix.shape[1] and np.array_equal(matrix, np.eye(len(matrix)))


def _slot(root: Node, terms: list[_Term]) -> Slot | None:
    """The root's slot: at most one of its axes is not the same axis of every term."""
    own: list[int] = []
    axis = None
    for b in range(len(root.shape)):
        places = {t.axes[b] for t in terms}
        if len(places) == 1 and None not in places and all(_is_identity(t.matrices[b]) for t in terms):
            own += [i for i in places if i is not None]
        elif axis is None:
            axis = b
            own.append(-1)
        else:
            return None
    return Slot(0, root, tuple(own), axis)


def _part(slot: int, of: Slot, terms: list[_Term]) -> Part | None:
    """All terms of one field in one slot."""
    total, along = np.zeros((1, of.size)), None
    for t in terms:
        if of.axis is None:
            total = total + (t.matrices[-1][:1, :1] if not of.node.shape else 1.0)
            continue
        place, matrix = t.axes[of.axis], t.matrices[of.axis]
        if place is not None and len(matrix) > 1:
            if along not in (None, place):
                return None
            along = place
        total = total + matrix
    if along is not None and np.all(total == total[:1]):
        return Part(slot, total[:1])
    return Part(slot, total, along)


def _together(fields: list[list[_Term]]) -> tuple[list[Slot], list[list[Part]]] | None:
    """Slots and parts of fields given as terms, if they are as many as the slots have positions, or more."""
    roots: list[list[_Term]] = []
    for t in (t for terms in fields for t in terms):
        same = next((r for r in roots if same_field(r[0].root, t.root)), None)
        roots.append([t]) if same is None else same.append(t)
    slots = [_slot(r[0].root, r) for r in roots]
    known = [s for s in slots if s is not None]
    if len(known) < len(slots) or sum(s.size for s in known) > len(fields):
        return None
    parts = []
    for terms in fields:
        of = [(i, [t for t in terms if any(t is u for u in r)]) for i, r in enumerate(roots)]
        own = [_part(i, known[i], ts) for i, ts in of if ts]
        if any(p is None for p in own):
            return None
        parts.append([p for p in own if p is not None])
    return known, parts


def linear_forms(fields: list[Node]) -> tuple[list[Slot], list[list[Part]]]:
    """Slots, and for each field its parts: fields that share roots together where that is no more variables."""
    slots: list[Slot] = []
    parts: list[list[Part]] = [[] for _ in fields]
    rest = list(range(len(fields)))
    for deep in (True, False):
        for family in _families(fields, rest, deep):
            found = _together([terms for _, terms in family]) if len(family) > 1 else None
            if found is None:
                continue
            for (i, _), own in zip(family, found[1], strict=True):
                parts[i] = [p._replace(slot=p.slot + len(slots)) for p in own]
                rest.remove(i)
            slots += found[0]
    for i in rest:
        parts[i] = [Part(len(slots), np.ones((1, 1)))]
        slots.append(Slot(0, fields[i], tuple(range(len(fields[i].shape)))))
    return slots, parts


def _families(fields: list[Node], rest: list[int], deep: bool) -> list[list[tuple[int, list[_Term]]]]:
    """Fields that share roots."""
    families: list[list[tuple[int, list[_Term]]]] = []
    for i in rest:
        terms = _terms(fields[i], deep)
        if terms is None:
            continue
        shared = [f for f in families if any(same_field(t.root, u.root) for t in terms for _, us in f for u in us)]
        families = [f for f in families if f not in shared] + [[*(m for f in shared for m in f), (i, terms)]]
    return families
