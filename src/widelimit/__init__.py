"""The infinite-width limit of a neural network, exactly, on your own data."""

from widelimit import nn
from widelimit.dynamics import flow, max_learning_rate, ntk_ensemble, posterior, steps
from widelimit.empirical import empirical_ntk, linearize, taylor
from widelimit.fields import UnknownLimitError
from widelimit.gram import gram, gram_diag
from widelimit.trace import Kernel, Kernels, Limit, Normal, kernels, limit, nngp, normal, ntk

__version__ = "0.1.0"

__all__ = [
    "Kernel", "Kernels", "Limit", "Normal", "UnknownLimitError", "empirical_ntk", "flow", "gram", "gram_diag", "kernels", "limit", "linearize",
    "max_learning_rate", "nn", "nngp", "normal", "ntk", "ntk_ensemble", "posterior", "steps", "taylor",
]  # fmt: skip
