"""What other frameworks keep beside parameters, and what their batch normalisation asks for."""

from __future__ import annotations

import sys
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["check_batch_norms", "remedy_of", "trained"]

_REMEDY = (
    "Remedy: BatchNorm in inference mode (Flax: use_running_average=True; Equinox: eqx.nn.inference_mode). In training "
    "mode a batch (B, ...) is one input, to which the model is applied, with mutable=['batch_stats'] (Flax Linen) or "
    "under jax.vmap(..., axis_name=...) (Equinox); output='full' gives an entry for each pair of examples."
)


def trained(model: Any) -> list[bool]:
    """For each leaf whether it is a parameter: not running statistics (Flax), nor state (Equinox)."""
    out: list[bool] = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(model, is_leaf=_is_state)[0]:
        state = _is_state(leaf) or any(getattr(entry, "key", None) == "batch_stats" for entry in path)
        out += [not state] * (len(jax.tree.leaves(leaf)) if _is_state(leaf) else 1)
    return out


def _is_state(x: Any) -> bool:
    nnx, equinox = sys.modules.get("flax.nnx"), sys.modules.get("equinox")
    kinds = [nnx.BatchStat] if nnx is not None else []
    kinds += [equinox.nn.State] if equinox is not None else []
    return isinstance(x, tuple(kinds))


def check_batch_norms(model: Any, x: Any) -> None:
    """Raise ValueError where Flax NNX would take statistics over no example at all, which makes everything 0."""
    nnx = sys.modules.get("flax.nnx")
    if nnx is None or not isinstance(model, nnx.Module):
        return
    arrays = [a for a in jax.tree.leaves(x) if jnp.issubdtype(a.dtype, jnp.floating)]
    if any(a.ndim > 1 for a in arrays) or not arrays:
        return
    for _, part in nnx.iter_graph(model):
        if isinstance(part, nnx.BatchNorm) and not part.use_running_average:
            raise ValueError(f"BatchNorm is in training mode, and an input with one axis is no batch. {_REMEDY}")


def remedy_of(error: Exception) -> str:
    """What to do about an error of batch normalisation in training mode; empty for other errors."""
    unbound = isinstance(error, NameError) and "unbound axis name" in str(error)
    immutable = type(error).__module__.startswith("flax") and "batch_stats" in str(error)
    return _REMEDY if unbound or immutable else ""
