"""Operators beside the dense Gram, on noisy digits: processor time of one thread and peak memory.

    uv run --extra test benchmarks/operators.py
    uv run --extra test benchmarks/operators.py --examples 1024

The NTK of a ReLU network with three hidden layers, and the empirical NTK (float32, mean over 10 outputs) of a small
convolutional network.  Each row is a process of its own, bound to one thread.  Peak memory is that of the process less
what it had before.  Times of the top 10 and the trace include compiling; of a Gram or product the second is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import time

MEMORY = 2**26  # bytes that tiles and batches may take
COUNT = 10
ROWS = {
    "NTK": ("Gram", "Gram, top 10", "operator, product", "operator, 16 products at once", "operator, top 10"),
    "empirical NTK": ("Gram", "Gram, top 10", "operator, product", "operator, trace", "operator, top 10"),
}


def digits(n: int):
    """Images (n, 8, 8): scikit-learn's digits, repeated with noise."""
    import numpy as np
    from sklearn.datasets import load_digits

    images = load_digits().images / 16
    rng = np.random.default_rng(0)
    return images[rng.permutation(len(images))[np.arange(n) % len(images)]] + 0.1 * rng.normal(size=(n, 8, 8))


def kernel_and_examples(kind: str, n: int):
    import jax
    import jax.numpy as jnp
    import numpy as np

    import widelimit as wl
    from widelimit import nn

    X = digits(n)
    if kind == "NTK":
        layers = [layer for _ in range(3) for layer in (nn.Dense(512, 1.4, 0.1), nn.Relu())]
        return wl.ntk(nn.Sequential(*layers, nn.Dense(1))), X.reshape(n, 64)
    net = nn.Sequential(
        nn.Conv(32, (3, 3)), nn.Relu(), nn.Conv(32, (3, 3)), nn.Relu(), nn.GlobalAvgPool(), nn.Dense(10)
    )
    params = net.init(jax.random.key(0), (8, 8, 1))
    return wl.empirical_ntk(net.apply, params), jnp.asarray(X[..., None], np.float32)


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def worker(kind: str, row: str, n: int) -> None:
    import numpy as np
    import scipy.linalg

    import widelimit as wl

    k, x = kernel_and_examples(kind, n)
    wl.gram(k, x[:2])  # loads what is loaded on use
    scipy.linalg.eigh(np.eye(3))
    before, start = peak(), time.process_time()
    if row.startswith("Gram"):
        if row == "Gram":
            wl.gram(k, x, memory=MEMORY)  # compiles
            start = time.process_time()
        K = np.asarray(wl.gram(k, x, memory=MEMORY), np.float64)
        last = [n - COUNT, n - 1]
        found = scipy.linalg.eigh(K, eigvals_only=True, subset_by_index=last)[::-1] if "top" in row else K[:2].sum(1)
    else:
        A = wl.operator(k, x, memory=MEMORY)
        if row == "operator, trace":
            found = [wl.operator_trace(A).value]
        elif row == "operator, top 10":
            pairs = wl.top_eigenpairs(A, COUNT, tolerance=1e-4)
            assert pairs.converged
            found = pairs.values
        else:
            V = np.ones((n, 16) if "16" in row else n, np.float32 if kind == "empirical NTK" else float)
            A.mv(V)  # compiles
            start = time.process_time()
            found = np.asarray(A.mv(V)).reshape(n, -1)[:2, 0]
    seconds = time.process_time() - start
    print(json.dumps({"seconds": seconds, "MiB": peak() - before, "found": [float(a) for a in found]}))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=4096)
    parser.add_argument("--kernel", choices=list(ROWS), help="one of both")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    n = options.examples
    if options.worker:
        worker(*options.worker, n)
        return 0
    one = {**os.environ, "OMP_NUM_THREADS": "1", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
    wrong = 0
    for kind in [options.kernel] if options.kernel else ROWS:
        print(f"\n{kind}, {n} examples (the matrix: {8 * n * n / 2**20:.0f} MiB): processor seconds of one thread")
        rows = {}
        for row in ROWS[kind]:
            command = [sys.executable, pathlib.Path(__file__), "--examples", str(n), "--worker", kind, row]
            run = subprocess.run(command, env=one, capture_output=True, text=True, check=False)
            if run.returncode:
                print(f"{row:<32} failed: {run.stderr.strip().splitlines()[-1:]}")
                wrong = 1
                continue
            r = rows[row] = json.loads(run.stdout.splitlines()[-1])
            against = rows.get("Gram, top 10" if "top" in row else "Gram", r)
            ratios = f"{r['seconds'] / against['seconds']:6.2f} x   {r['MiB'] / max(against['MiB'], 1):6.2f} x"
            print(f"{row:<32}{r['seconds']:9.2f} s  {r['MiB']:6.0f} MiB   of the Gram's: {ratios}", flush=True)
        for one_row, other in (("Gram", "operator, product"), ("Gram, top 10", "operator, top 10")):
            if one_row in rows and other in rows:
                a, b = rows[one_row]["found"], rows[other]["found"]
                error = max(abs(p - q) for p, q in zip(a, b, strict=True)) / max(map(abs, a))
                print(f"{other}: largest difference from the dense, relative: {error:.1e}")
                wrong |= error > 1e-3
    return wrong


if __name__ == "__main__":
    sys.exit(main())
