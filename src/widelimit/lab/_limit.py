"""The infinite-width limit of the lab's networks: the one place where the lab asks for it."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from widelimit import nn
from widelimit.lab._activations import activation_module

if TYPE_CHECKING:
    from widelimit.lab._finite import Shape


def network(shape: Shape) -> nn.Sequential:
    """The ``nn`` module of a shape, in the NTK parameterisation."""
    b_std = shape.b_std or None
    layers: list = []
    for _ in range(shape.depth):
        layers += [nn.Dense(shape.width, shape.W_std, b_std), activation_module(shape.activation)]
    return nn.Sequential(*layers, nn.Dense(shape.outputs, shape.W_std, b_std))


@lru_cache(maxsize=32)
def _kernels(shape: Shape):
    """One kernel function per network, so that what was compiled for it is found again."""
    from widelimit.trace import kernels

    return kernels(network(shape))


def limit_kernels(shape: Shape, X1: np.ndarray, X2: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """NNGP and NTK Gram matrices ``(n1, n2)`` of the network at infinite width, float64."""
    from widelimit.gram import gram

    # Width and input dimension have no part in the kernel function: one for all of them.
    both = gram(_kernels(shape._replace(d=1, width=4, outputs=1)), np.asarray(X1, np.float64), X2)
    return np.asarray(both.nngp, np.float64), np.asarray(both.ntk, np.float64)


def standard_ntk(shape: Shape, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A, B (n, n) with ``A + N B`` the NTK in the standard parameterisation at width N, the rest of it infinitely wide.

    Its layers have the learning rate ``fan_in / W_std^2`` of those of the NTK parameterisation (biases 1 / b_std^2):
    d / W_std^2 in the first, N / W_std^2 in the others.
    """
    from widelimit.gram import gram
    from widelimit.trace import ntk

    b_std = shape.b_std or None

    def part(first: float, others: float, biases: float) -> np.ndarray:
        layers: list = []
        for i in range(shape.depth + 1):
            rate = others if i else first
            layers.append(nn.Dense(4 if i < shape.depth else 1, shape.W_std, b_std, W_lr=rate, b_lr=biases))
            layers += [activation_module(shape.activation)] * (i < shape.depth)
        return np.asarray(gram(ntk(nn.Sequential(*layers)), np.asarray(X, np.float64)), np.float64)

    unit = shape.W_std**-2
    return part(shape.d * unit, 0.0, shape.b_std**-2 if b_std else 0.0), part(0.0, unit, 0.0)
