"""``cov(X, Y) -> (K, T)``: the pulling recursion over pairs of nodes, computing only what is asked for."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from widelimit.duals import DEFAULT_POINTS, Dual, Pair
from widelimit.fields import (
    _composition,
    _copies,
    _gap,
    _joint,
    _linear,
    _nonlinearity,
    _parameters,
    _product,
    _recurrence,
    _taking,
)
from widelimit.fields._approximations import Approximations
from widelimit.fields._expanding import as_joint
from widelimit.fields._node import (
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
    Prod,
    Score,
    Split,
    State,
    Sum,
    Take,
    Vec,
    Windows,
    height,
)
from widelimit.fields._placing import Tie, full_tie, inverse, place_x, place_y, swap

__all__ = ["Covariance"]


class Covariance:
    """Memoised second moments of fields: ``K = E[X Y]`` and ``T = E[dX dY]`` per channel.

    d is the tangent of the program along an i.i.d. Gaussian direction of its parameters (variance lr), so that the T
    of the outputs is the NTK.  A structural zero is None.  `approximate` collects notes on anything not closed-form;
    points: of the quasi-Monte Carlo averages where a function of several fields needs one.
    """

    def __init__(self, points: int = DEFAULT_POINTS) -> None:
        self.points = points
        self._memo: dict = {}
        self._alive: list[tuple[Node, Node]] = []
        self._kept: list = []
        self.approximate = Approximations()
        self.noises: dict = {}  # masks by the random key that draws them
        self.given: _recurrence.Given | None = None  # moments of what one step of a loop sees
        self.loops: dict = {}  # tables over times

    def K(self, X: Node, Y: Node, tie: Tie | None = None):
        """Raw second moment ``E[X Y]``."""
        return self._remember("K", X, Y, full_tie(X) if tie is None else tie)

    def T(self, X: Node, Y: Node, tie: Tie | None = None):
        """Tangent moment ``E[dX dY]``."""
        return self._remember("T", X, Y, full_tie(X) if tie is None else tie)

    def gap(self, X: Node, Y: Node, tie: Tie):
        """``(s - K, s + K, sqrt(E[X^2]) - sqrt(E[Y^2]))``, ``s = sqrt(E[X^2] E[Y^2])``, without cancellation.

        None where no rule gives it.
        """
        return self._remember("gap", X, Y, tie)

    def image(self, X: Node, Y: Node, tie: Tie, dual: Dual, pair: Pair):
        """``dual.image(pair)`` of two equal functions X and Y, once for K and the gap."""
        key, nx = ("image", id(X), id(Y), tie), len(X.shape)
        if key not in self._memo:
            self._alive.append((X, Y))
            back = self._memo.get(("image", id(Y), id(X), inverse(tie, nx)))
            self._memo[key] = dual.image(pair) if back is None else jax.tree.map(lambda a: swap(a, tie, nx), back)
        return self._memo[key]

    def mean(self, X: Node):
        """``E[X]`` over X's axes."""
        return self._remember("mean", X, X, ())

    def slopes(self, X: Joint) -> list:
        """``E[d_j X]`` by each variable that X is a function of, in one average."""
        return self._remember("slopes", X, X, ())

    def variance(self, X: Node):
        """``E[X^2]`` over X's axes (0 for None)."""
        value = self.K(X, X)
        return jnp.zeros(X.shape) if value is None else value

    def _remember(self, kind, X, Y, tie):
        key = (kind, id(X), id(Y), tie)
        if key not in self._memo:
            self._alive.append((X, Y))
            if kind == "mean":
                value = _mean(self, X)
            elif kind == "slopes":
                value = _joint.slopes_of_joint(self, X)
            elif kind == "joint":
                value = as_joint(X) or X
            elif kind == "merged":
                value = _simplified(self, X)
            elif kind == "gap":
                value = _gap.gap(self, X, Y, tie)
            else:
                value = _pair(self, kind, X, Y, tie)
            self._memo[key] = value
        return self._memo[key]

    def merged(self, X: Node) -> Node:
        """X, or one function of all the Gaussian fields in it where its factors do not come apart.

        A function of a field shifted by a number is one of the field itself where that has a closed form.
        """
        if not isinstance(X, Sum | Prod | Ew) or X.gaussian:
            return X
        return self._remember("merged", X, X, ())

    def joint(self, X: Node) -> Node:
        """X as one function of all the Gaussian fields in it, where it is one."""
        return self._remember("joint", X, X, ())

    def inside(self, given) -> Covariance:
        """A Covariance for one step of a loop, which knows the moments of what the step sees."""
        inner = Covariance(self.points)
        inner.given = given
        return inner

    def requests(self) -> list[tuple[bool, int]]:
        """Moments of fields with positions that were asked for: whether of pairs of positions, numbers in the array."""
        fields = {(id(X), id(Y)): (X, Y) for X, Y in self._alive}
        found = []
        for (kind, x, y, tie), value in self._memo.items():
            X, Y = fields[x, y]
            if kind in ("K", "T") and value is not None and max(X.shape, default=1) > 1:
                apart = any(j is None and n > 1 for j, n in zip(tie, Y.shape, strict=True))
                found.append((apart, int(jnp.size(value))))
        return found

    def keep(self, thing) -> None:
        """Hold on to something whose identity is a key of a memo."""
        self._kept.append(thing)

    def pair(self, kind: str, X: Node, Y: Node, tie: Tie):
        """K or T by name."""
        return self._remember(kind, X, Y, tie)


