"""A PyTorch module as a graph of ATen operations, at one width or at every width."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from widelimit.fields import UnknownLimitError
from widelimit.trace._torch_backward import forward_watched, without_no_grad

__all__ = ["Graph", "Node", "Ref", "exported", "lifted", "lifted_integer", "lifted_number"]


class Ref(NamedTuple):
    """The value of another node."""

    name: str


class Node(NamedTuple):
    """One ATen operation, ``linear.default`` say; place: the module it is in, and the line of code if known."""

    name: str
    op: str
    args: Any
    kwargs: Any
    place: str


class Graph(NamedTuple):
    """nodes in order; inputs: placeholder -> name of a parameter, buffer or constant; x, output: names of nodes.

    constants: NumPy arrays of tensors that are made in `forward`, or plain attributes.
    """

    nodes: list[Node]
    inputs: dict[str, str]
    constants: dict[str, np.ndarray]
    x: str
    output: str


def exported(module, shape: tuple[int, ...], integers: bool, kept: Sequence[str]) -> Graph:
    """The graph of a module applied to one example in a batch of one; operations named in `kept` stay whole.

    Raises ValueError where PyTorch cannot apply or export the module.
    """
    import torch

    first = next(iter(module.parameters()))
    dtype = torch.int64 if integers else first.dtype
    example = torch.zeros((1, *shape), dtype=dtype, device=first.device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch about itself
        try:
            with forward_watched(module):
                program = torch.export.export(module, (example,), strict=False)
            without_no_grad(program)
            table = torch.export.default_decompositions()
            for name in kept:
                name, _, overload = name.partition(".")
                packet = getattr(torch.ops.aten, name, None)
                for own in packet.overloads() if packet is not None else ():
                    if overload in ("", own):
                        table.pop(getattr(packet, own), None)
            program = program.run_decompositions(table)
        except (UnknownLimitError, KeyboardInterrupt):
            raise
        except Exception as error:  # PyTorch raises errors of many kinds here
            reason = str(error).strip().split("\n")[0]
            if "Long, Int" in reason and not integers:
                reason += " (Embeddings of integer tokens have no rule yet.)"
            raise ValueError(
                f"torch.export cannot read the module for an input of shape {(1, *shape)}: {type(error).__name__}: "
                f"{reason}"
            ) from error
    return _graph(program)


def _graph(program) -> Graph:
    import torch

    signature = program.graph_signature
    inputs = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    constants = {
        name: value.detach().numpy()
        for name, value in program.constants.items()
        if isinstance(value, torch.Tensor) and value.device.type == "cpu"
    }
    if signature.buffers_to_mutate:
        changed = ", ".join(signature.buffers_to_mutate.values())
        raise ValueError(
            f"the module's forward changes its own state ({changed}). Remedy: module.eval(), or a copy of it."
        )
    outputs = list(signature.user_outputs)
    if len(outputs) != 1 or not isinstance(outputs[0], str) or len(signature.user_inputs) != 1:
        raise ValueError(f"the module must return one tensor, and returns {len(outputs)}.")
    nodes = []
    for node in program.graph.nodes:
        if node.op == "call_function":
            op = str(node.target).removeprefix("aten.") if hasattr(node.target, "overloads") else None
            op = op or (str(node.target).removeprefix("aten.") if "." in str(node.target) else node.target.__name__)
            nodes.append(Node(node.name, op, *_arguments(node, op), _place(node, op)))
    return Graph(nodes, inputs, constants, signature.user_inputs[0], outputs[0])


def _arguments(node, op: str) -> tuple[tuple, dict]:
    """Arguments of a node, with those that PyTorch reads off the type of the data."""
    args, kwargs = _plain(node.args), _plain(node.kwargs)
    if not op.startswith("rms_norm"):
        return args, kwargs
    eps = kwargs.get("eps", args[3] if len(args) > 3 else None)
    if eps is None:
        import torch

        dtype = node.args[0].meta["val"].dtype
        eps = torch.finfo(dtype if dtype == torch.float64 else torch.float32).eps
    return args[:3], {**kwargs, "eps": eps}


def _plain(value: Any) -> Any:
    """Arguments of a node without PyTorch's types: dtypes as names, "short" of integers below 32 bits; no devices."""
    import torch

    if isinstance(value, torch.fx.Node):
        return Ref(value.name)
    if isinstance(value, tuple | list):
        return tuple(_plain(v) for v in value)
    if isinstance(value, dict):
        unused = ("device", "layout", "pin_memory", "memory_format")
        return {k: _plain(v) for k, v in value.items() if k not in unused}
    if isinstance(value, torch.dtype):
        if value.is_complex:
            return "complex"
        if value in (torch.uint8, torch.int8, torch.int16):
            return "short"
        return "float" if value.is_floating_point else "bool" if value == torch.bool else "int"
    if value is None or isinstance(value, bool | int | float | complex | str):
        return value
    return str(value)


