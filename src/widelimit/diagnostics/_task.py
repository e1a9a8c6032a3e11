"""What is trained on what: the network as f(params, x), the data and the loss, checked before anything runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from widelimit._examples import as_example, in_double
from widelimit._precision import enable_x64
from widelimit.diagnostics._programs import raveled, raveled_module
from widelimit.dynamics import checked_targets, loss_of_example
from widelimit.empirical import names_of
from widelimit.models import functional

__all__ = ["Task", "labels_of", "network_of", "pretty", "task_of"]


class Task(NamedTuple):
    """A network and its training and test sets.

    f: ``f(params, x)`` of one example, raveled to (O,).  X, X_test: examples (n, ...), NumPy, X_test with no example
    where none is given.  Y, Y_test: targets as the loss takes them, numbers as (n, O).  directions: numbers (n, O) for
    alignment, or None.  labels: for accuracy, class or sign, or None.
    """

    f: Callable
    params: Any
    names: list[str]
    X: Any
    Y: np.ndarray
    X_test: Any
    Y_test: np.ndarray
    loss: Any
    loss_of: Callable
    outputs: int
    directions: np.ndarray | None

    @property
    def n(self) -> int:
        return len(self.Y)

    @property
    def scale(self) -> float:
        """Of the gradient: the mean loss is that of the sum over the number of targets."""
        return 1.0 / (self.n * self.outputs) if self.loss == "mean" else 1.0


def network_of(where: str, model: Any, params: Any, X: Any, key: Any) -> tuple[Callable, Any]:
    """``f(params, x)``, with its outputs raveled, and parameters of a module of `nn`, a pair, a function with "
    "parameters, or a model."""
    if isinstance(model, tuple):
        if len(model) != 2 or not callable(model[0]):
            raise TypeError(f"{where}: a pair must be (f, params), a function f(params, x) and its parameters.")
        if params is not None:
            raise ValueError(f"{where}: params is given twice, in the pair and as an argument.")
        return raveled(model[0]), model[1]
    linen = sys.modules.get("flax.linen")
    is_linen = linen is not None and isinstance(model, linen.Module)
    key = jax.random.key(0) if key is None else key
    if is_linen and params is None:
        params = model.init(key, jax.tree.map(lambda a: jnp.asarray(a[0]), X))
    if hasattr(model, "init") and hasattr(model, "apply") and not is_linen and not isinstance(model, type):
        if params is None:
            shapes = jax.tree.map(lambda a: tuple(np.shape(a)[1:]), X)
            params = model.init(key, shapes)
        return raveled_module(model) if _hashable(model) else raveled(model.apply), params
    if params is not None and callable(model) and not is_linen:
        return raveled(model), params
    if isinstance(model, type) or (type(model).__name__ == "function" and params is None):
        raise TypeError(
            f"{where}: model is {getattr(model, '__name__', model)!r}, a function or class without parameters. Remedy: "
            "laziness(f, X, Y, params=params), or a model that has its parameters; a builder goes to laziness_sweep."
        )
    f, params = functional(model, params)
    return raveled(f), params


def _hashable(model) -> bool:
    try:
        hash(model)
    except TypeError:
        return False
    return True


def pretty(path: str) -> str:
    """A parameter's path without quotes and brackets: "['0.weight']" as 0.weight, "[0]['W']" as 0.W."""
    out = path.replace("']['", ".").replace("['", ".").replace("']", "").replace("[", ".").replace("]", "")
    out = out.replace(".value", "") if out.endswith(".value") else out
    return out.strip(".") or "params"


def task_of(where: str, model, X, Y, *, params, loss, X_test, Y_test, key) -> Task:
    """The task, or an error that names the argument and the remedy."""
    loss_of = loss_of_example(loss)
    X = _examples(where, "X", X)
    if (X_test is None) != (Y_test is None):
        raise ValueError(f"{where}: X_test and Y_test go together; one of them is missing.")
    nothing = jax.tree.map(lambda a: a[:0], X)
    X_test = nothing if X_test is None else _examples(where, "X_test", X_test)
    if jax.tree.map(lambda a: a.shape[1:], X_test) != jax.tree.map(lambda a: a.shape[1:], X):
        raise ValueError(f"{where}: examples of X_test do not have the shapes of those of X.")
    n, m = _count(X), _count(X_test)
    Y = checked_targets(loss, Y, n)
    Y_test = Y[:0] if not m else checked_targets(loss, Y_test, m, "Y_test")
    f, params = network_of(where, model, params, X, key)
    with enable_x64():
        params = jax.tree.map(_double, params)
    names = names_of(params)
    for name, leaf in zip(names, jax.tree.leaves(params), strict=True):
        if not np.issubdtype(leaf.dtype, np.floating):
            raise TypeError(
                f"{where}: parameter {pretty(name)} holds {leaf.dtype}, not real floating-point numbers. Remedy: leave "
                "what is not trained out of params."
            )
        if not np.isfinite(leaf).all():
            raise ValueError(f"{where}: parameter {pretty(name)} holds NaN or infinity.")
    outputs = _outputs(where, f, params, X)
    Y, Y_test = (_targets(where, name, y, loss, outputs) for name, y in (("Y", Y), ("Y_test", Y_test)))
    if loss == "cross_entropy" and Y.ndim == 1 and len(Y_test) and Y_test.max() >= outputs:
        raise ValueError(f"{where}: Y_test holds class {Y_test.max()}, and the model has {outputs} outputs.")
    task = Task(f, params, names, X, Y, X_test, Y_test, loss, loss_of, outputs, _directions(Y, loss, outputs))
    _check_start(where, task)
    return task


