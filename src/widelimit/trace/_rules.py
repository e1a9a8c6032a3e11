"""What a rule is: one primitive, seen at two widths, and the table of functions that give its limit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from widelimit.fields import UnknownLimitError

__all__ = ["RULES", "Equation", "on_one_head", "paired_equation", "rule"]

RULES: dict[str, Callable] = {}


def rule(*names: str, **marks: bool):
    """Register a function ``(interpreter, equation, values) -> value or list of values`` for primitives.

    marks: structural (runs on constants too), elementwise, takes_flat (knows what to do with merged axes),
    takes_heads (with an axis of heads).
    """

    def register(function):
        for name in names:
            RULES[name] = function
        function.__dict__.update(marks)
        return function

    return register


@dataclasses.dataclass(frozen=True)
class Equation:
    """One primitive application, seen at two widths."""

    name: str
    primitive: Any
    params: dict
    params2: dict
    in_shapes: list[tuple[tuple[int, ...], tuple[int, ...]]]
    out_shapes: list[tuple[tuple[int, ...], tuple[int, ...]]]
    source: str

    def wide_in(self, i: int) -> tuple[bool, ...]:
        """Which axes of input i are wide."""
        return tuple(a != b for a, b in zip(*self.in_shapes[i], strict=True))

    def wide_out(self, i: int = 0) -> tuple[bool, ...]:
        """Which axes of output i are wide."""
        return tuple(a != b for a, b in zip(*self.out_shapes[i], strict=True))

    def refuse(self, why: str, remedy: str = "") -> UnknownLimitError:
        """The error for this equation."""
        place = f" at {self.source}" if self.source else ""
        finite = "limit.finite" if "aten." in self.source else "wl.monte_carlo"
        remedy = remedy or (
            f"Remedy: rewrite this line with operations whose limit is known, or compare finite networks with {finite}."
        )
        return UnknownLimitError(f"primitive `{self.name}`{place}: {why} {remedy}")


def on_one_head(function: Callable, equation: Equation, heads: Any, names: tuple[str, ...], out: int | None = None):
    """A rule for positions applied to one head, whose axis (in the output: `out`) is left out of all shapes.

    names: of the primitive's parameters that have an entry for each axis.
    """
    a = heads.axis
    out = a if out is None else out

    def less(values, axis):
        return None if values is None else (*values[:axis], *values[axis + 1 :])

    one = dataclasses.replace(
        equation,
        params={**equation.params, **{name: less(equation.params[name], a) for name in names}},
        params2={**equation.params2, **{name: less(equation.params2[name], a) for name in names}},
        in_shapes=[tuple(less(s, a) for s in equation.in_shapes[0])],
        out_shapes=[tuple(less(s, out) for s in equation.out_shapes[0])],
    )
    return dataclasses.replace(heads, field=function(None, one, [heads.field]), axis=out)


def paired_equation(eqn, eqn2, in_shapes) -> Equation:
    """One equation of a jaxpr beside the same equation at another width."""
    if eqn.primitive.name != eqn2.primitive.name:
        raise UnknownLimitError(
            f"the program does `{eqn.primitive.name}` at one width and `{eqn2.primitive.name}` at another; its "
            "limit cannot be read. Remedy: let the code not branch on the width."
        )
    return Equation(
        eqn.primitive.name,
        eqn.primitive,
        eqn.params,
        eqn2.params,
        in_shapes,
        [(tuple(a.aval.shape), tuple(b.aval.shape)) for a, b in zip(eqn.outvars, eqn2.outvars, strict=True)],
        _source(eqn),
    )


def _source(eqn) -> str:
    """``file:line`` of the user's code, where JAX's traceback gives it; the module, where the code is PyTorch's."""
    source = str(getattr(getattr(eqn, "source_info", None), "name_stack", ""))
    if "[torch " in source:
        return source.rpartition("[torch ")[2].partition("]")[0]
    traceback = getattr(getattr(eqn, "source_info", None), "traceback", None)
    for frame in getattr(traceback, "frames", None) or []:
        name = frame.file_name
        if "/jax/" not in name and "site-packages" not in name and "/widelimit/trace/" not in name:
            return f"{name}:{getattr(frame, 'line_num', None) or getattr(frame, 'start_line', '?')}"
    return ""
