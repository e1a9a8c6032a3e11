"""Networks of the reference list, built from their neutral description."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from widelimit import nn

FUNCTIONS = {
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "softplus": jax.nn.softplus,
    "swish": jax.nn.silu,
    "elu": jax.nn.elu,
    "cosh_inv": lambda z: 1 / jnp.cosh(z),
}


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
    if op == "branch":
        merge = {"sum": nn.Sum, "prod": nn.Product, "concat": nn.Concat}[layer["merge"]]
        return merge(*(network(branch) for branch in layer["branches"]))
    if op == "numerical":
        return nn.Elementwise(FUNCTIONS[layer["fn"]])
    if op == "dropout":
        return nn.Dropout(layer["keep"])
    arguments = {key: layer[key] for key in ("a", "b", "c", "degree") if key in layer}
    kinds = {
        "relu": nn.Relu, "erf": nn.Erf, "sin": nn.Sin, "cos": nn.Cos, "abs": nn.Abs, "gabor": nn.Gabor,
        "ab_relu": nn.ABRelu, "sign": nn.Sign, "exp": nn.Exp, "hermite": nn.Hermite, "monomial": nn.Monomial,
        "rectified_monomial": nn.RectifiedMonomial, "gelu": nn.Gelu, "identity": nn.Identity,
        "layer_norm": nn.LayerNorm,
    }  # fmt: skip
    return kinds[op](**arguments)


def network(spec: list[dict]) -> nn.Module:
    """A chain of layers."""
    return nn.Sequential(*(module(layer) for layer in spec))
