"""What is measured of a network at one moment of its training, against its start."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from widelimit.diagnostics._measures import alignment, centred, effective_rank, operator_norm, relative_change
from widelimit.diagnostics._programs import kernel_of
from widelimit.diagnostics._training import Network
from widelimit.gram import gram

__all__ = ["KernelView", "Observer"]

_ROUNDING = 1e-13  # two programs that add in another order differ by so much


class KernelView(NamedTuple):
    """Of the kernel at one moment; by parameter in the order of the parameters."""

    drift: float
    drift_by_parameter: list[float]
    alignment: float
    alignment_centred: float
    alignment_by_parameter: list[float]
    trace_by_parameter: list[float]
    effective_rank: float


class Observer:
    """Kernel, parameters and features of a network on `rows`, the examples that the kernel is measured on."""

    def __init__(self, network: Network, rows: np.ndarray):
        self._network, self.task = network, network.task
        self._start = network.start
        self._X = jax.tree.map(lambda a: a[rows], self.task.X)
        self._Y = None if self.task.directions is None else self.task.directions[rows]
        self._kernel = kernel_of(self.task.f, network.start)
        self._first = self._parts(network.start)

    def _parts(self, params) -> dict[str, np.ndarray]:
        return {name: np.asarray(K) for name, K in gram(self._kernel.at(params), self._X).items()}

    def kernel(self, params) -> KernelView:
        """Kernel of the mean over outputs against the first one."""
        parts = self._parts(params)
        K, K0 = (np.sum(list(p.values()), axis=0) for p in (parts, self._first))

        def aligned(A):
            return float("nan") if self._Y is None else alignment(A, self._Y)

        finite = bool(np.isfinite(K).all())
        middle = float("nan") if self._Y is None else alignment(centred(K), self._Y - self._Y.mean(0))
        return KernelView(
            relative_change(K, K0),
            [relative_change(parts[p], self._first[p]) for p in parts],
            aligned(K), middle, [aligned(A) for A in parts.values()], [float(np.trace(A)) for A in parts.values()],
            effective_rank(K) if finite else float("nan"),
        )  # fmt: skip

    def movement(self, params) -> tuple[list[float], list[float]]:
        """``||theta_p - theta_p,0||`` of each parameter: Frobenius, and operator norm (nan for what is no matrix)."""
        moves = [np.asarray(a) - np.asarray(b) for a, b in self._pairs(params)]
        return [float(np.linalg.norm(d)) for d in moves], [_operator(d) for d in moves]

    def sizes(self) -> tuple[list[float], list[float]]:
        """The same norms of the first parameters."""
        leaves = [np.asarray(a) for a in jax.tree.leaves(self._start)]
        return [float(np.linalg.norm(a)) for a in leaves], [_operator(a) for a in leaves]

    def _pairs(self, params):
        return list(zip(jax.tree.leaves(params), jax.tree.leaves(self._start), strict=True))

    def features(self, params) -> dict[str, float]:
        """``rms(h_t - h_0) / rms(h_0)`` of what each layer is given, over examples and channels, in their order.

        What is the same at all parameters, as the data are, is 0, and so is a change that is rounding only.
        """
        sums = self._network.programs.features(params, self._start, jax.tree.map(jnp.asarray, self._X))
        found = {}
        for name in (name for name in self.task.names if name in sums):
            change, size = map(float, sums[name])
            found[name] = float(np.sqrt(change / size)) if change > _ROUNDING**2 * size else 0.0
        return found


def _operator(A: np.ndarray) -> float:
    return operator_norm(A) if A.ndim == 2 and A.size else float("nan")
