"""Full-batch gradient descent of a network and of its linearisation, by the same steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from widelimit.diagnostics._curvature import extreme_eigenvalues, largest_eigenvalue
from widelimit.diagnostics._programs import Outputs, programs
from widelimit.diagnostics._task import Task

__all__ = ["Network", "log_spaced"]

_TICKS = 40  # progress is told, and Ctrl-C heeded, at least so often in a training


def log_spaced(steps: int) -> list[int]:
    """0, 1, 2, 5, 10, 20, 50 and so on up to `steps`, which is the last."""
    found, decade = [0], 1
    while decade <= steps:
        found += [k * decade for k in (1, 2, 5) if k * decade < steps]
        decade *= 10
    return [*found, steps]


class Network:
    """The network of a task: its outputs, steps and curvature, in 64 bits.

    With an output scale the outputs are ``alpha (f - f_0)`` and the loss is divided by ``alpha^2``; without one (None)
    the network is as it is.  Source: Chizat, Oyallon and Bach 2019, section 1.
    """

    def __init__(self, task: Task, alpha: float | None):
        self.task, self.alpha = task, alpha
        self.programs = programs(task.f, task.loss_of, task.outputs)
        self.X, self._X_test = (jax.tree.map(jnp.asarray, x) for x in (task.X, task.X_test))
        self._Y, self._Y_test = jnp.asarray(task.Y), jnp.asarray(task.Y_test)
        self.start = jax.tree.map(jnp.asarray, task.params)
        self.zero = jax.tree.map(jnp.zeros_like, self.start)
        # largest and smallest loss (sums) of the steps taken, and how far it rose above the smallest before
        self.extremes = jnp.asarray(0.0), jnp.asarray(jnp.inf), jnp.asarray(1.0)
        self._factor, self._centre = (1.0, 0.0) if alpha is None else (float(alpha), 1.0)

    def loss(self, f, *, test: bool = False) -> float:
        """Of one example, on average (for "mean" also over its outputs)."""
        Y = self._Y_test if test else self._Y
        return float(self.programs.total(f, Y)) / (len(Y) * (self.task.outputs if self.task.loss == "mean" else 1))

    def advance(self, params, moved, steps: int, rate: float, told: Callable[[int], None]):
        """Parameters after more steps, and those of the linearisation less the start."""
        done = 0
        piece = max(1, steps // _TICKS)
        while done < steps:
            now = min(piece, steps - done)
            params, moved, self.extremes = self.programs.advance(
                params,
                moved,
                self.extremes,
                self.start,
                self.X,
                self._Y,
                now,
                rate,
                self._factor,
                self._centre,
                self.task.scale,
            )
            done += now
            told(now)
        return params, moved

    def observe(self, params, moved) -> Outputs:
        """Outputs of both, NumPy."""
        found = self.programs.observe(
            params, moved, self.start, self.X, self._X_test, self._factor, self._centre
        )  # fmt: skip
        return jax.tree.map(np.asarray, found)

    def sharpness(self, params, read) -> float:
        """Largest eigenvalue of ``H^(1/2) J J^T H^(1/2)``, which times the learning rate must stay below 2.

        J (n O, P): the Jacobian; H: Hessian of the loss by the outputs (1 for the squared loss, where this is the
        largest eigenvalue of the NTK on all training examples and outputs).
        """
        return self._top(params, self.programs.root(jnp.asarray(read), self._Y, self.task.scale))

    def largest_kernel_eigenvalue(self, params) -> float:
        """Of the NTK (n O, n O) on all training examples and outputs."""
        n, O = self.task.n, self.task.outputs
        return self._top(params, jnp.broadcast_to(jnp.eye(O), (n, O, O)))

    def _top(self, params, root) -> float:
        return largest_eigenvalue(
            lambda v: self.programs.curved(params, root, jnp.asarray(v), self.X), self.task.n * self.task.outputs
        )

    def kappa(self, read) -> float:
        """``||sum_i r_i d^2 f_i||_op`` over the largest eigenvalue of the Gauss-Newton matrix, at the start.

        r: slopes of the loss.  Near-lazy training has it small: Chizat, Oyallon and Bach 2019, eq. 3, has
        ``||r|| ||D^2 f|| / ||D f||^2``, which it does not exceed for the squared loss.
        """
        slopes = self.programs.slopes(jnp.asarray(read), self._Y, self.task.scale) / self._factor
        below = self.sharpness(self.start, read)
        above = self._norm(lambda v: self.programs.residual(self.start, v, slopes, self.X))
        return above / below if below > 0 else float("nan")

    def hessian(self, row: int, output: int) -> float:
        """``||d^2 f_o(x) / dtheta^2||_op`` at the start of training example `row`."""
        x = jax.tree.map(lambda a: a[row], self.X)
        return self._norm(lambda v: self.programs.single(self.start, v, x, output))

    def _norm(self, product: Callable[[Any], Any]) -> float:
        flat, back = ravel_pytree(self.start)
        times = lambda v: np.asarray(ravel_pytree(product(back(jnp.asarray(v))))[0])  # noqa: E731
        return float(np.abs(extreme_eigenvalues(times, flat.size)).max())
