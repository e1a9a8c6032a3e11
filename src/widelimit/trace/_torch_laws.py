"""Laws of a PyTorch module's parameters, read from the calls that initialise them.

PyTorch draws parameters at once, so nothing is left to trace afterwards; but every call that makes or changes a tensor
can be watched while the module is built (`torch.overrides.TorchFunctionMode`).  So what is read is what the code does,
whatever module types or functions of `torch.nn.init` it uses, and what is not understood is told to be unknown.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["Law", "check_values", "watch"]


class Law(NamedTuple):
    """Entries i.i.d. with `mean` and `std`; kind: "normal", "uniform", "constant"; "fixed": deterministic, not equal
    as far as is known; "unknown".
    """

    kind: str
    mean: float = 0.0
    std: float = 0.0


_UNKNOWN, _FIXED = Law("unknown"), Law("fixed")
_CONSTANTS = {"zeros": 0.0, "zeros_like": 0.0, "ones": 1.0, "ones_like": 1.0, "new_zeros": 0.0, "new_ones": 1.0}
_RANDOM = {"bernoulli", "bernoulli_", "multinomial", "randint", "randint_like", "randperm", "poisson", "dropout",
           "exponential_", "cauchy_", "log_normal_", "geometric_", "random_"}  # fmt: skip
# These give the same entries: in the same memory, or as a copy.
_SAME = {"clone", "contiguous", "detach", "detach_", "to", "float", "double", "reshape", "view", "view_as", "flatten",
         "t", "transpose", "permute", "squeeze", "unsqueeze", "requires_grad_", "cpu", "type", "type_as", "t_",
         "__deepcopy__"}  # fmt: skip
_LOOKS = {"__get__", "size", "dim", "numel", "stride", "is_floating_point", "_set_grad_enabled", "untyped_storage",
          "element_size", "__len__", "__format__", "__repr__", "item", "tolist", "any", "all", "is_complex",
          "ndimension", "__hash__", "data_ptr", "storage_offset", "is_contiguous", "get_device"}  # fmt: skip


class _Laws:
    """What is known of each piece of memory."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[Any, Law, int]] = {}  # by the identity of the storage, which is kept alive
        self.draws = 0

    def of(self, tensor) -> tuple[Law, int]:
        """Law of a tensor and the number of the draw it comes from; unknown for a part of a piece of memory."""
        _, law, draw = self.known.get(id(tensor.untyped_storage()), (None, _UNKNOWN, -1))
        return (law, draw) if self.is_whole(tensor) else (_UNKNOWN, draw)

    def is_whole(self, tensor) -> bool:
        return tensor.numel() * tensor.element_size() == tensor.untyped_storage().nbytes()

    def set(self, tensor, law: Law, draw: int | None = None) -> None:
        if draw is None:
            self.draws += 1
            draw = self.draws
        storage = tensor.untyped_storage()
        if not self.is_whole(tensor):
            same = self.known.get(id(storage), (None, None))[1] == law and law.kind == "constant"
            law = law if same else _UNKNOWN
        self.known[id(storage)] = (storage, law, draw)


