"""Checkpoints of a training that was run elsewhere, as parameters like those of the network."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from widelimit.diagnostics._task import Task, pretty
from widelimit.empirical import check_like
from widelimit.models import functional

__all__ = ["checked_checkpoints"]


def checked_checkpoints(task: Task, checkpoints: Sequence[Any], times: Sequence[int] | None) -> tuple[list, list[int]]:
    """Parameters and their times, or a ValueError: a name that is missing, a shape, a number that is not finite."""
    checkpoints = list(checkpoints)
    if not checkpoints:
        raise ValueError("laziness: checkpoints is empty; give the parameters at one time at least.")
    steps = list(range(1, len(checkpoints) + 1)) if times is None else [int(t) for t in times]
    if len(steps) != len(checkpoints):
        raise ValueError(f"laziness: {len(checkpoints)} checkpoints and {len(steps)} times; give one for each.")
    if steps[0] < 1 or any(b <= a for a, b in itertools.pairwise(steps)):
        raise ValueError(f"laziness: times must be increasing integers from 1 on (the model is time 0), not {steps}.")
    return [_parameters(task, c, f"checkpoint {i}") for i, c in enumerate(checkpoints)], steps


def _parameters(task: Task, given: Any, where: str) -> Any:
    names = [pretty(name) for name in task.names]
    if isinstance(given, Mapping) and set(names) <= set(given):  # by name, as printed in the report
        given = jax.tree.unflatten(jax.tree.structure(task.params), [given[name] for name in names])
    named = isinstance(task.params, dict) and isinstance(given, Mapping)
    if named and all(np.ndim(a) == 0 or not isinstance(a, dict) for a in task.params.values()):
        missing = [name for name in task.params if name not in given]
        if missing:
            there = ", ".join(map(str, list(given)[:8])) or "nothing"
            raise ValueError(
                f"laziness: {where} lacks {', '.join(map(repr, missing[:8]))}; it has {there}. Remedy: a state_dict "
                "(or "
                "parameters) of the same model."
            )
        given = {name: given[name] for name in task.params}
    elif isinstance(given, Mapping) and "params" in given and not (named and "params" in task.params):
        given = given["params"]
    elif jax.tree.structure(given) != jax.tree.structure(task.params) and callable(given):
        given = functional(given)[1]
    given = jax.tree.map(_array, given)
    try:
        check_like(given, task.params)
    except ValueError as error:
        raise ValueError(f"laziness: {where}: {error}") from error
    for name, leaf in zip(task.names, jax.tree.leaves(given), strict=True):
        if not np.isfinite(leaf).all():
            raise ValueError(f"laziness: {where}: parameter {pretty(name)} holds NaN or infinity.")
    return jax.tree.map(jnp.asarray, given)


def _array(leaf: Any) -> np.ndarray:
    """In double precision; PyTorch's tensors of any kind too."""
    if hasattr(leaf, "detach"):
        leaf = leaf.detach().cpu().double().numpy()
    return np.asarray(leaf, np.float64)
