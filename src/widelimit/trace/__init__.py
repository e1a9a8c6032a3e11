"""From code to fields: reads any JAX function's jaxpr and derives its kernels."""

from widelimit.trace._frameworks import trained
from widelimit.trace._kernel import Kernel, Kernels
from widelimit.trace._limit import Limit, kernels, limit, nngp, ntk
from widelimit.trace._prior import Normal, normal
from widelimit.trace._torch_function import torch_function

__all__ = [
    "Kernel",
    "Kernels",
    "Limit",
    "Normal",
    "kernels",
    "limit",
    "nngp",
    "normal",
    "ntk",
    "torch_function",
    "trained",
]