def watch(build: Callable) -> tuple[Any, Callable]:
    """``build()`` under watch, and a function ``tensor -> (law, number of its draw)``."""
    import torch
    from torch.overrides import TorchFunctionMode

    laws = _Laws()

    class Watch(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            _note(laws, torch.Tensor, getattr(func, "__name__", ""), args, kwargs or {}, out)
            return out

    with Watch():
        built = build()
    return built, laws.of


def _note(laws: _Laws, tensor_type, name: str, args, kwargs, out) -> None:
    """Keep the laws after one call."""
    if name in _LOOKS:
        return
    if name in _INITIALISERS:
        tensor = kwargs.get("tensor", args[0] if args else None)
        laws.set(tensor, _INITIALISERS[name](tensor, *args[1:], **{k: v for k, v in kwargs.items() if k != "tensor"}))
        return
    first = args[0] if args and isinstance(args[0], tensor_type) else None
    if first is not None and (name in _IN_PLACE or (name.endswith("_") and not name.endswith("__"))):
        if name not in _SAME:
            laws.set(first, *_changed(laws, tensor_type, name, first, args[1:], kwargs))
        return
    if name in ("__set__", "__setitem__"):
        if name == "__setitem__" and first is not None:
            laws.set(first, _UNKNOWN)
        return
    if isinstance(kwargs.get("out"), tensor_type):
        laws.set(kwargs["out"], *_made(laws, tensor_type, name, args, {}))
        return
    outs = out if isinstance(out, tuple | list) else [out]
    for made in outs:
        if isinstance(made, tensor_type) and id(made.untyped_storage()) not in laws.known:
            law, draw = _made(laws, tensor_type, name, args, kwargs)
            laws.set(made, law, draw)


_IN_PLACE = {"__imul__", "__itruediv__", "__iadd__", "__isub__"}
_PLAIN = {"__imul__": "mul", "__itruediv__": "div", "__iadd__": "add", "__isub__": "sub", "__mul__": "mul",
          "__rmul__": "mul", "multiply": "mul", "__truediv__": "div", "true_divide": "div", "divide": "div",
          "__add__": "add", "__radd__": "add", "__sub__": "sub", "subtract": "sub", "__neg__": "neg",
          "negative": "neg", "__rsub__": "rsub"}  # fmt: skip


def _made(laws, tensor_type, name, args, kwargs) -> tuple[Law, int | None]:
    """Law of a new tensor."""
    tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, tensor_type)]
    for a in args:
        tensors += [b for b in a if isinstance(b, tensor_type)] if isinstance(a, tuple | list) else []
    if name in _CONSTANTS:
        return Law("constant", _CONSTANTS[name]), None
    if name in ("full", "full_like", "new_full"):
        value = kwargs.get("fill_value", args[-1])
        return (Law("constant", float(value)) if isinstance(value, int | float) else _FIXED), None
    if name in ("randn", "randn_like"):
        return Law("normal", 0.0, 1.0), None
    if name in ("rand", "rand_like"):
        return _uniform(None), None
    if name == "normal" and not tensors:
        mean, std = (float(kwargs.get(k, args[i] if len(args) > i else 0.0)) for i, k in enumerate(("mean", "std")))
        return Law("normal", mean, std), None
    if name in _RANDOM or name.startswith("empty") or name == "new_empty":
        return _UNKNOWN, None
    if len(tensors) == 1:
        law, draw = laws.of(tensors[0])
        if name in _SAME:
            return law, draw
        changed = _affine(law, _PLAIN.get(name, name), [a for a in args if not isinstance(a, tensor_type)], kwargs)
        if changed is not None:
            return changed, draw
    fixed = all(laws.of(t)[0].kind in ("constant", "fixed") for t in tensors)
    return (_FIXED if fixed else _UNKNOWN), None


def _changed(laws, tensor_type, name, tensor, args, kwargs) -> tuple[Law, int | None]:
    """Law of a tensor after an operation in place, and the draw it then comes from (None: one of its own)."""
    law, draw = laws.of(tensor)
    others = [a for a in (*args, *kwargs.values()) if isinstance(a, tensor_type)]
    if name in ("zero_", "fill_"):
        value = 0.0 if name == "zero_" else kwargs.get("value", args[0] if args else None)
        return (Law("constant", float(value)) if isinstance(value, int | float) else _UNKNOWN), None
    if name == "normal_":
        return _normal(tensor, *args, **kwargs), None
    if name == "uniform_":
        return _uniform(tensor, *args, **kwargs), None
    if name == "copy_" and others and others[0].shape == tensor.shape:
        return laws.of(others[0])
    changed = None if others else _affine(law, _PLAIN.get(name, name.rstrip("_")), list(args), kwargs)
    return (_UNKNOWN if changed is None else changed), draw