def _double(leaf):
    array = np.asarray(leaf)
    return array.astype(np.float64) if jnp.issubdtype(array.dtype, jnp.floating) else array


def _examples(where, name, x):
    try:
        x = as_example(x)
        with enable_x64():
            x = jax.tree.map(np.asarray, in_double(x))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {name} must hold numbers, and examples of one shape: {error}") from error
    counts = {a.shape[0] if a.ndim else None for a in jax.tree.leaves(x)}
    if len(counts) != 1 or None in counts or 0 in counts:
        raise ValueError(f"{where}: {name} must have a leading axis over at least one example, as many in each array.")
    for a in jax.tree.leaves(x):
        if a.dtype.kind == "f" and not np.isfinite(a).all():
            row = int(np.argmax(~np.isfinite(a.reshape(len(a), -1)).all(1)))
            raise ValueError(f"{where}: {name} holds NaN or infinity, first in example {row}.")
    return x


def _count(x) -> int:
    return len(jax.tree.leaves(x)[0])


def _outputs(where, f, params, X) -> int:
    shapes = jax.tree.map(lambda a: a.shape[1:], X)
    one = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), X)
    with enable_x64():
        try:
            out = jax.eval_shape(f, params, one)
        except Exception as error:
            if "Remedy: " in str(error):  # said by us
                raise ValueError(f"{where}: {error}") from error
            raise ValueError(
                f"{where}: the model failed for one example, of shape {shapes}: {error}. Remedy: examples as the "
                "model takes them, one at a time."
            ) from error
    leaves = jax.tree.leaves(out)
    if len(leaves) != 1 or not jnp.issubdtype(leaves[0].dtype, jnp.floating):
        raise TypeError(f"{where}: the model must return one real floating-point array, and returns {out}.")
    return int(np.prod(leaves[0].shape, dtype=int))


def _targets(where, name, Y, loss, outputs):
    if callable(loss):
        return Y
    if loss == "cross_entropy" and Y.ndim == 1:
        if len(Y) and Y.max() >= outputs:
            raise ValueError(f"{where}: {name} holds class {Y.max()}, and the model has {outputs} outputs (from 0).")
        return Y
    Y = Y.reshape(len(Y), -1) if len(Y) else np.zeros((0, outputs))
    if Y.shape[1] != outputs:
        raise ValueError(
            f"{where}: the model has {outputs} outputs and {name} {Y.shape[1]} for each example; they must agree. "
            "(Class numbers go with loss='cross_entropy'.)"
        )
    return Y


def _directions(Y, loss, outputs) -> np.ndarray | None:
    """Targets as numbers that a kernel may be aligned with; classes one-hot."""
    if loss == "cross_entropy" and Y.ndim == 1:
        return np.eye(outputs)[Y]
    numbers = np.asarray(Y, np.float64).reshape(len(Y), -1) if Y.dtype.kind in "fiub" else None
    return numbers if numbers is not None and numbers.any() else None


def labels_of(Y: np.ndarray, loss: Any, outputs: int) -> np.ndarray | None:
    """Class numbers, or signs for one output; None where targets are no classes."""
    if not len(Y) or callable(loss):
        return None
    if Y.ndim == 1 and loss == "cross_entropy":
        return Y
    if outputs == 1:
        return Y[:, 0] if len(np.unique(np.abs(Y))) == 1 and (Y > 0).any() and (Y < 0).any() else None
    order = np.sort(Y, axis=1)
    alike = np.allclose(order, order[0])  # the same two values in each row, one of them once
    one_hot = alike and np.allclose(order[0, 0], order[0, -2]) and order[0, -1] > order[0, -2]
    return Y.argmax(1) if one_hot or loss == "cross_entropy" else None


def _check_start(where, task: Task) -> None:
    with enable_x64():
        f0 = np.asarray(jax.jit(jax.vmap(task.f, (None, 0)))(task.params, jax.tree.map(jnp.asarray, task.X)))
        if not np.isfinite(f0).all():
            row = int(np.argmax(~np.isfinite(f0).all(1)))
            raise ValueError(f"{where}: the model's output is NaN or infinite at the start, first for example {row}.")
        one = jax.ShapeDtypeStruct((task.outputs,), np.float64)
        target = jax.ShapeDtypeStruct(task.Y.shape[1:], task.Y.dtype)
        try:
            shape = jax.eval_shape(task.loss_of, one, target).shape  # type: ignore[union-attr]
        except Exception as error:
            raise ValueError(
                f"{where}: loss(output, target) failed for an output of shape {one.shape} and a target of shape "
                f"{target.shape}: {error}."
            ) from error
    if shape != ():
        raise ValueError(f"{where}: loss(output, target) must return one number, not shape {shape}.")
