"""The public doors: kernels of a module, and `limit` of any function or builder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from widelimit._examples import as_example, described, floating, in_double, in_one_precision
from widelimit._precision import enable_x64
from widelimit.fields import DEFAULT_POINTS
from widelimit.trace._check import Check, check_limit
from widelimit.trace._kernel import Kernel, evaluate
from widelimit.trace._outputs import checked_output
from widelimit.trace._plan import Plan, plan_of
from widelimit.trace._prior import Normal
from widelimit.trace._program import (
    Program,
    is_module,
    linen_builder,
    makes_linen,
    program_of_builder,
    program_of_function,
    program_of_module,
    with_width,
)
from widelimit.trace._torch import TorchBuilder, needs_width_only
from widelimit.trace._values import Det, Field

__all__ = ["Limit", "kernels", "limit", "nngp", "ntk"]


def _of_module(net, kinds, output, points) -> Kernel:
    name = kinds[0] if len(kinds) == 1 else "kernels"
    checked_output(name, output)
    points = _checked_points(name, points)
    if not hasattr(net, "init") or not hasattr(net, "apply") or isinstance(net, type):
        raise TypeError(
            f"expected a network with init(key, shape) and apply(params, x), such as nn.Sequential(...), not {net!r}. "
            "For a plain function use wl.limit(f, prior)."
        )
    return Kernel(lambda example: program_of_module(net, example)._replace(points=points), kinds, output, False)


def _checked_points(name: str, points: Any) -> int:
    if not isinstance(points, int | np.integer) or isinstance(points, bool) or points < 1:
        raise ValueError(f"{name}: points must be a positive integer, not {points!r}.")
    return int(points)


def nngp(net, *, output: str = "mean", points: int = DEFAULT_POINTS) -> Kernel:
    """Kernel of the Gaussian process that the wide network is at initialisation.

    ``K(x, x') = lim E[f(x) f(x')]`` per output, width -> infinity.  net: an `nn` module, or anything with
    ``init(key, shape)`` and ``apply(params, x, key=None)`` for one example and dataclass fields called `width`.
    output: "mean" over the O outputs, "sum", "diag" (O,) each with itself, or "full" (O, O).
    points: of quasi-Monte Carlo, used only where a nonlinearity acts on several preactivations at once.
    Raises TypeError for a net without init and apply, ValueError for an unknown output or points below 1.
    Source: Neal 1994; Lee et al. 2018, eq. 4-5; Matthews et al. 2018.
    """
    return _of_module(net, ("nngp",), output, points)


def ntk(net, *, output: str = "mean", points: int = DEFAULT_POINTS) -> Kernel:
    """Neural Tangent Kernel of the wide network.

    ``Theta(x, x') = lim <df(x)/dtheta, df(x')/dtheta>`` per output, width -> infinity.  Input as in `nngp`.
    Source: Jacot et al. 2018, theorem 1.
    """
    return _of_module(net, ("ntk",), output, points)


def kernels(net, *, output: str = "mean", points: int = DEFAULT_POINTS) -> Kernel:
    """Both kernels at once, as a named tuple ``(nngp, ntk)`` for each pair; cheaper than one after the other."""
    return _of_module(net, ("nngp", "ntk"), output, points)


def limit(
    f: Callable,
    prior: Callable[[int], Any] | None = None,
    *,
    lr: Any = None,
    output: str = "mean",
    points: int = DEFAULT_POINTS,
) -> Limit:
    """Infinite-width limit of a function, of the models that a builder makes, or of an `nn` module.

    ``limit(f, prior)``: ``f(params, x)`` on one example, ``prior(n)`` the pytree of `wl.normal` at width n.
    ``limit(builder)``: ``builder(n, key)`` returns a callable pytree (an Equinox or Flax NNX module) or a Flax Linen
    module of width n, or ``builder(n)`` a ``torch.nn.Module``, which is called on a batch of one example; priors are
    read from their initialisers.  A prior of a PyTorch builder states some parameters by name,
    ``{"0.weight": wl.normal(...)}``.
    ``limit(net)``: an `nn` module; its kernels are those of `wl.nngp` and `wl.ntk`.
    lr: None takes the learning rates stated in the prior (builders: "ntk"); "ntk" makes each ``lr = std^2``, the NTK of
    the NTK-parameterised twin; a number applies to all of a builder's parameters.
    output: as in `nngp`.
    points: of quasi-Monte Carlo, used only where a nonlinearity acts on several preactivations at once (a gate applied
    repeatedly, a nonlinearity after a residual sum); `Limit.explain` tells where, and its error.
    Raises TypeError for an f or prior that cannot be called or does not return `wl.normal`, ValueError for another lr
    or output, or points that are not a positive integer.  A kernel asked for raises UnknownLimitError where the output
    or its NTK grows or vanishes with the width (no ``1/sqrt(fan_in)``; learning rates of 1 beside std ``1/sqrt(n)``).
    """
    checked_output("limit", output)
    if not callable(f) and not is_module(f):
        raise TypeError(f"limit: the first argument must be a function, a builder or an nn module, not {f!r}.")
    if is_module(f) and (prior is not None or lr is not None):
        raise ValueError("limit: an nn module states its own prior and learning rates (W_lr, b_lr); give neither.")
    if prior is not None and not callable(prior):
        raise TypeError("limit: prior must be a function of the width n, e.g. lambda n: {'W': wl.normal((n, 8))}.")
    if prior is not None and needs_width_only(f) and not needs_width_only(prior):
        raise TypeError("limit: the prior is a function of the width only and comes second: limit(f, prior).")
    points = _checked_points("limit", points)
    if prior is not None and lr not in (None, "ntk"):
        raise ValueError(
            f'limit: with a prior, lr must be None or "ntk", not {lr!r}; state rates in wl.normal(..., lr=).'
        )
    if lr not in (None, "ntk") and not (isinstance(lr, int | float) and 0 <= lr < float("inf")):
        raise ValueError(f'limit: lr must be None, "ntk" or a number >= 0, not {lr!r}.')
    return Limit(f, prior, lr, output, points)


class Limit:
    """The limit of one network: kernels of a pair, and what they were read from."""

    def __init__(self, f: Callable, prior: Callable | None, lr: Any, output: str, points: int):
        self._f, self._prior, self._lr, self._points = f, prior, lr, points
        self._module = prior is None and is_module(f)
        self._torch: TorchBuilder | None = None
        self._program: Program | None = None  # known before an example is seen
        if not self._module and needs_width_only(f):
            default = "ntk" if prior is None else "own"
            self._torch = TorchBuilder(f, prior, default if lr is None else lr)
            self._program = self._torch.program()._replace(points=points)
        elif prior is not None:
            self._program = program_of_function(f, prior, "own" if lr is None else lr)._replace(points=points)
        elif not self._module and not makes_linen(f):
            self._program = program_of_builder(f, "ntk" if lr is None else lr)._replace(points=points)
        integers = not self._module
        self.nngp = Kernel(self._at, ("nngp",), output, integers)
        self.ntk = Kernel(self._at, ("ntk",), output, integers)
        self.kernels = Kernel(self._at, ("nngp", "ntk"), output, integers)
        self._mean_kernels = Kernel(self._at, ("nngp", "ntk"), "mean", integers)

    def _at(self, example) -> Program:
        if self._program is not None:
            return self._program
        if self._module:
            program = program_of_module(self._f, example)
        else:
            program = program_of_builder(self._builder(example), "ntk" if self._lr is None else self._lr)
        return program._replace(points=self._points)

    def _builder(self, example=None) -> Callable:
        """``builder(n, key)`` of callable models; a Linen model's parameters are made for an example."""
        return self._f if self._program is not None else linen_builder(self._f, example)

    def finite(self, n: int, key: jax.Array, x: Any = None) -> Callable:
        """The real network of width n: a function of one example, with parameters drawn from the prior.

        x: an example, needed for `nn` and Linen modules, whose parameters have shapes that depend on it.
        """
        if x is None and self._program is None:
            raise ValueError("finite: the parameters' shapes depend on the input: limit.finite(n, key, x).")
        if self._module:
            net = with_width(self._f, n)
            params = net.init(key, jax.tree.map(lambda a: tuple(a.shape), described(as_example(x))))
            return lambda x: net.apply(params, x)
        if self._torch is not None:
            values, network = self._torch.init(n, key), self._torch.network(n)
            return lambda x: network(values, x)
        if self._prior is None:
            return self._builder(None if x is None else described(as_example(x)))(n, key)
        params = self.draw(n, key)
        return lambda x: self._f(params, x)

    def draw(self, n: int, key: jax.Array):
        """Parameters of width n drawn from the prior, for ``f(params, x)``."""
        if self._prior is None or self._torch is not None:
            raise ValueError("draw: a builder or module draws its own parameters: use limit.finite(n, key).")
        leaves, structure = jax.tree.flatten(self._prior(n), is_leaf=lambda a: isinstance(a, Normal))
        keys = jax.random.split(key, len(leaves))
        return jax.tree.unflatten(structure, [a.draw(k) for a, k in zip(leaves, keys, strict=True)])

    def check(self, x: Any, *, key: jax.Array, widths: Sequence[int] = (128, 512), seeds: int = 32) -> Check:
        """Monte Carlo of the same code at finite widths beside the limit: a table, its slope, z-scores.

        x: (n, ...) examples, a few.  seeds: draws per width.  The error of one draw falls as ``width^-1/2``; the mean
        over draws differs from the limit by its standard error and a bias of order ``1/width``.
        Raises ValueError for widths that are not positive integers or fewer than 2 seeds.
        """
        return check_limit(self, x, key, widths, seeds)

    def plan(self, x=None, shape: tuple[int, ...] | None = None) -> Plan:
        """Operations and bytes that both kernels of one pair take, read off before anything runs.

        Networks that end in `Flatten` ask for equal positions of the two inputs only, pooled ones for pairs of
        positions; both are counted.  x: an example, or shape: that of one (an array of floating-point numbers), also
        as the first argument.  Raises ValueError if neither is given.
        """
        example = self._example("plan", x, shape)
        example = described(in_one_precision(jax.tree.map(_single, example))[0])
        return plan_of(self._at(example), ("nngp", "ntk"), example)

    def _example(self, name: str, x, shape):
        if isinstance(x, tuple) and all(isinstance(size, int) for size in x):
            x, shape = None, x  # an example of several parts has arrays
        if x is None and shape is None:
            raise ValueError(f"{name}: give an example x, or the shape of one.")
        example = as_example(x) if x is not None else np.ones(shape)  # type: ignore[arg-type]
        return floating(example) if self._module else example

    def explain(self, x=None, shape: tuple[int, ...] | None = None) -> str:
        """A table of the program: each parameter's law, each line's kind of node, and what is approximate.

        x: an example, or shape: that of one, also as the first argument.  Raises ValueError if neither is given.
        """
        example = self._example("explain", x, shape)
        log: list = []
        with enable_x64():
            program = self._at(described(example))
            evaluate(program, ("nngp", "ntk"), in_double(example), log=log)
            return "\n".join(_explained(program, log))


