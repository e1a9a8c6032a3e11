"""The door for PyTorch: a builder from a width to a `torch.nn.Module`.

The module is exported as a graph of ATen operations (`_torch_graph`), which is run in JAX (`_aten`) and read like any
JAX program; laws of parameters are read from their initialisers (`_torch_laws`).  PyTorch has no arrays of `2^44`
channels squared, so the builder is called at three small widths, and sizes and laws are continued to any width.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from widelimit._precision import at_once
from widelimit.fields import Prior, UnknownLimitError
from widelimit.trace import _aten_axes, _aten_indices, _aten_networks, _aten_numerics, _aten_order, _aten_resizing
from widelimit.trace._aten import ATEN, run
from widelimit.trace._prior import Normal
from widelimit.trace._program import Program
from widelimit.trace._torch_graph import Graph, exported, lifted, lifted_integer, lifted_number
from widelimit.trace._torch_laws import Law, check_values, watch

__all__ = ["TorchBuilder", "check_mode", "needs_width_only", "tensors_of"]

# importing them registers the rules
_RULE_FILES = (_aten_axes, _aten_indices, _aten_networks, _aten_numerics, _aten_order, _aten_resizing)

# Three points tell what is affine from what is not; multiples of 2^5 and 3 for heads and groups.
_READ = (96, 192, 288)
_WIDTHS = (3 * 2**43, 3 * 2**42)


def needs_width_only(f: Any) -> bool:
    """Whether f needs nothing but a width: builders of JAX models take a random key too."""
    try:
        parameters = inspect.signature(f).parameters.values()
    except (TypeError, ValueError):
        return False
    if any(p.kind == p.VAR_POSITIONAL for p in parameters) and not _is_module_class(f):
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = [p for p in positional if p.default is p.empty]
    keyed = any("key" in p.name or "rng" in p.name for p in positional[1:])
    return len(needed) == 1 and not keyed


def _is_module_class(f) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(f, type) and issubclass(f, torch.nn.Module)


def _torch():
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            "limit: a builder of one argument, the width, makes a PyTorch module, and torch is not installed. Remedy: "
            'pip install "widelimit[torch]". (Builders of JAX models take (n, key); a function f(params, x) needs its '
            "prior.)"
        ) from error
    return torch


class _Built(NamedTuple):
    """A module of one width.  tensors: its parameters, then buffers, each once; laws: of these, and their draws."""

    module: Any
    tensors: dict[str, Any]
    laws: dict[str, tuple[Law, int]]
    names: dict[str, str]  # every name of a tensor -> the one in `tensors`
    law_of: Callable

    @property
    def parameters(self) -> list[str]:
        """Trainable or not; and buffers that are drawn at random, which are parameters that do not train."""
        own = {id(p) for p in self.module.parameters()}
        return [
            name
            for name, tensor in self.tensors.items()
            if id(tensor) in own or self.laws[name][0].kind in ("normal", "uniform")
        ]

    def trains(self, name: str) -> bool:
        return self.tensors[name].requires_grad


def _build(builder: Callable, n: int, device: str, seed: int = 0) -> _Built:
    torch = _torch()
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(seed)
        module, law_of = watch(lambda: builder(n))
    if not isinstance(module, torch.nn.Module):
        raise TypeError(
            f"limit: a builder of one argument must return a torch.nn.Module, not {type(module).__name__}. Builders of "
            "JAX models take (n, key); a function f(params, x) needs its prior: limit(f, prior)."
        )
    tensors, names = tensors_of(module)
    if not any(True for _ in module.parameters()):
        raise ValueError("limit: the module has no parameters.")
    check_mode(module)
    return _Built(module, tensors, {name: law_of(t) for name, t in tensors.items()}, names, law_of)


def tensors_of(module) -> tuple[dict[str, Any], dict[str, str]]:
    """Parameters and buffers by name, a tensor of several names under its first; and for every name that first one."""
    tensors: dict[str, Any] = {}
    names: dict[str, str] = {}
    known: dict[int, str] = {}
    for name, tensor in [*module.named_parameters(remove_duplicate=False), *module.named_buffers()]:
        names[name] = known.setdefault(id(tensor), name)
        tensors.setdefault(names[name], tensor)
    return tensors, names


def check_mode(module) -> None:
    """Raise UnknownLimitError where the module's outputs depend on the other examples of a batch."""
    torch = _torch()
    norms = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d, torch.nn.SyncBatchNorm)
    for path, part in module.named_modules():
        if not isinstance(part, norms):
            continue
        name = f"module `{path}` ({type(part).__name__})"
        if part.training:
            raise UnknownLimitError(
                f"{name} is in training mode, where an output depends on the other examples of a batch. Remedy: "
                "module.eval(), or write the network in JAX with a batch as its input."
            )
        if part.running_mean is None:
            raise UnknownLimitError(
                f"{name} has no running averages, so that an output depends on the other examples of a batch also in "
                "evaluation. Remedy: track_running_stats=True, or write the network in JAX with a batch as its input."
            )


