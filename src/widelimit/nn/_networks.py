"""Ready networks: functions that return a `Sequential` of modules."""

from __future__ import annotations

from typing import Any

from widelimit.nn._attention import SelfAttention
from widelimit.nn._combinators import Identity, Residual, Sequential, Sum
from widelimit.nn._convolution import Conv
from widelimit.nn._dense import Dense
from widelimit.nn._elementwise import Gelu, Relu
from widelimit.nn._graph import Aggregate, Graph
from widelimit.nn._module import Module, checked_number
from widelimit.nn._normalisation import LayerNorm
from widelimit.nn._pooling import AvgPool, Flatten, GlobalAvgPool, GlobalSumPool

__all__ = ["cnn", "gcn", "mlp", "myrtle", "transformer", "wide_resnet"]

_RELU = Relu()


def _checked(name: str, activation: Any = _RELU, **whole: Any) -> None:
    """Raise ValueError or TypeError unless the arguments are whole numbers >= 1 and the activation is a module."""
    for argument, value in whole.items():
        checked_number(name, argument, value, whole=True, least=1)
    if not isinstance(activation, Module):
        raise TypeError(
            f"{name}: activation must be an nn module such as nn.Relu() or nn.Elementwise(fn), not {activation!r}."
        )


def mlp(
    depth: int,
    width: int = 512,
    activation: Module = _RELU,
    W_std: Any = 2**0.5,
    b_std: Any = None,
    outputs: int = 1,
) -> Sequential:
    """Fully connected network: `depth` times ``phi(W x + b)``, then a dense layer to the outputs.

    The default W_std keeps the variance of ReLU layers; the last layer has W_std 1 and the b_std of the others.
    Raises ValueError or TypeError for numbers below 1 or an activation that is no module.
    Source: Lee et al. 2018; Jacot et al. 2018.
    """
    _checked("mlp", activation, depth=depth, width=width, outputs=outputs)
    layers = [m for _ in range(depth) for m in (Dense(width, W_std, b_std), activation)]
    return Sequential(*layers, Dense(outputs, 1.0, b_std))


def cnn(
    depth: int,
    width: int = 128,
    filter_shape: Any = (3, 3),
    pool: bool = False,
    activation: Module = _RELU,
    W_std: Any = 2**0.5,
    b_std: Any = None,
    outputs: int = 1,
) -> Sequential:
    """`depth` convolutions with "SAME" padding, each followed by phi; flattened (or averaged if `pool`), then dense.

    filter_shape: taps along each axis of positions (an integer: sequences).  With `pool` the kernel needs all pairs of
    positions.  Errors as in `mlp`.  Source: Arora et al. 2019 (CNTK-V without, CNTK-GAP with `pool`).
    """
    _checked("cnn", activation, depth=depth, width=width, outputs=outputs)
    if not isinstance(pool, bool):
        raise TypeError(f"cnn: pool must be True or False, not {pool!r}.")
    layers = [m for _ in range(depth) for m in (Conv(width, filter_shape, W_std=W_std, b_std=b_std), activation)]
    return Sequential(*layers, GlobalAvgPool() if pool else Flatten(), Dense(outputs, 1.0, b_std))


# convolutions before each of the three halvings
_MYRTLE = {5: (2, 1, 1), 7: (2, 2, 2), 10: (3, 3, 3)}


def myrtle(depth: int, width: int = 128, W_std: Any = 2**0.5, b_std: Any = None, outputs: int = 1) -> Sequential:
    """The "Myrtle" network: blocks of 3 x 3 convolutions and ReLU, each block halved by 2 x 2 average pooling.

    depth: 5, 7 or 10, with (2, 1, 1), (2, 2, 2) or (3, 3, 3) convolutions in the blocks; then two more poolings, and
    flattened to a dense layer.  Of 32 x 32 images a single position is left.
    Raises ValueError for another depth.  Source: Shankar et al. 2020.
    """
    if depth not in _MYRTLE:
        raise ValueError(f"myrtle: depth must be 5, 7 or 10, not {depth!r}.")
    _checked("myrtle", width=width, outputs=outputs)
    halve = AvgPool((2, 2), padding="SAME")
    layers: list[Module] = []
    for count in _MYRTLE[depth]:
        layers += [m for _ in range(count) for m in (Conv(width, (3, 3), W_std=W_std, b_std=b_std), Relu())]
        layers.append(halve)
    return Sequential(*layers, halve, halve, Flatten(), Dense(outputs, W_std, b_std))


