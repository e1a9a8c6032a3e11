"""How values grow with the width: a program whose scaling leaves it without a limit is refused, and the line named.

Each value is of order ``width^size`` and its derivative by the parameters, times the root of their learning rates, of
order ``width^slope``.  A sum over the width of a Gaussian parameter times a value gives ``width^(1/2)``, of anything
else ``width^1`` (its mean); only homogeneous functions may act on what grows or vanishes.  A limit has ``size 0`` and
``slope 0`` at the output (Yang and Hu 2021, theorem 3.3, for the parameterisation ``width^-a``).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex_core

from widelimit._equations import loop_sizes
from widelimit._precision import is_traced
from widelimit.fields import UnknownLimitError
from widelimit.trace._calls import inner_program
from widelimit.trace._rules import Equation, paired_equation

__all__ = ["check_growth", "growth_lines"]

_NEVER = -math.inf
_NUMBER, _PARAMETER, _FIELD = range(3)


class Growth(NamedTuple):
    """Exponents of the width (None: not known, because a scale is being traced) and where they come from."""

    size: float | None
    slope: float | None
    kind: int
    size_from: str = ""
    slope_from: str = ""
    mean: float = _NEVER  # of a parameter: a contraction adds up means, with the width, and the rest with its root


_ZERO = Growth(_NEVER, _NEVER, _NUMBER)
_ONE = Growth(0.0, _NEVER, _NUMBER)


def _exponent(value, half, what: str) -> float | None:
    """e of ``value ~ width^e``, read at a width and at half of it; -inf for zero."""
    if is_traced(value) or is_traced(half):
        return None
    a, b = (float(np.max(np.abs(np.asarray(v, np.float64)), initial=0.0)) for v in (value, half))
    if a == b or (math.isnan(a) and math.isnan(b)):
        return 0.0 if a else _NEVER
    e = math.log2(a / b) if a and b and math.isfinite(a) and math.isfinite(b) else math.nan
    rounded = round(e * 24) / 24 if math.isfinite(e) else 0.0
    if not abs(e - rounded) < 1e-6:
        raise UnknownLimitError(
            f"{what} is {a:.6g} at one width and {b:.6g} at half of it, which is no power of the width; its limit is "
            "not known. Remedy: scale it with a power of the width, or not at all."
        )
    return rounded


def _growth(program, closed, closed2) -> Growth:
    """Of the output of a program traced at two widths."""
    priors, priors2 = program.priors, program.priors2
    if program.written_width:  # and its double
        closed, closed2, priors, priors2 = closed2, closed, priors2, priors
    values = []
    for name, prior, prior2 in zip(program.names, priors, priors2, strict=True):
        sizes = [
            _exponent(p, q, f"the {what} of {name or 'params'}")
            for p, q, what in zip(prior, prior2, ("variance", "learning rate", "mean"), strict=True)
        ]
        size = None if None in sizes else max(sizes[0] / 2, sizes[2])  # type: ignore[operator]
        slope = None if sizes[1] is None else sizes[1] / 2
        mean = _NEVER if sizes[2] is None else sizes[2]
        values.append(Growth(size, slope, _PARAMETER, "", name or "params", mean))
    consts = [_constant(a, b) for a, b in zip(closed.consts, closed2.consts, strict=True)]
    inputs = [_ONE] * (len(closed.jaxpr.invars) - len(values))
    outs = _run(closed.jaxpr, closed2.jaxpr, consts, [*values, *inputs])
    return outs[0]


def check_growth(program, closed, closed2, kinds: tuple[str, ...]) -> None:
    """Raise UnknownLimitError if a kernel asked for diverges or vanishes with the width."""
    if len(closed.jaxpr.outvars) != 1:
        return  # refused later, with a better word
    found = _growth(program, closed, closed2)
    if "nngp" in kinds and _moves(found.size):
        place = f" ({found.size_from})" if found.size_from else ""
        raise UnknownLimitError(
            f"the output {_verb(found.size)} with the width, as width^{_fraction(found.size)}{place}, so its NNGP has "
            "no limit but 0 or infinity. Remedy: scale the parameters so that every layer stays of order 1: "
            "std 1/sqrt(fan_in), or std 1 and a division by sqrt(fan_in)."
        )
    if "ntk" in kinds and not program.written_width and found.slope is not None and _moves(found.slope):
        raise UnknownLimitError(
            f"the NTK {_verb(found.slope)} with the width, as width^{_fraction(2 * found.slope)} "
            f"(through {found.slope_from}). Remedy: give each parameter the learning rate of its NTK-parameterised "
            'twin, lr="ntk" (lr = std^2), or divide the learning rates by that power of the width.'
        )


def growth_lines(program, closed, closed2) -> list[str]:
    """What `explain` says of it: powers of the width of the output and of its NTK."""
    try:
        found = _growth(program, closed, closed2)
    except UnknownLimitError as error:
        return [f"no limit: {error}"]
    if found.size is None or found.slope is None:
        return ["not known while a scale is traced"]
    powers = [(name, e) for name, e in (("NNGP", 2 * found.size), ("NTK", 2 * found.slope)) if _moves(e)]
    return [f"the {name} has no limit: it {_verb(e)} as width^{_fraction(e)}" for name, e in powers]


def _moves(e) -> bool:
    return e is not None and e != _NEVER and abs(e) > 1e-6


def _verb(e) -> str:
    return "grows" if e > 0 else "vanishes"


def _fraction(e) -> str:
    for denominator in (1, 2, 3, 4):
        if abs(e * denominator - round(e * denominator)) < 1e-6:
            return f"{round(e * denominator)}" if denominator == 1 else f"({round(e * denominator)}/{denominator})"
    return f"{e:.3g}"


def _constant(value, half) -> Growth:
    dtype = getattr(value, "dtype", None)
    if dtype is None and not isinstance(value, int | float):
        return _ONE
    if dtype is not None and (jnp.issubdtype(dtype, jax.dtypes.prng_key) or jnp.issubdtype(dtype, jnp.bool_)):
        return _ONE
    return Growth(_exponent(value, half, "a constant"), _NEVER, _NUMBER)


def _run(jaxpr, jaxpr2, consts, values) -> list[Growth]:
    env: dict = dict(zip(jaxpr.constvars, consts, strict=True))
    env.update(zip(jaxpr.invars, values, strict=True))
    shapes = {a: (tuple(a.aval.shape), tuple(b.aval.shape)) for a, b in _variables(jaxpr, jaxpr2)}

    def read(a, b):
        if isinstance(a, jex_core.Literal):
            return _constant(a.val, b.val), (np.shape(a.val), np.shape(b.val))
        return env[a], shapes[a]

    for eqn, eqn2 in zip(jaxpr.eqns, jaxpr2.eqns, strict=True):
        ins = [read(a, b) for a, b in zip(eqn.invars, eqn2.invars, strict=True)]
        equation = paired_equation(eqn, eqn2, [s for _, s in ins])
        for var, var2, out in zip(eqn.outvars, eqn2.outvars, _step(equation, [g for g, _ in ins]), strict=True):
            env[var] = out
            shapes[var] = (tuple(var.aval.shape), tuple(var2.aval.shape))
    return [read(a, b)[0] for a, b in zip(jaxpr.outvars, jaxpr2.outvars, strict=True)]


def _variables(jaxpr, jaxpr2):
    yield from zip(jaxpr.constvars, jaxpr2.constvars, strict=True)
    yield from zip(jaxpr.invars, jaxpr2.invars, strict=True)


_LARGEST = {"add", "add_any", "sub", "max", "min", "concatenate", "stack", "clamp", "pad", "dynamic_update_slice"}
_FIRST = {
    "transpose", "broadcast_in_dim", "squeeze", "reshape", "expand_dims", "slice", "dynamic_slice", "gather", "rev",
    "copy", "copy_p", "convert_element_type", "reduce_precision", "optimization_barrier", "neg", "abs", "split",
    "unstack", "stop_gradient", "reduce_max", "reduce_min", "real", "reduce_window_sum", "cumsum", "reduce_window_max",
}  # fmt: skip
_POWERS = {"sqrt": 0.5, "rsqrt": -0.5, "cbrt": 1 / 3, "square": 2.0}
_OF_SIGN = {"sign", "gt", "ge", "lt", "le", "eq", "ne", "is_finite"}


def _step(equation: Equation, values: list[Growth]) -> list[Growth]:
    name, count = equation.name, len(equation.out_shapes)
    inner = inner_program(equation.params)
    if inner is not None and name == "scan":
        return _scan(equation, values)
    if inner is not None and equation.params.get("name") not in ("_bernoulli", "_normal", "_uniform"):
        (jaxpr, consts), (jaxpr2, consts2) = inner, inner_program(equation.params2)  # type: ignore[misc]
        pairs = zip(consts, consts2, strict=True)
        return _run(jaxpr, jaxpr2, [_constant(a, b) for a, b in pairs], values)
    if any(v.size is None or v.slope is None for v in values):
        return [Growth(None, None, max(v.kind for v in values))] * count
    if name in _LARGEST:
        return [_largest(values)] * count
    if name == "select_n":
        return [_largest(values[1:])._replace(kind=max(v.kind for v in values))]
    if name in _FIRST:
        frozen = {"slope": _NEVER, "slope_from": ""} if name == "stop_gradient" else {}
        return [values[0]._replace(**frozen)] * count
    if name in ("mul", "div"):
        right = values[1] if name == "mul" else _power(values[1], -1.0)
        return [_product(values[0], right)]
    if name in _POWERS:
        return [_power(values[0], _POWERS[name])]
    if name == "integer_pow":
        return [_power(values[0], float(equation.params["y"]))]
    if name == "dot_general":
        contract, batch = equation.params["dimension_numbers"]
        return [_contraction(equation, values[0], values[1], contract[0], batch[0])]
    if name == "conv_general_dilated":
        dims = equation.params["dimension_numbers"]
        each = not _over_width(equation, dims.rhs_spec[1:2], 1)  # a filter for each channel contracts none
        return [_contraction(equation, values[0], values[1], () if each else dims.lhs_spec[1:2])]
    if name in ("reduce_sum", "psum"):
        return [_sum(equation, v) for v in values]
    if name in _OF_SIGN:
        return [Growth(0.0, _NEVER, max(_FIELD if v.kind else _NUMBER for v in values))]
    return [_function(equation, values)] * count


def _largest(values) -> Growth:
    size, slope = max(values, key=lambda v: v.size), max(values, key=lambda v: v.slope)
    kind = values[0].kind if len(values) == 1 else max(_FIELD if v.kind else _NUMBER for v in values)
    return Growth(size.size, slope.slope, kind, size.size_from, slope.slope_from)


def _product(a: Growth, b: Growth, width: float = 0.0) -> Growth:
    """Of ``a b``, summed over the width if `width` says so: ``(a b)' = a' b + a b'``."""
    size = _plus(a.size, b.size, width)
    slope, whence = max((_plus(a.slope, b.size, width), a.slope_from), (_plus(b.slope, a.size, width), b.slope_from))
    kinds = {a.kind, b.kind}
    kind = _NUMBER if kinds == {_NUMBER} else _PARAMETER if kinds == {_NUMBER, _PARAMETER} and not width else _FIELD
    mean = max(_plus(a.mean, b.size), _plus(b.mean, a.size)) if kind == _PARAMETER else _NEVER
    return Growth(size, slope, kind, a.size_from or b.size_from, whence, mean)


