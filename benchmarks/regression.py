"""Ridgeless regression with exact kernels on real data: accuracies of CNNs, graph networks, RNNs and transformers.

    uv run benchmarks/regression.py cifar --data FOLDER --depths 2 5 10     # Arora et al. 2019, without pooling

FOLDER holds `cifar10_raw6102.npz` (Xtr, ytr, Xte, yte).  Gram matrices are in float32, the solution in float64.
Prints a line for each network: accuracy, time, pairs per second.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import time

import jax.numpy as jnp
import numpy as np
import scipy.linalg

import widelimit as wl
from widelimit import nn


def accuracy(K_train, K_test, labels, truth, ridge: float = 0.0) -> float:
    """Of the classes that regression on one-hot labels (less their mean) finds: ``K_test (K_train + ridge)^-1 Y``."""
    classes = np.unique(labels)
    Y = (labels[:, None] == classes).astype(float) - 1 / len(classes)
    K = np.asarray(K_train, np.float64)
    alpha = scipy.linalg.solve(K + ridge * np.trace(K) / len(K) * np.eye(len(K)), Y, assume_a="pos")
    return float((classes[np.argmax(np.asarray(K_test, np.float64) @ alpha, 1)] == truth).mean())


def timed_grams(k, X, X_test, batch_size):
    """Both Grams (training, test with training), wall and processor seconds."""
    wall, cpu = time.perf_counter(), time.process_time()

    def report(done, total, left):
        if done % max(total // 20, 1) == 0:
            print(f"    {done}/{total} tiles, {left:.0f} s left", file=sys.stderr, flush=True)

    K = wl.gram(k, X, batch_size=batch_size, progress=report)
    K_test = wl.gram(k, X_test, X, batch_size=batch_size, progress=report)
    return K, K_test, time.perf_counter() - wall, time.process_time() - cpu


def arora_cnn(depth: int) -> nn.Sequential:
    """3 x 3 convolutions and ReLU, flattened, one dense layer."""
    blocks = [m for _ in range(depth) for m in (nn.Conv(64, (3, 3), W_std=2**0.5), nn.Relu())]
    return nn.Sequential(*blocks, nn.Flatten(), nn.Dense(1))


def cifar(options) -> None:
    with np.load(pathlib.Path(options.data) / "cifar10_raw6102.npz") as d:
        n, m = options.train, options.test
        X, y, X_test, truth = d["Xtr"][:n], d["ytr"][:n], d["Xte"][:m], d["yte"][:m]
    mean, std = (f(X / 255.0, axis=(0, 2, 3), keepdims=True) for f in (np.mean, np.std))
    X, X_test = (jnp.asarray(((a / 255.0 - mean) / std).transpose(0, 2, 3, 1), jnp.float32) for a in (X, X_test))
    print(f"CIFAR-10, {n} train, {m} test, pixels standardised by channel; 3x3 CNN without pooling, no bias")
    print(f"{'layers':>6}{'NTK':>8}{'NNGP':>8}{'wall s':>9}{'CPU s':>9}{'ns a pair, position, layer (CPU)':>36}")
    for depth in options.depths:
        K, K_test, wall, cpu = timed_grams(wl.kernels(arora_cnn(depth)), X, X_test, options.batch)
        found = [accuracy(a, b, y, truth) for a, b in ((K.ntk, K_test.ntk), (K.nngp, K_test.nngp))]
        pairs = n * (n + 1) / 2 + n * m
        cost = cpu / pairs / (32 * 32 * depth) * 1e9
        print(f"{depth:>6}{found[0]:>8.3f}{found[1]:>8.3f}{wall:>9.0f}{cpu:>9.0f}{cost:>36.0f}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=["cifar"])
    parser.add_argument("--data", required=True)
    parser.add_argument("--depths", type=int, nargs="+", default=[2, 5, 10])
    parser.add_argument("--train", type=int, default=1000)
    parser.add_argument("--test", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=None, help="rows of a tile of the Gram matrix")
    options = parser.parse_args()
    {"cifar": cifar}[options.task](options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