def _single(a):
    return np.asarray(a, np.float32) if a.dtype.kind == "f" else a


def _explained(program: Program, log) -> list[str]:
    lines = ["parameters (shape with n for wide axes; std; learning rate)"]
    for name, prior, shape, shape2 in zip(program.names, program.priors, program.shapes, program.shapes2, strict=False):
        axes = ", ".join("n" if a != b else str(a) for a, b in zip(shape, shape2, strict=True))
        lines.append(
            f"  {name or 'params'}: ({axes})  std {float(prior.variance) ** 0.5:.4g}  lr {float(prior.lr):.4g}"
        )
    lines.append("program (primitive -> result)")
    approximate: list[str] = []
    growth: list[str] = []
    for entry in log:
        if entry[0] == "growth":
            growth = entry[1]
            continue
        if entry[0] == "covariance":
            continue
        if entry[0] == "approximate":
            approximate = entry[1].lines()
            continue
        equation, outs = entry
        for out in outs:
            what = "deterministic" if isinstance(out, Det) else "parameter"
            if isinstance(out, Field):
                node = out.blocks[0][0]
                what = f"{type(node).__name__}{' (Gaussian)' if node.gaussian else ''}, wide axis {out.wide_axis}"
        lines.append(f"  {equation.name:20s} -> {what}" + (f"   [{equation.source}]" if equation.source else ""))
    lines.append("approximations")
    lines += [f"  {note}" for note in [*approximate, *program.notes]]
    if lines[-1] == "approximations":
        lines.append("  none: every expectation in closed form")
    if growth:
        lines += ["growth with the width", *(f"  {line}" for line in growth)]
    return lines