_UNARY = (Axes, Linear, Frozen)
_LINEAR = (Sum, *_UNARY)
_TAKING = (Take, Windows, Merge, Split)


def _pair(cov, kind, X, Y, tie):
    nx = len(X.shape)
    if isinstance(X, Const) or isinstance(Y, Const):
        return None if kind == "T" else _means_product(cov, X, Y, tie)
    X, Y = _merged(cov, X, Y)
    if isinstance(X, _LINEAR) and (not isinstance(Y, _LINEAR) or height(X) > height(Y)):
        # the higher is taken apart first: the cost of a residual stream stays linear in its depth
        if isinstance(X, Sum):
            return _linear.sum_on_the_left(cov, kind, X, Y, tie)
        return swap(cov.pair(kind, Y, X, inverse(tie, nx)), tie, nx)
    if isinstance(Y, Sum):
        return _linear.sum_rule(cov, kind, X, Y, tie)
    if isinstance(Y, _UNARY):
        return _linear.unary_rule(cov, kind, X, Y, tie)
    if isinstance(X, State) and isinstance(Y, State):
        found = _recurrence.given_pair(cov, kind, X, Y, tie)
        return _means_product(cov, X, Y, tie) if found is None and kind == "K" else found
    if _copies.are_different(X, Y, tie):
        return None if kind == "T" else _means_product(cov, X, Y, tie)
    if isinstance(Y, _TAKING):
        return _taking.taking_rule(cov, kind, X, Y, tie)
    if isinstance(X, _TAKING):
        return swap(cov.pair(kind, Y, X, inverse(tie, nx)), tie, nx)
    if isinstance(X, Copies) and isinstance(Y, Copies):
        return _copies.copies_rule(cov, kind, X, Y, tie)
    if isinstance(X, Loop) or isinstance(Y, Loop):
        return _recurrence.loop_rule(cov, kind, X, Y, tie)
    if isinstance(X, Prod) or isinstance(Y, Prod):
        return _product.product_rule(cov, kind, X, Y, tie)
    if any(isinstance(Z, Copies) and not Z.gaussian for Z in (X, Y)):  # of a mask, or of what a loop leaves
        _copies.check_unrelated(X, Y)
        return None if kind == "T" else _means_product(cov, X, Y, tie)
    if isinstance(X, Noise) or isinstance(Y, Noise):
        return _parameters.noise_rule(cov, kind, X, Y, tie)
    if isinstance(Y, Joint):
        if isinstance(X, Ew | Joint):
            return _joint.joint_rule(cov, kind, X, Y, tie)
        return _nonlinearity.stein_rule(cov, kind, X, Y, tie)
    if isinstance(X, Joint):
        return swap(cov.pair(kind, Y, X, inverse(tie, nx)), tie, nx)
    if isinstance(X, Ew) and isinstance(Y, Ew):
        return _nonlinearity.nonlinearity_rule(cov, kind, X, Y, tie)
    if isinstance(Y, Ew):
        return _nonlinearity.stein_rule(cov, kind, X, Y, tie)
    if isinstance(X, Ew):
        return swap(cov.pair(kind, Y, X, inverse(tie, nx)), tie, nx)
    if isinstance(X, Copies) or isinstance(Y, Copies):
        _copies.check_unrelated(X, Y)
        return None if kind == "T" else _means_product(cov, X, Y, tie)
    if isinstance(X, Vec) and isinstance(Y, Vec):
        return _parameters.vector_rule(cov, kind, X, Y, tie)
    if isinstance(X, Score) and isinstance(Y, Score):
        return _product.score_rule(cov, kind, X, Y, tie)
    if isinstance(X, Mat) and isinstance(Y, Mat):
        return _parameters.weight_rule(cov, kind, X, Y, tie)
    return None if kind == "T" else _means_product(cov, X, Y, tie)


