"""The infinite-width limit of a neural network, exactly, on your own data."""

from widelimit import nn
from widelimit.fields import UnknownLimitError
from widelimit.gram import gram, gram_diag
from widelimit.trace import Kernel, Kernels, Limit, Normal, kernels, limit, nngp, normal, ntk

__version__ = "0.1.0"

__all__ = [
    "Kernel", "Kernels", "Limit", "Normal", "UnknownLimitError", "gram", "gram_diag", "kernels", "limit", "nn", "nngp",
    "normal", "ntk",
]  # fmt: skip
