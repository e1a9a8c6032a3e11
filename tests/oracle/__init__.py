"""Kernels of fully connected networks in multiple-precision arithmetic, written without the library's code.

The formulas are derived here anew (Stein's lemma and Gaussian integrals) and evaluated with mpmath, so that an error
of the library and of this oracle would have to agree in more than fifty digits to go unseen.

    from oracle import fully_connected, relu
    K, T = fully_connected(relu(), x1, x2, depth=3, W_std=1.5, b_std=0.125)
"""

from oracle._elu import elu, selu
from oracle._moments import (
    Moments,
    abrelu,
    abs_,
    cos,
    erf,
    exp,
    gaussian,
    gelu,
    hermite,
    leaky_relu,
    polynomial,
    rbf,
    rectified_monomial,
    relu,
    sign,
    sin,
    step,
)
from oracle._networks import Pair, derivative, fully_connected
from oracle._quadrature import sigmoid, silu, softplus, tanh

__all__ = [
    "Moments", "Pair", "abrelu", "abs_", "cos", "derivative", "elu", "erf", "exp", "fully_connected", "gaussian",
    "gelu", "hermite", "leaky_relu", "polynomial", "rbf", "rectified_monomial", "relu", "selu", "sigmoid", "sign",
    "silu", "sin", "softplus", "step", "tanh",
]  # fmt: skip
