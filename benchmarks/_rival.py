"""Kernels of Neural Tangents for `accuracy.py`, run by the Python that has it: ``_rival.py FOLDER DTYPE``."""

from __future__ import annotations

import json
import sys

import jax
import numpy as np

folder, dtype = sys.argv[1:3]
jax.config.update("jax_enable_x64", dtype == "float64")

from neural_tangents import stax  # noqa: E402  (after the precision is set)

LAYERS = {
    "relu": stax.Relu,
    "leaky": lambda: stax.LeakyRelu(0.25),
    "abs": stax.Abs,
    "erf": stax.Erf,
    "gelu": stax.Gelu,
    "sin": stax.Sin,
    "cos": stax.Cos,
    "sign": stax.Sign,
    "exp": lambda: stax.Exp(1.0, 0.25),
    "gaussian": lambda: stax.Gaussian(1.0, -0.5),
    "rbf": lambda: stax.Rbf(0.5),
    "polynomial": lambda: stax.Polynomial([0.0, 0.5, 0.0, 0.0625]),
}


def kernels(case: dict, X: np.ndarray) -> np.ndarray:
    make = LAYERS.get(case["activation"])
    if make is None:
        return np.zeros(0)
    b_std = case["b_std"] or None
    layers = []
    for _ in range(case["depth"]):
        layers += [stax.Dense(1, W_std=case["W_std"], b_std=b_std), make()]
    _, _, kernel_fn = stax.serial(*layers, stax.Dense(1, W_std=case["W_std"], b_std=b_std))
    row, square = kernel_fn(X[:1], X[1:], ("nngp", "ntk")), kernel_fn(X, None, ("nngp", "ntk"))
    return np.array([[*np.asarray(r)[0], *np.diag(np.asarray(g))] for r, g in zip(row, square)])  # noqa: B905


inputs = np.load(f"{folder}/inputs.npz")
with open(f"{folder}/cases.json") as file:
    cases = json.load(file)
np.savez(f"{folder}/out.npz", **{str(i): kernels(c, inputs[str(c["d"])]) for i, c in enumerate(cases)})