def _affine(law: Law, name: str, numbers: list, kwargs: dict) -> Law | None:
    """Law of a number times, over, plus or minus a random entry; of the normal that a uniform's `erfinv` is."""
    if law.kind not in ("normal", "uniform", "constant") or kwargs.keys() - {"alpha", "other", "value"}:
        return None
    if name == "neg":
        return law._replace(mean=-law.mean)
    if name == "erfinv" and law.kind == "uniform":
        return _truncated(law)
    numbers = [*numbers, *(kwargs[k] for k in ("other", "value") if k in kwargs)]
    if len(numbers) != 1 or not isinstance(numbers[0], int | float):
        return None
    a = float(numbers[0])
    if name == "mul":
        return Law(law.kind, law.mean * a, law.std * abs(a))
    if name == "div":
        return Law(law.kind, law.mean / a, law.std / abs(a))
    if name in ("add", "sub"):
        return law._replace(mean=law.mean + (a if name == "add" else -a) * kwargs.get("alpha", 1))
    if name == "rsub":
        return law._replace(mean=a - law.mean)
    return None


def _truncated(law: Law) -> Law | None:
    """``erfinv(u)``, u uniform: ``2^-1/2`` times a normal cut off at both sides."""
    from scipy import stats

    low, high = (math.sqrt(2) * _erfinv(law.mean + s * math.sqrt(3) * law.std) for s in (-1, 1))
    cut = stats.truncnorm(low, high)
    kind = "normal" if low == -math.inf and high == math.inf else "uniform"
    return Law(kind, float(cut.mean()) / math.sqrt(2), float(cut.std()) / math.sqrt(2))


def _erfinv(y: float) -> float:
    from scipy import special

    return float(special.erfinv(min(max(y, -1.0), 1.0)))


def _normal(tensor, mean=0.0, std=1.0, generator=None) -> Law:
    numbers = isinstance(mean, int | float) and isinstance(std, int | float)
    return Law("normal", float(mean), float(std)) if numbers else _UNKNOWN


def _uniform(tensor, a=0.0, b=1.0, generator=None, **named) -> Law:
    a, b = named.get("from", a), named.get("to", b)
    return Law("uniform", (a + b) / 2, (b - a) / math.sqrt(12))


def _kaiming_uniform(tensor, a=0, mode="fan_in", nonlinearity: Any = "leaky_relu", generator=None) -> Law:
    """``U(-b, b)``, ``b = gain sqrt(3 / fan)``; He et al. 2015."""
    import torch

    taps = math.prod(tensor.shape[2:])
    fan = tensor.shape[1 if mode == "fan_in" else 0] * taps
    bound = torch.nn.init.calculate_gain(nonlinearity, a) * math.sqrt(3 / fan)
    return Law("uniform", 0.0, bound / math.sqrt(3))


def _constant(tensor, val) -> Law:
    return Law("constant", float(val))


# The functions of torch.nn.init that are seen whole; the others are seen as the calls they consist of.
_INITIALISERS = {
    "kaiming_uniform_": _kaiming_uniform, "uniform_": _uniform, "normal_": _normal, "constant_": _constant,
}  # fmt: skip


def check_values(name: str, law: Law, values) -> None:
    """Raise ValueError if drawn values (a NumPy array) do not have the law that was read.

    Mean and standard deviation must agree within six standard errors; a uniform's or normal's standard deviation over
    N entries has at most the error ``std / sqrt(2 N)``.
    """
    n = values.size
    if n == 0 or law.kind in ("unknown", "fixed"):
        return
    rounding = 1e-5 * (abs(law.mean) + law.std)
    mean_error = abs(values.mean() - law.mean) - rounding
    std_error = abs(values.std() - law.std) - rounding
    wrong = mean_error > 6 * law.std / n**0.5
    if law.kind == "constant" or n >= 30:  # below, the error of a standard deviation is not normal
        wrong = wrong or std_error > 6 * law.std / (2 * n) ** 0.5
    if wrong:
        raise ValueError(
            f"limit: the values of parameter {name!r} have mean {values.mean():.4g} and standard deviation "
            f"{values.std():.4g}, but the calls that made them say {law.mean:.4g} and {law.std:.4g}. Remedy: state its "
            f"law, wl.limit(builder, lambda n: {{{name!r}: wl.normal(shape, std)}})."
        )