def wide_resnet(
    block_size: int,
    widen_factor: int = 1,
    W_std: Any = 2**0.5,
    b_std: Any = None,
    outputs: int = 1,
    pool: bool = True,
    stages: int = 3,
) -> Sequential:
    """Wide residual network without batch normalisation: a convolution, then stages of `block_size` residual blocks.

    A block adds ``conv(phi(conv(phi(x))))``, 3 x 3 with ReLU, to x, or in the first block of a stage to a convolution
    of x; each stage but the first halves the positions with stride 2.  Widths are 16, then 16, 32, 64, ... times
    widen_factor.  pool: global average, else flattened.
    Raises ValueError for numbers below 1.  Source: Zagoruyko and Komodakis 2016.
    """
    _checked("wide_resnet", block_size=block_size, widen_factor=widen_factor, outputs=outputs, stages=stages)
    if not isinstance(pool, bool):
        raise TypeError(f"wide_resnet: pool must be True or False, not {pool!r}.")

    def conv(width, strides=1):
        return Conv(width, (3, 3), (strides, strides), W_std=W_std, b_std=b_std)

    layers: list[Module] = [conv(16)]
    for stage in range(stages):
        width, strides = 16 * widen_factor * 2**stage, 1 if stage == 0 else 2
        for i in range(block_size):
            first = strides if i == 0 else 1
            body = Sequential(Relu(), conv(width, first), Relu(), conv(width))
            layers.append(Sum(body, conv(width, first) if i == 0 else Identity()))
    return Sequential(*layers, GlobalAvgPool() if pool else Flatten(), Dense(outputs))


def transformer(
    blocks: int,
    heads: int = 1,
    width: int = 128,
    W_std: Any = 1.0,
    b_std: Any = None,
    outputs: int = 1,
    causal: bool = False,
) -> Sequential:
    """Pre-norm transformer over (positions, C): ``x + attention(norm(x))``, ``x + dense(gelu(dense(norm(x))))``.

    A dense layer to `width`, then `blocks` of the two with LayerNorm and logits scaled by the inverse width
    (`SelfAttention`), the mean over positions and a dense layer.  Positions are equal to it: put a
    `PositionalEmbedding` before it.  Errors as in `mlp`.
    Source: Vaswani et al. 2017; Xiong et al. 2020 (pre-norm); Hron et al. 2020 (the limit of attention).
    """
    _checked("transformer", blocks=blocks, heads=heads, width=width, outputs=outputs)
    layers: list[Module] = [Dense(width, W_std, b_std)]
    for _ in range(blocks):
        layers += [
            Residual(LayerNorm(), SelfAttention(width, heads, W_value_std=W_std, b_std=b_std, causal=causal)),
            Residual(LayerNorm(), Dense(width, W_std, b_std), Gelu(), Dense(width, W_std, b_std)),
        ]
    return Sequential(*layers, GlobalAvgPool(), Dense(outputs, 1.0, b_std))


def gcn(
    depth: int,
    width: int = 128,
    pool: str = "sum",
    activation: Module = _RELU,
    W_std: Any = 2**0.5,
    b_std: Any = None,
    outputs: int = 1,
    dense: int = 1,
) -> Graph:
    """Graph convolutional network: `depth` times the sum over neighbours and `dense` layers ``phi(W x + b)``, pooled.

    The input is ``(nodes, adjacency)`` or ``(nodes, adjacency, mask)`` as in `Graph`.  pool: "sum" or "mean" of the
    nodes, then a dense layer.  Raises ValueError for numbers below 1 or another pool, TypeError for an activation that
    is no module.  Source: Kipf and Welling 2017; Du et al. 2019 (its kernel with ReLU, "sum").
    """
    _checked("gcn", activation, depth=depth, width=width, outputs=outputs, dense=dense)
    if pool not in ("sum", "mean"):
        raise ValueError(f'gcn: pool must be "sum" or "mean", not {pool!r}.')
    step = (Aggregate(), *[m for _ in range(dense) for m in (Dense(width, W_std, b_std), activation)])
    last = GlobalSumPool() if pool == "sum" else GlobalAvgPool()
    return Graph(*step * depth, last, Dense(outputs, 1.0, b_std))
