"""Ridgeless regression with exact kernels on real data: accuracies of CNNs, graph networks, RNNs and transformers.

    uv run benchmarks/regression.py cifar --data FOLDER --depths 2 5 10      # Arora et al. 2019, without pooling
    uv run --with scikit-learn benchmarks/regression.py graphs --data FOLDER # Du et al. 2019, MUTAG
    uv run benchmarks/regression.py sequences --data FOLDER                  # a recurrent network and a transformer

FOLDER holds `cifar10_raw6102.npz` (Xtr, ytr, Xte, yte), `graphs/MUTAG.txt` (per graph a line "nodes label", per node
"tag degree neighbours...") and `uci90.npz` (`synthetic-control/X`, `/y`, `/foldN_train`, `/foldN_test`).
Gram matrices are in float32, the solution in float64.  Prints a line for each network.
"""

from __future__ import annotations

import argparse
import itertools
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


def read_graphs(path) -> tuple[tuple, np.ndarray]:
    """``(nodes, adjacency, mask)`` of all graphs, padded to the largest, and their labels.

    Nodes are one-hot tags; the adjacency has self loops.  Graphs whose lists of neighbours contradict each other are
    left out.
    """
    numbers = iter(path.read_text().split())
    graphs, labels = [], []
    for _ in range(int(next(numbers))):
        nodes, label = int(next(numbers)), int(next(numbers))
        rows = []
        for _ in range(nodes):
            tag, degree = int(next(numbers)), int(next(numbers))
            rows.append((tag, [int(next(numbers)) for _ in range(degree)]))
        graphs.append(rows)
        labels.append(label)
    whole = [g for g, rows in enumerate(graphs) if all(i in rows[j][1] for i, r in enumerate(rows) for j in r[1])]
    if len(whole) < len(graphs):
        print(f"{path.name}: {len(graphs) - len(whole)} graphs left out, whose neighbours are not mutual")
    graphs, labels = [graphs[g] for g in whole], [labels[g] for g in whole]
    tags, largest = sorted({tag for g in graphs for tag, _ in g}), max(map(len, graphs))
    X = np.zeros((len(graphs), largest, len(tags)), np.float32)
    A = np.zeros((len(graphs), largest, largest), np.float32)
    mask = np.zeros((len(graphs), largest), bool)
    for g, rows in enumerate(graphs):
        for i, (tag, neighbours) in enumerate(rows):
            X[g, i, tags.index(tag)] = mask[g, i] = A[g, i, i] = 1
            A[g, i, neighbours] = 1
    return (X, A, mask), np.asarray(labels)


def graphs(options) -> None:
    (X, A, mask), y = read_graphs(pathlib.Path(options.data) / "graphs" / "MUTAG.txt")
    print(
        f"MUTAG: {len(y)} graphs of up to {X.shape[1]} nodes, {X.shape[2]} tags; graph convolutional networks, sum pool"
    )
    mean = A / np.maximum(A.sum(2, keepdims=True), 1)
    candidates = {}
    for depth, dense in itertools.product(options.depths, options.dense):
        k = wl.ntk(nn.gcn(depth, pool="sum", dense=dense))
        for neighbours, adjacency in (("sum", A), ("mean", mean)):
            name = f"{neighbours} of neighbours, depth {depth}, {dense} dense"
            wall, cpu = time.perf_counter(), time.process_time()
            K = wl.gram(k, tuple(map(jnp.asarray, (X, adjacency, mask))), batch_size=options.batch)
            K = np.asarray(K, np.float64)
            root = np.sqrt(np.diag(K))
            candidates[name, False], candidates[name, True] = K / K.min(), K / root / root[:, None]
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            print(f"  {name}: {wall:.0f} s, {cpu:.0f} s of processor time", flush=True)
    report_nested(candidates, y)