def _plus(*exponents) -> float:
    return _NEVER if _NEVER in exponents else sum(exponents)


def _power(v: Growth, p: float) -> Growth:
    size = -_NEVER if v.size == _NEVER and p < 0 else v.size * p  # type: ignore[operator]
    size = 0.0 if not math.isfinite(size) and size > 0 else size  # 1/0: for the evaluation to meet
    slope = v.slope if v.size == _NEVER else _plus(v.slope, size - v.size)  # type: ignore[operator]
    return Growth(size, slope, _FIELD if v.kind else _NUMBER, v.size_from, v.slope_from)


def _over_width(equation, axes, i) -> bool:
    wide = equation.wide_in(i)
    return any(wide[a] for a in axes)


def _channels(equation, axes, i) -> float:
    """e of the ``width^e`` entries along some axes, read at a width and at half of it: 2 where heads are joined."""
    total = 0.0
    for a in axes:
        sizes = [shape[a] for shape in equation.in_shapes[i]]
        if sizes[0] != sizes[1]:
            e = math.log2(max(sizes) / min(sizes)) if min(sizes) else 1.0
            rounded = round(e * 24) / 24
            total += rounded if abs(e - rounded) < 1e-6 else 1.0  # beside a fixed number: width + 3
    return total


def _contraction(equation, a: Growth, b: Growth, contract, batch=()) -> Growth:
    if not _over_width(equation, contract, 0):
        return _product(a, b)._replace(kind=_FIELD if a.kind or b.kind else _NUMBER)
    count = _channels(equation, contract, 0)  # also of heads and their channels, at once
    if _over_width(equation, batch, 0) and _PARAMETER not in (a.kind, b.kind):  # of independent channels, in each head
        out = _product(a, b, count / 2)
        return _marked(equation, out, count / 2, "an inner product over the channels of each head")
    if _PARAMETER in (a.kind, b.kind):
        out = _product(a, b, count / 2)
        size = max(out.size, _plus(a.mean, b.size, count), _plus(b.mean, a.size, count))  # type: ignore[type-var]
        return _marked(equation, out._replace(size=size), count / 2, "a contraction with a parameter")
    out = _product(a, b, count)
    return _marked(equation, out._replace(slope=_NEVER, kind=_NUMBER), count, "an inner product over the width")


