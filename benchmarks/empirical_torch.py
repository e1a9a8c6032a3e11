"""Full empirical NTK of a residual CNN and of a transformer of PyTorch, beside the recipe of PyTorch's tutorial.

    uv run --extra test --with torch benchmarks/empirical_torch.py
    uv run --extra test --with torch benchmarks/empirical_torch.py --device gpu    # both on one GPU: seconds, not CPU-s

Rows: our kernel of the module, and "jac" of the tutorial "Neural Tangent Kernels" (torch.func: `vmap(jacrev)` of all
parameters, then one product for each parameter).  Each row is a process of its own; on a CPU one thread and its
processor time; the best of three runs after the first.
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

NETWORKS = ("residual cnn", "transformer")
OURS, RECIPE = "widelimit of PyTorch", "PyTorch tutorial"


def residual_cnn():
    """Ten convolutions, 32 to 128 channels, BatchNorm in inference mode, 32 x 32 x 3 images, ten outputs."""
    from torch import nn

    class Block(nn.Module):
        def __init__(self, before: int, after: int, stride: int):
            super().__init__()
            self.one = nn.Sequential(nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after))
            self.two = nn.Sequential(nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after))
            self.skip = nn.Identity() if stride == 1 else nn.Conv2d(before, after, 1, stride, bias=False)
            self.relu = nn.ReLU()

        def forward(self, x):
            return self.relu(self.two(self.relu(self.one(x))) + self.skip(x))

    return nn.Sequential(
        nn.Conv2d(3, 32, 3, 1, 1), nn.ReLU(), Block(32, 32, 1), Block(32, 64, 2), Block(64, 128, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10),
    ).eval(), (3, 32, 32)  # fmt: skip


def transformer():
    """Two blocks of 4 heads, 128 channels, before-norm, sequences of 32, ten outputs."""
    from torch import nn
    from torch.nn import functional as F

    class Block(nn.Module):
        def __init__(self, d: int, heads: int):
            super().__init__()
            self.heads, self.before, self.between = heads, nn.LayerNorm(d), nn.LayerNorm(d)
            self.mix, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
            self.up, self.down = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

        def forward(self, x):
            n, t, d = x.shape
            q, k, v = (
                a.reshape(n, t, self.heads, d // self.heads).transpose(1, 2)
                for a in self.mix(self.before(x)).chunk(3, -1)
            )
            mixed = F.softmax(q @ k.transpose(-1, -2) / (d // self.heads) ** 0.5, -1) @ v
            x = x + self.out(mixed.transpose(1, 2).reshape(n, t, d))
            return x + self.down(F.gelu(self.up(self.between(x))))

    class Transformer(nn.Module):
        def __init__(self, d: int = 128):
            super().__init__()
            self.first, self.blocks = nn.Linear(16, d), nn.Sequential(Block(d, 4), Block(d, 4))
            self.norm, self.last = nn.LayerNorm(d), nn.Linear(d, 10)

        def forward(self, x):
            return self.last(self.norm(self.blocks(self.first(x))).mean(1))

    return Transformer().eval(), (32, 16)


def recipe(model, X):
    """The tutorial's `empirical_ntk_jacobian_contraction`, "full"."""
    import torch
    from torch.func import functional_call, jacrev, vmap

    params = {k: v.detach() for k, v in model.named_parameters()}

    def one(params, x):
        return functional_call(model, params, (x.unsqueeze(0),)).squeeze(0)

    def jacobians(x):
        return [j.flatten(2) for j in vmap(jacrev(one), (None, 0))(params, x).values()]

    def kernel():
        first, second = jacobians(X), jacobians(X)
        return torch.stack([torch.einsum("Naf,Mbf->NMab", a, b) for a, b in zip(first, second, strict=True)]).sum(0)

    return kernel


def worker(network: str, row: str, n: int, device: str) -> None:
    import numpy as np
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(1)
    model, shape = {"residual cnn": residual_cnn, "transformer": transformer}[network]()
    X = np.random.default_rng(0).normal(size=(n, *shape)).astype(np.float32)
    clock = time.process_time if device == "cpu" else time.perf_counter
    if row == RECIPE:
        where = "cuda" if device == "gpu" else "cpu"
        k = recipe(model.to(where), torch.as_tensor(X, device=where))

        def compute():
            return k().cpu().numpy()
    else:
        import jax

        import widelimit as wl

        kernel, examples = wl.empirical_ntk(model, output="full"), jax.numpy.asarray(X)

        def compute():
            return np.asarray(wl.gram(kernel, examples, memory=8e9))

    times = []
    for _ in range(4):
        start = clock()
        K = compute()
        times.append(clock() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found = {
        "first": times[0],
        "best": min(times[1:]),
        "MiB": peak,
        "norm": float(np.linalg.norm(K.astype(np.float64))),
    }
    print(json.dumps(found))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=16)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(*options.worker, options.examples, options.device)
        return 0
    one = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    if options.device == "cpu":
        one |= {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false", "JAX_PLATFORMS": "cpu"}
    status = 0
    for network in NETWORKS:
        print(f"\n{network}, {options.examples} examples, {options.device}: seconds, the best of three after the first")
        rows = {}
        for row in (OURS, RECIPE):
            command = [sys.executable, pathlib.Path(__file__), "--worker", network, row]
            command += ["--examples", str(options.examples), "--device", options.device]
            run = subprocess.run(command, env=one, capture_output=True, text=True, check=False)
            if run.returncode:
                print(f"{row:<24} failed: {run.stderr.strip().splitlines()[-1:]}")
                status = 1
                continue
            rows[row] = r = json.loads(run.stdout.splitlines()[-1])
            ratio = f"{r['best'] / rows[OURS]['best']:6.2f} x" if OURS in rows else ""
            print(f"{row:<24}{r['best']:8.3f}  {ratio}  first {r['first']:6.2f}  peak {r['MiB']:5.0f} MiB", flush=True)
        norms = [r["norm"] for r in rows.values()]
        if norms and max(norms) - min(norms) > 1e-3 * norms[0]:
            print(f"the kernels differ: norms {norms}")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
