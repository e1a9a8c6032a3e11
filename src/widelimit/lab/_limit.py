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