def _sum(equation, v: Growth) -> Growth:
    if not _over_width(equation, equation.params["axes"], 0):
        return v._replace(kind=_FIELD if v.kind else _NUMBER)
    count = _channels(equation, equation.params["axes"], 0)
    out = Growth(_plus(v.size, count), _NEVER, _NUMBER, v.size_from)
    return _marked(equation, out, count, "a sum over the width, which tends to the width times a mean,")


def _marked(equation, out: Growth, added: float, what: str) -> Growth:
    """The line that makes a value grow is the one to name."""
    if out.size_from or not (added and _moves(out.size)):
        return out
    return out._replace(size_from=f"{what} at {equation.source}" if equation.source else what)


def _function(equation, values) -> Growth:
    for v in values:
        if _moves(v.size):
            place = f" ({v.size_from})" if v.size_from else ""
            remedy = (
                "Remedy: scale the parameters so that every layer stays of order 1: std 1/sqrt(fan_in), or std 1 and "
                "a division by sqrt(fan_in)."
            )
            if "an inner product" in v.size_from:
                remedy = (
                    "Remedy: divide the inner product by the width. (Attention that divides its logits by the root of "
                    "the width has a limit with as many heads as channels, nn.SelfAttention(scaling='root_width').)"
                )
            raise equation.refuse(
                f"its argument {_verb(v.size)} with the width, as width^{_fraction(v.size)}{place}, so that the limit "
                "of this function of it is degenerate or unknown.",
                remedy,
            )
    slope, whence = max(((v.slope, v.slope_from) for v in values), default=(_NEVER, ""))
    kind = max((_FIELD if v.kind else _NUMBER for v in values), default=_NUMBER)
    return Growth(0.0, slope, kind, "", whence)


def _scan(equation, values) -> list[Growth]:
    """A loop: steps until nothing changes any more; what still grows after a few grows for ever."""
    constants, carried = loop_sizes(equation.params)
    (body, own), (body2, own2) = inner_program(equation.params), inner_program(equation.params2)  # type: ignore[misc]
    consts = [_constant(a, b) for a, b in zip(own, own2, strict=True)]
    fixed, carry, xs = values[:constants], values[constants : constants + carried], values[constants + carried :]
    outs: list[Any] = []
    for _ in range(min(equation.params["length"], 8)):
        outs = _run(body, body2, consts, [*fixed, *carry, *xs])
        if [(c.size, c.slope) for c in outs[:carried]] == [(c.size, c.slope) for c in carry]:
            break
        carry = outs[:carried]
    return outs