def _place(node, op: str) -> str:
    stack = list(node.meta.get("nn_module_stack", {}).values())
    path, kind = stack[-1] if stack else ("", "")
    where = f"module `{path}` ({str(kind).rpartition('.')[2]})" if path else "the module itself"
    lines = re.findall(r'File "([^"]+)", line (\d+), in', node.meta.get("stack_trace") or "")
    own = [f"{file}:{line}" for file, line in lines if "/torch/" not in file]
    return f"{where}, aten.{op}" + (f", {own[-1]}" if own else "")


def lifted(graphs: Sequence[Graph], widths: Sequence[int]) -> Callable[[int], Graph]:
    """The graph at any width, from those at three: integers are affine in the width, other numbers follow a power.

    Raises UnknownLimitError where the graphs have different operations, or numbers of another kind.
    """
    first = graphs[0]
    steps = [[(node.name, node.op) for node in g.nodes] for g in graphs]
    if any(s != steps[0] for s in steps) or any(g[1] != first[1] or g[3:] != first[3:] for g in graphs):
        raise UnknownLimitError(
            "the module does different operations at different widths, so its limit cannot be read. Remedy: let the "
            "code not branch on the width."
        )
    rules = []
    for nodes in zip(*(g.nodes for g in graphs), strict=True):
        arguments = _lift([(n.args, n.kwargs) for n in nodes], widths, nodes[0].place)
        rules.append((nodes[0], arguments))

    def at(n: int) -> Graph:
        nodes = []
        for node, arguments in rules:
            args, kwargs = arguments(n)
            nodes.append(node._replace(args=args, kwargs=kwargs))
        return first._replace(nodes=nodes)

    return at


def _lift(values: Sequence[Any], widths, place: str) -> Callable[[int], Any]:
    """The same arguments at every width."""
    first = values[0]
    kinds = {type(v) for v in values}
    if len(kinds) == 1 and isinstance(first, tuple) and not isinstance(first, Ref) and len({*map(len, values)}) == 1:
        parts = [_lift(column, widths, place) for column in zip(*values, strict=True)]
        return lambda n: tuple(part(n) for part in parts)
    if len(kinds) == 1 and isinstance(first, dict) and all(v.keys() == first.keys() for v in values):
        named = {k: _lift([v[k] for v in values], widths, place) for k in first}
        return lambda n: {k: part(n) for k, part in named.items()}
    if all(v == first for v in values) or all(v != v for v in values):
        return lambda n: first
    if all(isinstance(v, int) and not isinstance(v, bool) for v in values):
        return lifted_integer(values, widths, f"a size in {place}")
    if all(isinstance(v, int | float) for v in values):
        return lifted_number(values, widths, f"a number in {place}")
    raise UnknownLimitError(f"an argument of {place} is {first!r} at one width and {values[1]!r} at another.")


def lifted_integer(values: Sequence[int], widths, what: str) -> Callable[[int], int]:
    """``a + b n`` through three points."""
    (n0, n1, n2), (v0, v1, v2) = widths, values
    slope = Fraction(v1 - v0, n1 - n0)
    start = v0 - slope * n0
    if start + slope * n2 != v2:
        raise UnknownLimitError(
            f"{what} is {v0}, {v1}, {v2} at the widths {n0}, {n1}, {n2}, which is not affine in the width. Remedy: "
            "give each layer a multiple of the width."
        )

    def at(n: int) -> int:
        value = start + slope * n
        if value.denominator != 1:
            raise UnknownLimitError(f"{what} is {value} at the width {n}. Remedy: widths in the ratio of 2 and 3.")
        return int(value)

    return at


def lifted_number(values: Sequence[float], widths, what: str, rounding: float = 1e-12) -> Callable[[int], float]:
    """A constant, ``c n^e`` or ``1 / (a + b n)`` (Glorot's fan-in plus fan-out) through three points.

    rounding: relative error of the values.
    """
    v0, v1, v2 = (float(v) for v in values)
    n0, n1, n2 = widths
    if v0 == v1 == v2:
        return lambda n: v0
    if v0 and v1 / v0 > 0:
        e = np.log(v1 / v0) / np.log(n1 / n0)
        e = round(e * 24) / 24
        c = v0 / n0**e
        if max(abs(c * n1**e / v1 - 1), abs(c * n2**e / v2 - 1) if v2 else 1.0) < rounding:
            return lambda n: c * float(n) ** e
    if v0 and v1 and v2:
        slope = (1 / v1 - 1 / v0) / (n1 - n0)
        start = 1 / v0 - slope * n0
        if abs((start + slope * n2) * v2 - 1) < rounding:
            return lambda n: 1 / (start + slope * n)
    raise UnknownLimitError(
        f"{what} is {v0:.6g}, {v1:.6g}, {v2:.6g} at the widths {n0}, {n1}, {n2}: no power of the width, and no "
        "reciprocal of an affine function. Remedy: scale it with a power of the width, or not at all."
    )