def report_nested(candidates, y) -> None:
    """Support vector machines, 10 folds: kernel and C chosen on the training folds, and on the test folds."""
    from sklearn.model_selection import StratifiedKFold
    from sklearn.svm import SVC

    Cs = np.logspace(-2, 4, 13)

    def score(K, C, train, test):
        svm = SVC(C=C, kernel="precomputed", max_iter=500_000).fit(K[np.ix_(train, train)], y[train])
        return svm.score(K[np.ix_(test, train)], y[test])

    def table(splits):
        """Mean accuracy of every kernel and C over the splits, and those of each split."""
        return np.array([[[score(K, C, a, b) for a, b in splits] for C in Cs] for K in candidates.values()])

    for seed in range(3):
        outer = list(StratifiedKFold(10, shuffle=True, random_state=seed).split(y, y))
        accuracies, chosen = [], []
        for train, test in outer:
            inner = StratifiedKFold(5, shuffle=True, random_state=seed).split(y[train], y[train])
            k, c = divmod(int(table([(train[a], train[b]) for a, b in inner]).mean(2).argmax()), len(Cs))
            name, normalised = list(candidates)[k]
            chosen.append(f"{name}{', normalised' if normalised else ''}")
            accuracies.append(score(candidates[name, normalised], Cs[c], train, test))
        every = table(outer)
        best = every[np.unravel_index(every.mean(2).argmax(), every.shape[:2])]
        print(f"seed {seed}: chosen on training folds {np.mean(accuracies):.3f} +- {np.std(accuracies):.3f}, "
              f"on the test folds themselves {best.mean():.3f} +- {best.std():.3f}", flush=True)  # fmt: skip
        print("  most often chosen: " + max(set(chosen), key=chosen.count), flush=True)


def sequences(options) -> None:
    with np.load(pathlib.Path(options.data) / "uci90.npz") as d:
        X, y = d["synthetic-control/X"], d["synthetic-control/y"]
        folds = [(d[f"synthetic-control/fold{i}_train"], d[f"synthetic-control/fold{i}_test"]) for i in range(4)]
    X = (X - X.mean()) / X.std()
    positions = nn.PositionalEmbedding(0.3, decay=0.1)
    networks = {
        "last state of an RNN": (nn.Sequential(nn.RNN(128, b_std=0.1, last=True), nn.Dense(1)), X[..., None]),
        "mean state of an RNN": (
            nn.Sequential(nn.RNN(128, b_std=0.1), nn.GlobalAvgPool(), nn.Dense(1)),
            X[..., None],
        ),
        "transformer": (
            nn.Sequential(nn.Dense(128), positions, *nn.transformer(1).layers),
            X.reshape(len(X), -1, 4),  # windows of four steps
        ),
    }
    print(f"synthetic-control: {len(y)} sequences of {X.shape[1]} steps, {len(np.unique(y))} classes, 4 folds")
    for name in options.networks or networks:
        net, x = networks[name]
        start = time.perf_counter()
        K = wl.gram(wl.kernels(net), jnp.asarray(x, jnp.float32), batch_size=options.batch)
        wall = time.perf_counter() - start
        for kind in ("ntk", "nngp"):
            G = np.asarray(getattr(K, kind))
            found = [accuracy(G[np.ix_(a, a)], G[np.ix_(b, a)], y[a], y[b], ridge=1e-4) for a, b in folds]
            print(f"{name:>24}{kind:>6}{np.mean(found):>8.3f} +- {np.std(found):.3f}{wall:>8.0f} s", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=["cifar", "graphs", "sequences"])
    parser.add_argument("--data", required=True)
    parser.add_argument("--depths", type=int, nargs="+", help="default: 2 5 10, of graphs 1 2 3")
    parser.add_argument("--train", type=int, default=1000)
    parser.add_argument("--test", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=None, help="rows of a tile of the Gram matrix")
    parser.add_argument("--dense", type=int, nargs="+", default=[1], help="of graphs: dense layers after each sum")
    parser.add_argument("--networks", nargs="+", help="of sequences: names of those to run")
    options = parser.parse_args()
    options.depths = options.depths or ([1, 2, 3] if options.task == "graphs" else [2, 5, 10])
    {"cifar": cifar, "graphs": graphs, "sequences": sequences}[options.task](options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
