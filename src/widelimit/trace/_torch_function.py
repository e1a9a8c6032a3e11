"""A `torch.nn.Module` as a function of JAX arrays: exported once for every shape of input, and run by JAX."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from widelimit._precision import at_once
from widelimit.fields import UnknownLimitError
from widelimit.trace._aten import ATEN, run
from widelimit.trace._torch import check_mode, tensors_of
from widelimit.trace._torch_graph import exported

__all__ = ["torch_function"]


@contextlib.contextmanager
def _as_value_error():
    """A finite module asks for no limit."""
    try:
        yield
    except UnknownLimitError as error:
        raise ValueError(f"functional: {error}") from error


def _in_numpy(tensor):
    """NumPy has no bfloat16."""
    tensor = tensor.detach()
    return (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()


def torch_function(module: Any) -> tuple[Callable, dict[str, Any]]:
    """``f(params, x)`` and the parameters that train, by name; a tensor of several names under its first.

    Floating-point numbers of every precision, also those of `torch.autocast`, are of JAX's working precision.
    Raises ValueError for dropout or BatchNorm in training mode, modules that change their buffers or have gradients of
    their own, and operations of PyTorch that have no counterpart here.
    """
    with _as_value_error():
        check_mode(module)
    tensors, names = tensors_of(module)
    params = {name: jnp.asarray(_in_numpy(t)) for name, t in tensors.items() if t.requires_grad}
    if not params:
        raise ValueError("functional: the module has no parameter that trains (requires_grad).")
    constants = {name: _in_numpy(t) for name, t in tensors.items() if not t.requires_grad}
    graphs: dict[tuple, Any] = {}

    def f(params, x):
        key = (jnp.shape(x), jnp.issubdtype(x.dtype, jnp.integer))
        if key not in graphs:
            with _as_value_error():
                graphs[key] = exported(module, *key, tuple(ATEN))

        def tensor_of(name: str):
            name = names.get(name, name)
            graph = graphs[key]
            value = graph.constants.get(name, constants.get(name))
            with at_once(value):  # known while JAX traces: a mask says how many entries are picked
                return params[name] if name in params else jnp.asarray(value)

        with _as_value_error():
            return run(graphs[key], tensor_of, x)

    return f, params
