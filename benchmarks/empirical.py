"""Full empirical NTK of a ReLU network 784-1024-1024-10: processor time of one thread and peak memory, beside rivals.

    uv run --extra test benchmarks/empirical.py
    uv run --extra test benchmarks/empirical.py --rival PYTHON     # Neural Tangents of that Python beside it
    uv run --extra test --with torch --with nngeometry benchmarks/empirical.py    # a PyTorch module and nngeometry, too

Each row is a process of its own, bound to one core; the best of five runs after the first, which compiles.  NumPy's row
is a layer-factorised kernel written by hand for this one network.  An environment for Neural Tangents (Python 3.11):
pip install neural-tangents==0.6.5 jax==0.4.25 jaxlib==0.4.25 numpy==1.26.* scipy==1.13.* tensorflow-cpu==2.16.2
tf2jax==0.3.6
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import pathlib
import resource
import subprocess
import sys
import time

SIZES = (784, 1024, 1024, 10)
OURS = ("widelimit", "widelimit, factorised", "widelimit, jacobian", "widelimit of PyTorch", "NumPy by hand")


def arrays(n: int):
    import numpy as np

    rng = np.random.default_rng(0)
    weights = [rng.normal(size=s).astype(np.float32) / s[0] ** 0.5 for s in itertools.pairwise(SIZES)]
    return weights, [np.zeros(s, np.float32) for s in SIZES[1:]], rng.normal(size=(n, SIZES[0])).astype(np.float32)


def network(params, x):
    import jax

    for i, (W, b) in enumerate(params):
        x = x @ W + b
        x = jax.nn.relu(x) if i < 2 else x
    return x


def by_hand(weights, biases, X):
    """Grams of what goes into the layers times Grams of the gradients by what comes out."""
    import numpy as np

    inputs, masks, h = [], [], X
    for i, (W, b) in enumerate(zip(weights, biases, strict=True)):
        inputs.append(h)
        z = h @ W + b
        masks.append(z > 0)
        h = np.maximum(z, 0) if i < 2 else z
    n, o = len(X), SIZES[-1]
    g = np.broadcast_to(np.eye(o, dtype=np.float32), (n, o, o))
    K = np.zeros((n, o, n, o), np.float32)
    for i in (2, 1, 0):
        flat = np.ascontiguousarray(g).reshape(n * o, -1)
        K += (inputs[i] @ inputs[i].T + 1)[:, None, :, None] * (flat @ flat.T).reshape(n, o, n, o)
        if i:
            g = (flat @ weights[i].T).reshape(n, o, -1) * masks[i - 1][:, None]
    return K.transpose(0, 2, 1, 3)


def torch_module(weights, biases):
    import torch
    from torch import nn

    layers = []
    for W, b in zip(weights, biases, strict=True):
        layer = nn.Linear(*W.shape)
        with torch.no_grad():
            layer.weight.copy_(torch.as_tensor(W.T))
            layer.bias.copy_(torch.as_tensor(b))
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def kernel(name: str, n: int):
    """A function that computes the kernel."""
    weights, biases, X = arrays(n)
    if name == "NumPy by hand":
        return lambda: by_hand(weights, biases, X)
    if name == "nngeometry":
        import torch
        from nngeometry.gram import GramMatrix

        torch.set_num_threads(1)
        examples = torch.utils.data.TensorDataset(torch.as_tensor(X), torch.zeros(n))
        model, loader = torch_module(weights, biases), torch.utils.data.DataLoader(examples, batch_size=n)
        return lambda: GramMatrix(model=model, loader=loader).to_torch().detach().numpy()
    import jax.numpy as jnp

    params = [(jnp.asarray(W), jnp.asarray(b)) for W, b in zip(weights, biases, strict=True)]
    X = jnp.asarray(X)
    if name == "Neural Tangents, structured":
        import jax
        import neural_tangents as nt

        k = jax.jit(nt.empirical_ntk_fn(network, trace_axes=(), vmap_axes=0, implementation=3))
        return lambda: k(X, None, params).block_until_ready()
    import widelimit as wl

    if name == "widelimit of PyTorch":
        k = wl.empirical_ntk(torch_module(weights, biases), output="full")
    else:
        method = name.partition(", ")[2] or "auto"
        k = wl.empirical_ntk(network, params, output="full", method=method)
    return lambda: wl.gram(k, X, memory=8e9)


def worker(name: str, n: int) -> None:
    import numpy as np

    compute, times = kernel(name, n), []
    start = time.process_time()
    K = compute()
    first = time.process_time() - start
    for _ in range(5):
        start = time.process_time()
        compute()
        times.append(time.process_time() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"first": first, "best": min(times), "MiB": peak, "sum": float(np.asarray(K, np.float64).sum())}))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, nargs="+", default=[32, 128])
    parser.add_argument("--rival", metavar="PYTHON", help="a Python that has neural_tangents")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker, options.examples[0])
        return 0
    names = [n for n in OURS if "PyTorch" not in n or importlib.util.find_spec("torch")]
    names += ["nngeometry"] if importlib.util.find_spec("nngeometry") else []
    rivals = ["Neural Tangents, structured"] if options.rival else []
    one = {**os.environ, "OMP_NUM_THREADS": "1", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
    for n in options.examples:
        print(f"\n{n} examples, kernel {10 * n} x {10 * n}: processor seconds of one thread")
        rows = {}
        for name in names + rivals:
            if "jacobian" in name and n > 64:  # minutes and gigabytes
                continue
            python = options.rival if name in rivals else sys.executable
            command = [python, pathlib.Path(__file__), "--worker", name, "--examples", str(n)]
            run = subprocess.run(command, env=one, capture_output=True, text=True, check=False)
            if run.returncode:
                print(f"{name:<30} failed: {run.stderr.strip().splitlines()[-1:]}")
                continue
            rows[name] = json.loads(run.stdout.splitlines()[-1])
            r, ours = rows[name], rows.get("widelimit")
            ratio = f"{r['best'] / ours['best']:6.2f} x" if ours else ""
            print(f"{name:<30}{r['best']:8.3f}  {ratio}  first {r['first']:6.2f}  peak {r['MiB']:5.0f} MiB", flush=True)
        sums = [r["sum"] for r in rows.values()]
        if sums and max(sums) - min(sums) > 1e-3 * abs(sums[0]):
            print(f"the kernels differ: sums of entries {sums}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
