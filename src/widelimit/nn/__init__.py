"""Small modules with `init` and `apply` only; the limits of networks made of them are derived like anyone's."""

from widelimit.nn._attention import PositionalEmbedding, SelfAttention
from widelimit.nn._combinators import Concat, Identity, Product, Residual, Sequential, Sum
from widelimit.nn._convolution import Conv, ConvLocal, ConvTranspose
from widelimit.nn._dense import Dense
from widelimit.nn._elementwise import (
    ABRelu,
    Abs,
    Cos,
    Elementwise,
    Elu,
    Erf,
    Exp,
    Gabor,
    Gaussian,
    Gelu,
    Hermite,
    LeakyRelu,
    Monomial,
    Polynomial,
    Rbf,
    RectifiedMonomial,
    Relu,
    Selu,
    Sigmoid,
    Sign,
    Silu,
    Sin,
    Softplus,
    Step,
    Tanh,
)
from widelimit.nn._module import Module
from widelimit.nn._pooling import AvgPool, Crop, Flatten, GlobalAvgPool, GlobalSumPool, ImageResize, SumPool
from widelimit.nn._regularisation import Dropout, LayerNorm

__all__ = [
    "ABRelu", "Abs", "AvgPool", "Concat", "Conv", "ConvLocal", "ConvTranspose", "Cos", "Crop", "Dense", "Dropout",
    "Elementwise", "Elu", "Erf", "Exp", "Flatten", "Gabor", "Gaussian", "Gelu", "GlobalAvgPool", "GlobalSumPool",
    "Hermite", "Identity", "ImageResize", "LayerNorm", "LeakyRelu", "Module", "Monomial", "Polynomial",
    "PositionalEmbedding", "Product", "Rbf", "RectifiedMonomial", "Relu", "Residual", "SelfAttention", "Selu",
    "Sequential", "Sigmoid", "Sign", "Silu", "Sin", "Softplus", "Step", "Sum", "SumPool", "Tanh",
]  # fmt: skip
