"""Networks of the reference list, built from their neutral description."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from widelimit import nn

FUNCTIONS = {
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "softplus": jax.nn.softplus,
    "swish": jax.nn.silu,
    "elu": jax.nn.elu,
    "cosh_inv": lambda z: 1 / jnp.cosh(z),
}


def _sigmoid_like(z):
    return 0.5 * jax.scipy.special.erf(z / 2.4020563531719796) + 0.5


def _attention(layer: dict) -> nn.Module:
    names, positions = ("W_query_std", "W_key_std", "W_value_std", "W_out_std", "b_std"), None
    if layer["pos_emb"] != "NONE":
        concat = layer["pos_emb"] == "CONCAT"
        positions = nn.PositionalEmbedding(layer["W_pos_emb_std"], layer["pos_emb_decay"], concat)
    by_values = layer.get("val_pos_emb", False)
    attention = nn.SelfAttention(
        64, 2, *(layer[n] for n in names), layer["mechanism"].lower(), positions=None if by_values else positions,
        scaling="width" if layer["linear_scaling"] else "root_width",
    )  # fmt: skip
    return nn.Sequential(positions, attention) if by_values and positions else attention


@dataclasses.dataclass(frozen=True)
class Contracted(nn.Module):
    """A constant vector contracted with one axis of positions."""

    vector: tuple[float, ...]
    axis: int

    def apply(self, params, x, *, key=None):
        return jnp.tensordot(x, jnp.asarray(self.vector), axes=([self.axis], [0]))


def module(layer: dict) -> nn.Module:
    """One layer of the list as a module."""
    op = layer["op"]
    if op == "dense":
        return nn.Dense(
            layer.get("width", 64),
            layer["W_std"],
            layer["b_std"],
            parameterization=layer.get("parameterization", "ntk"),
        )
    if op in ("conv", "conv_local", "conv_transpose"):
        kind = {"conv": nn.Conv, "conv_local": nn.ConvLocal, "conv_transpose": nn.ConvTranspose}[op]
        return kind(
            layer.get("width", 64), tuple(layer["filter"]), tuple(layer["strides"]), layer["padding"], layer["W_std"],
            layer["b_std"], layer.get("parameterization", "ntk"),
        )  # fmt: skip
    if op in ("avg_pool", "sum_pool"):
        arguments = (tuple(layer["window"]), tuple(layer["strides"]), layer["padding"])
        return (
            nn.SumPool(*arguments) if op == "sum_pool" else nn.AvgPool(*arguments, layer.get("normalize_edges", False))
        )
    if op == "branch":
        branches = [network(branch) for branch in layer["branches"]]
        if layer["merge"] == "concat":
            axis = layer["axis"]  # of the batch; ours are of one example
            return nn.Concat(*branches, axis=axis - (axis > 0))
        return {"sum": nn.Sum, "prod": nn.Product}[layer["merge"]](*branches)
    if op == "attention":
        return _attention(layer)
    if op == "layer_norm":
        return nn.LayerNorm(axis=tuple(a - (a > 0) for a in layer["axis"]))
    if op == "resize":
        shape = tuple(None if n == -1 else n for n in layer["shape"][1:-1])
        return nn.ImageResize(shape, layer["method"], layer["antialias"])
    if op == "index":
        return nn.Crop(tuple(map(tuple, layer["slices"][1:])))
    if op == "dot_general":
        return Contracted(tuple(layer["rhs"]), layer["contract"][0][0] - 1)
    if op == "numerical":
        return nn.Elementwise(FUNCTIONS[layer["fn"]])
    if op == "aggregate":
        return nn.Aggregate()
    if op == "dropout":
        return nn.Dropout(layer["keep"])
    arguments = {key: layer[key] for key in ("a", "b", "c", "degree") if key in layer}
    kinds = {
        "relu": nn.Relu, "erf": nn.Erf, "sin": nn.Sin, "cos": nn.Cos, "abs": nn.Abs, "gabor": nn.Gabor,
        "ab_relu": nn.ABRelu, "sign": nn.Sign, "exp": nn.Exp, "hermite": nn.Hermite, "monomial": nn.Monomial,
        "rectified_monomial": nn.RectifiedMonomial, "gelu": nn.Gelu, "identity": nn.Identity,
        "flatten": nn.Flatten,
        "global_avg_pool": nn.GlobalAvgPool, "global_sum_pool": nn.GlobalSumPool,
        "sigmoid_like": lambda: nn.Elementwise(_sigmoid_like),
    }  # fmt: skip
    return kinds[op](**arguments)


def network(spec: list[dict]) -> nn.Sequential:
    """A chain of layers."""
    return nn.Sequential(*(module(layer) for layer in spec))


def case_network(case: dict) -> nn.Module:
    """The network of an entry of the list, on graphs or masked examples if it is called with them."""
    chain = network(case["spec"])
    if "pattern" in case["call"]:
        return nn.Graph(*chain.layers)
    return nn.Masked(*chain.layers) if "mask_constant" in case["call"] else chain


def case_inputs(case: dict, inputs, i: int):
    """Its first or second inputs (i = 0, 1), with adjacency matrices or masks."""
    x = inputs[case[f"x{i + 1}"]]
    if "pattern" in case["call"]:  # there y_j = sum_i A_ij x_i
        return x, np.swapaxes(inputs[case["call"]["pattern"][i]], 1, 2)
    if "mask_constant" in case["call"]:
        return x, (x != case["call"]["mask_constant"]).all(-1)
    return x
