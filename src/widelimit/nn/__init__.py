"""Small modules with `init` and `apply` only; the limits of networks made of them are derived like anyone's."""

from widelimit.nn._attention import CrossAttention, PositionalEmbedding, SelfAttention
from widelimit.nn._combinators import Concat, Fork, Identity, Parallel, Part, Product, Residual, Sequential, Sum
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
from widelimit.nn._embedding import Embedding
from widelimit.nn._gated import GLU, SwiGLU
from widelimit.nn._graph import Aggregate, Graph, Masked
from widelimit.nn._linear_map import LinearMap
from widelimit.nn._module import Module
from widelimit.nn._networks import cnn, gcn, mlp, myrtle, transformer, wide_resnet
from widelimit.nn._normalisation import BatchNorm, GroupNorm, LayerNorm, RMSNorm
from widelimit.nn._pooling import AvgPool, Crop, Flatten, GlobalAvgPool, GlobalSumPool, ImageResize, SumPool
from widelimit.nn._recurrent import GRU, RNN
from widelimit.nn._regularisation import Dropout

__all__ = [
    "ABRelu", "Abs", "Aggregate", "AvgPool", "BatchNorm", "Concat", "Conv", "ConvLocal", "ConvTranspose", "Cos", "Crop",
    "CrossAttention", "Dense", "Dropout", "Elementwise", "Elu", "Embedding", "Erf", "Exp", "Flatten", "Fork", "Gabor",
    "Gaussian", "Gelu", "GlobalAvgPool", "GlobalSumPool", "GLU", "Graph", "GroupNorm", "GRU", "Hermite", "Identity",
    "ImageResize", "LayerNorm", "LeakyRelu", "LinearMap", "Masked", "Module", "Monomial", "Parallel", "Part",
    "Polynomial", "PositionalEmbedding", "Product", "Rbf", "RectifiedMonomial", "Relu", "Residual", "RMSNorm", "RNN",
    "SelfAttention", "Selu", "Sequential", "Sigmoid", "Sign", "Silu", "Sin", "Softplus", "Step", "Sum", "SumPool",
    "SwiGLU", "Tanh", "cnn", "gcn", "mlp", "myrtle", "transformer", "wide_resnet",
]  # fmt: skip
