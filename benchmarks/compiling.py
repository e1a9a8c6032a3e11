"""Processor time until the first Gram of deep networks: tracing and compiling; then of a second Gram.

uv run python benchmarks/compiling.py                # 50-layer residual networks, dense and convolutional; an RNN
uv run python benchmarks/compiling.py --layers 20
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

import jax.numpy as jnp
import numpy as np

import widelimit as wl
from widelimit import nn


def _residual(layer, layers: int, last: tuple) -> nn.Module:
    blocks = [nn.Residual(nn.Relu(), layer(), nn.Relu(), layer()) for _ in range(layers // 2)]
    return nn.Sequential(layer(), *blocks, *last, nn.Dense(1))


def networks(layers: int) -> dict:
    """Name: network, shape of an input, inputs."""
    dense = _residual(lambda: nn.Dense(64, W_std=1.4), layers, ())
    conv = _residual(lambda: nn.Conv(64, (3, 3), W_std=1.4), layers, (nn.GlobalAvgPool(),))
    flat = _residual(lambda: nn.Conv(64, (3, 3), W_std=1.4), layers, (nn.Flatten(),))
    rnn = nn.Sequential(nn.RNN(64), nn.GlobalAvgPool(), nn.Dense(1))
    return {
        "dense residual": (dense, (10,), 100), "convolutional residual, flattened": (flat, (8, 8, 3), 16),
        "convolutional residual, pooled": (conv, (8, 8, 3), 4), "rnn, mean of 50 states": (rnn, (50, 3), 8),
    }  # fmt: skip


def _measure(name: str, layers: int) -> None:
    net, shape, count = networks(layers)[name]
    x = jnp.asarray(np.random.default_rng(0).normal(size=(count, *shape)), jnp.float32)
    k, seconds = wl.ntk(net), []
    for _ in range(2):
        start = time.process_time()
        np.asarray(wl.gram(k, x))
        seconds.append(time.process_time() - start)
    print(f"| {name} | {count} x {count} | {seconds[0]:.1f} | {seconds[1]:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=50)
    parser.add_argument("--only", help="one network, in this process")
    options = parser.parse_args()
    if options.only:
        _measure(options.only, options.layers)
        return
    print(f"{options.layers} layers of weights (RNN: one)\n")
    print("| Network | Gram | first, CPU-s | second, CPU-s |\n| --- | --- | --- | --- |", flush=True)
    for name in networks(options.layers):  # each in a process of its own: none finds the operations of another
        command = [sys.executable, __file__, "--only", name, "--layers", str(options.layers)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
