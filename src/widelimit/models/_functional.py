"""A model as it is, of whatever framework, as a function ``f(params, x)`` of one example."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from widelimit.empirical import EmpiricalKernel
from widelimit.empirical import empirical_ntk as kernel_of_function
from widelimit.empirical import ntk_features as features_of_function
from widelimit.trace import torch_function, trained

__all__ = ["empirical_ntk", "functional", "ntk_features"]

_INFERENCE = "Remedy: the model in inference mode"


def functional(model: Any, params: Any = None) -> tuple[Callable[[Any, Any], Any], Any]:
    """A finite model as a function of its trained parameters and one example, and these parameters.

    ``f(params, x) = model(x)`` at the parameters that the model has.  model: a `torch.nn.Module` (run by JAX after
    `torch.export`; a batch of one is what it sees), a Flax NNX module, an Equinox module or other callable pytree, or a
    Flax Linen module with its variables as `params`.
    Parameters are a dict by name (PyTorch), the state of `nnx.Param` (NNX), the collection "params" (Linen), or the
    floating-point arrays of the model with None for the rest (Equinox); running averages, buffers and parameters that
    do not train (``requires_grad=False``) are constants.
    Raises ValueError for a model that is random or couples the examples of a batch (dropout or BatchNorm in training
    mode) or changes its own state, TypeError for what is no model.  The model itself is not touched.
    """
    torch, nnx, linen = (sys.modules.get(name) for name in ("torch", "flax.nnx", "flax.linen"))
    if torch is not None and isinstance(model, torch.nn.Module):
        return torch_function(model)
    if nnx is not None and isinstance(model, nnx.Module):
        return _of_nnx(nnx, model)
    if linen is not None and isinstance(model, linen.Module):
        return _of_linen(model, params)
    if not callable(model):
        raise TypeError(f"functional: model must be a model or a callable pytree, not {type(model).__name__}.")
    return _of_pytree(model)


def _of_pytree(model):
    leaves, structure = jax.tree.flatten(model)
    train = [
        hasattr(a, "dtype") and jnp.issubdtype(a.dtype, jnp.floating) and t
        for a, t in zip(leaves, trained(model), strict=True)
    ]
    if not any(train):
        raise TypeError(
            "functional: the model holds no floating-point arrays as a pytree, so nothing trains. Remedy: give "
            "f(params, x) and params."
        )
    for part in jax.tree.leaves(model, is_leaf=lambda a: hasattr(a, "inference")):
        random = getattr(part, "p", 0) or type(part).__name__.startswith("BatchNorm")
        if hasattr(part, "inference") and not part.inference and random:
            raise ValueError(
                f"functional: {type(part).__name__} is in training mode, where the output is random or depends on the "
                f"other examples of a batch. {_INFERENCE}, eqx.nn.inference_mode(model)."
            )

    def f(params, x):
        given = [p if t else a for p, a, t in zip(structure.flatten_up_to(params), leaves, train, strict=True)]
        return jax.tree.unflatten(structure, given)(x)

    return f, jax.tree.unflatten(structure, [a if t else None for a, t in zip(leaves, train, strict=True)])


def _of_nnx(nnx, model):
    for path, part in nnx.iter_graph(model):
        name = ".".join(map(str, path))
        if isinstance(part, nnx.BatchNorm) and not part.use_running_average:
            raise ValueError(
                f"functional: `{name}` (BatchNorm) takes the statistics of a batch, whose examples it couples. "
                f"{_INFERENCE}, model.eval()."
            )
        if isinstance(part, nnx.Dropout) and part.rate > 0 and not part.deterministic:
            raise ValueError(f"functional: `{name}` (Dropout) makes the model random. {_INFERENCE}, model.eval().")
    definition, params, rest = nnx.split(model, nnx.Param, ...)

    def f(params, x):
        return nnx.merge(definition, params, rest)(x)

    return f, params


def _of_linen(model, variables):
    if not isinstance(variables, dict) or "params" not in variables:
        raise TypeError(
            "functional: a Flax Linen module holds no parameters. Remedy: give its variables, "
            "params=model.init(key, x)."
        )
    rest = {name: value for name, value in variables.items() if name != "params"}

    def f(params, x):
        try:
            return model.apply({"params": params, **rest}, x)
        except Exception as error:
            if type(error).__module__.startswith("flax") and ("dropout" in str(error) or "batch_stats" in str(error)):
                raise ValueError(
                    "functional: the model is in training mode: its dropout or BatchNorm makes it random or changes "
                    f"its state. {_INFERENCE} (deterministic=True, use_running_average=True)."
                ) from error
            raise

    return f, variables["params"]


def _as_function(f, params):
    linen = sys.modules.get("flax.linen")
    if params is None or (linen is not None and isinstance(f, linen.Module)):
        return functional(f, params)
    return f, params


@functools.wraps(kernel_of_function)
def empirical_ntk(f: Any, params: Any = None, **options: Any) -> EmpiricalKernel:
    return kernel_of_function(*_as_function(f, params), **options)


@functools.wraps(features_of_function)
def ntk_features(f: Any, params: Any = None, x: Any = None, **options: Any) -> Any:
    if x is None:
        raise TypeError("ntk_features: x, the examples, is missing; after a model alone, give x=.")
    return features_of_function(*_as_function(f, params), x, **options)