def _law_problem(name: str, law: Law) -> UnknownLimitError:
    return UnknownLimitError(
        f"the law of parameter {name!r} cannot be read from its initialiser (understood: uniform, normal and constant "
        "fills of whole tensors, shifted and scaled). Remedy: state it, "
        f"wl.limit(builder, lambda n: {{{name!r}: wl.normal(shape, std)}})."
    )


class TorchBuilder:
    """What `Limit` reads of a PyTorch builder: a `Program`, and finite networks.

    prior: None, or a function of the width that returns `normal` for some parameters by name; the others are read.
    lr: "ntk", a number, or "own" (learning rates stated in the prior; "ntk" for parameters that it leaves out).
    """

    def __init__(self, builder: Callable, prior: Callable[[int], Any] | None, lr: Any):
        _torch()
        self._builder, self._prior, self._lr = builder, prior, lr
        self._cache: dict[tuple, Any] = {}
        small = self._at(_READ[0], "cpu")
        self._parameters = small.parameters
        for name in set(self._parameters) - set(self._stated(_READ[0])):
            check_values(name, small.laws[name][0], small.tensors[name].detach().double().numpy())
        self._device = "meta" if self._reads_meta(small) else "cpu"
        self._read = [self._at(n, self._device) for n in _READ]
        if any(b.parameters != self._parameters for b in self._read):
            raise UnknownLimitError(
                "the module has different parameters at different widths, so its limit cannot be read. Remedy: let "
                "the number of layers not depend on the width."
            )
        self._check_draws(small)

    def _at(self, n: int, device: str) -> _Built:
        key = (n, device)
        if key not in self._cache:
            self._cache[key] = _build(self._builder, n, device)
        return self._cache[key]

    def _reads_meta(self, small: _Built) -> bool:
        """Whether the builder does the same on PyTorch's device "meta", without memory, where some calls do nothing."""
        try:
            meta = self._at(_READ[0], "meta")
        except Exception:  # of any kind, by the user's code: it then runs with memory
            return False
        laws = [law for law, _ in small.laws.values()]
        same = meta.parameters == small.parameters and laws == [law for law, _ in meta.laws.values()]
        return same and all(small.laws[name][0].kind != "fixed" for name in self._parameters)

    def _check_draws(self, built: _Built) -> None:
        """No two parameters may start as copies of one draw: their entries would be equal, not independent."""
        stated = self._stated(_READ[0])
        seen: dict[int, str] = {}
        for name in self._parameters:
            law, draw = built.laws[name]
            if law.kind in ("normal", "uniform") and name not in stated:
                if draw in seen:
                    raise UnknownLimitError(
                        f"parameters {seen[draw]!r} and {name!r} start as copies of one draw (copy.deepcopy of a "
                        "layer, as in nn.TransformerEncoder). Remedy: build each layer by itself, so "
                        "that each is drawn by itself."
                    )
                seen[draw] = name

    def _stated(self, n: int) -> dict[str, Normal]:
        if self._prior is None:
            return {}
        stated = self._prior(n)
        if not isinstance(stated, dict) or not all(isinstance(v, Normal) for v in stated.values()):
            raise TypeError(
                "limit: the prior of a PyTorch builder must return a dict from names of parameters to wl.normal(...)."
            )
        for name in stated:
            if name not in self._parameters:
                raise ValueError(
                    f"limit: prior names {name!r}, which is none of the parameters {', '.join(self._parameters)}."
                )
        return stated

    def _law(self, name: str, n: int) -> tuple[Prior, tuple[int, ...], str]:
        """Law, shape and kind of a parameter at any width."""
        laws = [b.laws[name][0] for b in self._read]
        shapes = [tuple(b.tensors[name].shape) for b in self._read]
        sides = zip(*shapes, strict=True)
        shape = tuple(lifted_integer(side, _READ, f"a side of parameter {name!r}")(n) for side in sides)
        stated = self._stated(n).get(name)
        if stated is not None:
            if stated.shape != shape:
                raise ValueError(f"limit: prior says {name!r} has shape {stated.shape}; the module's is {shape}.")
            prior = stated.prior()
            return (prior._replace(lr=prior.variance) if self._lr == "ntk" else prior), shape, "normal"
        kinds, rounding = {law.kind for law in laws}, 1e-12
        if kinds == {"fixed"}:
            values = [self._at(m, "cpu").tensors[name].detach().double().numpy() for m in _READ]
            if all(np.ptp(v) == 0 for v in values):
                laws, kinds, rounding = [Law("constant", float(v.flat[0])) for v in values], {"constant"}, 1e-6
        if len(kinds) != 1 or kinds & {"unknown", "fixed"}:
            raise _law_problem(name, laws[0])
        mean = lifted_number([law.mean for law in laws], _READ, f"the mean of parameter {name!r}", rounding)(n)
        variance = lifted_number([law.std**2 for law in laws], _READ, f"the variance of parameter {name!r}")(n)
        return Prior(variance, self._rate(name, variance), mean), shape, laws[0].kind

    def _rate(self, name: str, variance: float):
        if not self._read[0].trains(name):
            return 0.0
        return variance if self._lr in ("ntk", "own") else self._lr

    def program(self) -> Program:
        """The network at two widths, for `Limit`."""
        laws = [[self._law(name, n) for name in self._parameters] for n in _WIDTHS]
        notes = []
        for name, (prior, _, kind) in zip(self._parameters, laws[0], strict=True):
            if kind == "uniform":
                notes.append(
                    f"{name}: initialiser is not Gaussian; replaced by a Gaussian of the same variance (exact for wide "
                    "inputs)"
                )
            if kind == "constant" and prior.lr == 0:
                why = (
                    'lr = std^2 = 0 under lr="ntk"; a number for lr trains it'
                    if self._read[0].trains(name)
                    else "requires_grad is False"
                )
                notes.append(f"{name}: starts at {prior.mean:g}, and is not trained ({why})")
        return Program(
            self._apply(_WIDTHS[0]), self._apply(_WIDTHS[1]),
            [shape for _, shape, _ in laws[0]], [shape for _, shape, _ in laws[1]],
            [prior for prior, _, _ in laws[0]], [prior for prior, _, _ in laws[1]],
            list(self._parameters), notes,
        )  # fmt: skip

    def _apply(self, n: int) -> Callable:
        def apply(leaves, x):
            values = dict(zip(self._parameters, leaves, strict=True))
            graphs, at = self._graphs(tuple(x.shape), jnp.issubdtype(x.dtype, jnp.integer))

            def tensor_of(name: str):
                name = self._read[0].names.get(name, name)
                return values[name] if name in values else self._constant(name, n, graphs)

            return run(at(n), tensor_of, x)

        return apply

    def _graphs(self, shape, integers: bool) -> tuple[list[Graph], Callable[[int], Graph]]:
        """The module's graphs at the widths of `_READ`, and at any width."""
        key = ("graphs", shape, integers)
        if key not in self._cache:
            try:
                graphs = [exported(b.module, shape, integers, tuple(ATEN)) for b in self._read]
                whole = all(_has_constants(g, b) for g, b in zip(graphs, self._read, strict=True))
            except ValueError:
                if self._device == "cpu":
                    raise
                whole = False
            if not whole:  # it may mix tensors with and without memory, or make constants without
                modules = [self._at(n, "cpu").module for n in _READ]
                graphs = [exported(module, shape, integers, tuple(ATEN)) for module in modules]
            self._cache[key] = graphs, lifted(graphs, _READ)
        return self._cache[key]

    def _constant(self, name: str, n: int, graphs: list[Graph]):
        """A buffer, or a tensor made in `forward`, at any width."""
        built = self._at(_READ[0], "cpu")
        law = built.laws[name][0] if name in built.laws else Law("fixed")
        if law.kind == "constant" and built.tensors[name].is_floating_point():
            sides = zip(*(b.tensors[name].shape for b in self._read), strict=True)
            shape = tuple(lifted_integer(side, _READ, f"a side of buffer {name!r}")(n) for side in sides)
            means = [b.laws[name][0].mean for b in self._read]
            return jnp.full(shape, lifted_number(means, _READ, f"buffer {name!r}")(n))
        values = [
            g.constants[name] if name in g.constants else _value(self._at(m, "cpu"), name)
            for g, m in zip(graphs, _READ, strict=True)
        ]
        if len({v.shape for v in values}) > 1:
            raise UnknownLimitError(
                f"buffer {name!r} differs from channel to channel of the width, and no rule gives the limit. Remedy: "
                "make it a constant over the width, or a random parameter."
            )
        if all(np.array_equal(v, values[0]) for v in values):
            with at_once(values[0]):  # known while JAX traces
                return jnp.asarray(values[0])
        lift = [
            lifted_number(column, _READ, f"buffer {name!r}", 1e-6)(n)
            for column in zip(*(v.ravel().tolist() for v in values), strict=True)
        ]
        return jnp.asarray(np.reshape(lift, values[0].shape))

    def network(self, n: int) -> Callable:
        """``f(values, x)`` of the module of width n; values: of its parameters, in their order."""
        built = self._at(n, "cpu")

        def f(values, x):
            x = jnp.asarray(x)
            values = dict(zip(self._parameters, values, strict=True))
            key = ("graph", n, x.shape, jnp.issubdtype(x.dtype, jnp.integer))
            if key not in self._cache:
                self._cache[key] = exported(built.module, *key[2:], tuple(ATEN))
            graph = self._cache[key]

            def tensor_of(name: str):
                name = built.names.get(name, name)
                if name in values:
                    return values[name]
                value = graph.constants[name] if name in graph.constants else _value(built, name)
                with at_once(value):  # known while JAX traces
                    return jnp.asarray(value)

            return run(graph, tensor_of, x)

        return f

    def init(self, n: int, key: jax.Array) -> list:
        """Parameters of width n as the module itself draws them, seeded by a JAX key; stated ones from their prior."""
        stated, built = self._stated(n), self._at(n, "cpu")
        dtype = jnp.result_type(float)
        shapes = [tuple(built.tensors[name].shape) for name in self._parameters]

        def draw(data):
            high, low = (int(v) for v in np.asarray(data).ravel()[-2:])
            drawn = _build(self._builder, n, "cpu", (high << 32 | low) % 2**63)
            return [drawn.tensors[name].detach().numpy().astype(dtype) for name in self._parameters]

        data = jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
        drawn = jax.pure_callback(draw, [jax.ShapeDtypeStruct(s, dtype) for s in shapes], data)
        keys = jax.random.split(key, len(shapes))
        return [
            stated[name].draw(k).astype(dtype) if name in stated else value
            for name, value, k in zip(self._parameters, drawn, keys, strict=True)
        ]

    def rates(self, n: int) -> list:
        """Learning rates of the parameters of width n."""
        built, stated = self._at(n, "cpu"), self._stated(n)
        out = []
        for name in self._parameters:
            if name in stated:
                out.append(float(stated[name].std) ** 2 if self._lr == "ntk" else float(stated[name].lr))
            else:
                out.append(float(self._rate(name, built.laws[name][0].std ** 2)))
        return out


def _has_constants(graph: Graph, built: _Built) -> bool:
    """Whether every tensor that the graph asks for is there: a list of indices has no values on a "meta" device."""
    names = {built.names.get(name, name) for name in graph.inputs.values()} - {*graph.constants, *built.tensors}
    return all(hasattr(built.module, name.partition(".")[0]) for name in names)


def _value(built: _Built, name: str) -> np.ndarray:
    """A buffer, or a tensor that is a plain attribute of a module, by its name."""
    tensor = built.tensors[name] if name in built.tensors else functools.reduce(getattr, name.split("."), built.module)
    law = built.law_of(tensor)[0]
    if law.kind in ("unknown", "normal", "uniform"):
        raise UnknownLimitError(
            f"tensor {name!r} of the module is neither a constant nor a parameter whose law can be read. Remedy: make "
            "it an nn.Parameter (with requires_grad=False) drawn i.i.d., or a fixed buffer."
        )
    return tensor.detach().numpy()