def _means_product(cov, X, Y, tie):
    mx, my = cov.mean(X), cov.mean(Y)
    return None if mx is None or my is None else place_x(mx, tie) * place_y(my, tie, len(X.shape))


def _merged(cov, X, Y):
    X, Y = cov.merged(X), cov.merged(Y)
    if isinstance(X, Joint) and isinstance(Y, Sum | Prod) and not Y.gaussian:
        Y = cov.joint(Y)
    if isinstance(Y, Joint) and isinstance(X, Sum | Prod) and not X.gaussian:
        X = cov.joint(X)
    return X, Y


def _simplified(cov, X):
    if isinstance(X, Ew):
        return _composition.unshifted(X)
    one = _composition.one_closed_form(cov, X) if isinstance(X, Sum) else None
    return one or (cov.joint(X) if _product.is_entangled(cov, X) else X)


def _mean(cov, X):
    X = cov.merged(X)
    if isinstance(X, Const):
        return X.array
    if isinstance(X, Vec):
        fixed = isinstance(X.prior.mean, float | int) and X.prior.mean == 0
        return None if fixed else jnp.asarray(X.prior.mean)
    if isinstance(X, Noise):
        return jnp.asarray(X.first)
    if isinstance(X, Mat | Score):
        return None
    if isinstance(X, State):
        return None if X.gaussian else cov.given.means[X.side, X.name]
    if isinstance(X, Loop):
        return None if X.gaussian else _recurrence.mean_of_loop(cov, X)
    if isinstance(X, Sum):
        return _linear.mean_of_sum(cov, X)
    if isinstance(X, _UNARY):
        return _linear.mean_of_unary(cov, X)
    if isinstance(X, Copies):
        value = cov.mean(X.child)
        return value if value is None or not jnp.ndim(value) else value[..., None]
    if isinstance(X, _TAKING):
        value = cov.mean(X.child)
        return None if value is None else _taking.picked(jnp.broadcast_to(value, X.child.shape), X)
    if isinstance(X, Ew):
        return _nonlinearity.mean_of_nonlinearity(cov, X)
    if isinstance(X, Joint):
        return _joint.mean_of_joint(cov, X)
    if isinstance(X, Prod):
        return _product.expectation(cov, [(0, f) for f in X.factors], X, X, full_tie(X))
    raise TypeError(f"unknown kind of node: {type(X).__name__}")
