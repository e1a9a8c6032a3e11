"""The infinite-width limit of a neural network, exactly, on your own data."""

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers and editors; a name is loaded when it is first used, see _ROOM_OF
    from widelimit import nn
    from widelimit.diagnostics import laziness, laziness_sweep
    from widelimit.dynamics import (
        flow,
        learning_curve,
        leave_one_out,
        log_marginal_likelihood,
        max_learning_rate,
        ntk_ensemble,
        posterior,
        steps,
    )
    from widelimit.empirical import linearize, monte_carlo, projection_bound, projection_standard_error, taylor
    from widelimit.fields import UnknownLimitError
    from widelimit.gram import gram, gram_diag
    from widelimit.models import empirical_ntk, functional, ntk_features
    from widelimit.solve import (
        condition_number,
        effective_rank,
        frobenius_norm,
        log_determinant,
        operator,
        operator_trace,
        spectral_density,
        top_eigenpairs,
    )
    from widelimit.trace import Kernel, Kernels, Limit, Normal, kernels, limit, nngp, normal, ntk

__version__ = "0.1.0"

__all__ = [
    "Kernel", "Kernels", "Limit", "Normal", "UnknownLimitError", "condition_number", "effective_rank",
    "empirical_ntk", "flow", "frobenius_norm", "functional", "gram", "gram_diag", "kernels", "laziness",
    "laziness_sweep", "learning_curve", "leave_one_out", "limit", "linearize", "log_determinant",
    "log_marginal_likelihood", "max_learning_rate", "monte_carlo", "nn", "nngp", "normal", "ntk", "ntk_ensemble",
    "ntk_features", "operator", "operator_trace", "posterior", "projection_bound", "projection_standard_error",
    "spectral_density", "steps", "taylor", "top_eigenpairs",
]  # fmt: skip

# The same once more for run time: the command line must answer without loading JAX.
_DYNAMICS = (
    "flow", "learning_curve", "leave_one_out", "log_marginal_likelihood", "max_learning_rate", "ntk_ensemble",
    "posterior", "steps",
)  # fmt: skip
_EMPIRICAL = ("linearize", "monte_carlo", "projection_bound", "projection_standard_error", "taylor")
_SOLVE = (
    "condition_number", "effective_rank", "frobenius_norm", "log_determinant", "operator", "operator_trace",
    "spectral_density", "top_eigenpairs",
)  # fmt: skip
_ROOM_OF = {
    **dict.fromkeys(("laziness", "laziness_sweep"), "diagnostics"),
    **dict.fromkeys(_DYNAMICS, "dynamics"),
    **dict.fromkeys(_EMPIRICAL, "empirical"),
    "UnknownLimitError": "fields",
    **dict.fromkeys(("gram", "gram_diag"), "gram"),
    **dict.fromkeys(("empirical_ntk", "functional", "ntk_features"), "models"),
    **dict.fromkeys(_SOLVE, "solve"),
    **dict.fromkeys(("Kernel", "Kernels", "Limit", "Normal", "kernels", "limit", "nngp", "normal", "ntk"), "trace"),
}


class _Package(types.ModuleType):
    """The package with its public names loaded on first use.

    A class and not a function ``__getattr__`` of the module, because importing the room `gram` makes Python
    set the attribute `gram` of the package to that module: here the function of that name takes its place.
    """

    def __getattr__(self, name: str) -> Any:
        if name == "nn":
            return importlib.import_module("widelimit.nn")
        if name not in _ROOM_OF:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"widelimit.{_ROOM_OF[name]}"), name)
        setattr(self, name, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        is_room = isinstance(value, types.ModuleType) and name in _ROOM_OF
        super().__setattr__(name, getattr(value, name) if is_room else value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Package
