"""Full empirical NTK of a residual CNN and of a transformer, beside PyTorch's tutorial, curvlinops, Neural Tangents.

    uv run --extra test --with torch benchmarks/empirical_torch.py
    uv run --extra test --with torch --with curvlinops-for-pytorch benchmarks/empirical_torch.py    # and curvlinops
    uv run --extra test --with torch benchmarks/empirical_torch.py --rival PYTHON    # Neural Tangents of that Python
    uv run --extra test --with torch benchmarks/empirical_torch.py --device gpu    # on one GPU: seconds, not CPU-s

Rows: our kernel of the module; our kernel of the same network written in JAX; "jac" of the tutorial "Neural Tangent
Kernels" (torch.func: `vmap(jacrev)` of all parameters, then one product for each parameter); curvlinops' Jacobian
operator times its transpose; structured derivatives of Neural Tangents of the network in JAX (its environment:
`benchmarks/empirical.py`).  All have the same parameters.  Each row is a process of its own; on a CPU one thread and
its processor time; the best of three runs after the first.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

NETWORKS = ("residual cnn", "transformer")
OURS, IN_JAX, RECIPE = "widelimit of PyTorch", "widelimit of JAX", "PyTorch tutorial"
CURVLINOPS, TANGENTS = "curvlinops", "Neural Tangents, structured"


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


def residual_cnn_in_jax(params, x):
    """The same, from parameters by name, of one example (3, 32, 32)."""
    import jax
    import jax.numpy as jnp

    def conv(x, name, stride=1, padding=1):
        dims = ("NCHW", "OIHW", "NCHW")
        pad = [(padding, padding)] * 2
        y = jax.lax.conv_general_dilated(x[None], params[name + ".weight"], (stride, stride), pad, None, None, dims)[0]
        return y + params[name + ".bias"][:, None, None] if name + ".bias" in params else y

    def norm(x, name):
        scale, shift = params[name + ".weight"], params[name + ".bias"]
        return x * (scale / (1 + 1e-5) ** 0.5)[:, None, None] + shift[:, None, None]

    x = jax.nn.relu(conv(x, "0"))
    for i, stride in ((2, 1), (3, 2), (4, 2)):
        skip = conv(x, f"{i}.skip", stride, 0) if stride > 1 else x
        y = jax.nn.relu(norm(conv(x, f"{i}.one.0", stride), f"{i}.one.1"))
        x = jax.nn.relu(norm(conv(y, f"{i}.two.0"), f"{i}.two.1") + skip)
    return params["7.weight"] @ jnp.mean(x, (1, 2)) + params["7.bias"]


def transformer_in_jax(params, x):
    """The same, from parameters by name, of one example (32, 16)."""
    import jax
    import jax.numpy as jnp

    def linear(x, name):
        return x @ params[name + ".weight"].T + params[name + ".bias"]

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        unit = centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return unit * params[name + ".weight"] + params[name + ".bias"]

    x = linear(x, "first")
    t, d = x.shape
    for i in (0, 1):
        at = f"blocks.{i}."
        mix = jnp.split(linear(norm(x, at + "before"), at + "mix"), 3, -1)
        q, k, v = (jnp.transpose(a.reshape(t, 4, d // 4), (1, 0, 2)) for a in mix)
        weights = jax.nn.softmax(q @ jnp.swapaxes(k, 1, 2) / (d // 4) ** 0.5)
        x = x + linear(jnp.transpose(weights @ v, (1, 0, 2)).reshape(t, d), at + "out")
        hidden = jax.nn.gelu(linear(norm(x, at + "between"), at + "up"), approximate=False)
        x = x + linear(hidden, at + "down")
    return linear(norm(x, "norm").mean(0), "last")


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


def of_operator(model, X):
    """``J J^T`` by curvlinops' Jacobian operator and its transpose, all columns at once."""
    import torch
    from curvlinops import JacobianLinearOperator, TransposedJacobianLinearOperator

    params, data = list(model.parameters()), [(X, torch.zeros(len(X), 10))]
    J = JacobianLinearOperator(model, params, data, check_deterministic=False)
    transposed = TransposedJacobianLinearOperator(model, params, data, check_deterministic=False)

    def kernel():
        with torch.no_grad():
            K = J @ (transposed @ torch.eye(10 * len(X)))
        return K.reshape(len(X), 10, len(X), 10).permute(0, 2, 1, 3)

    return kernel


def in_jax(network: str, row: str, folder: str):
    """The full kernel of the network in JAX, from parameters and examples that the PyTorch row left in `folder`."""
    import jax
    import numpy as np

    f = {"residual cnn": residual_cnn_in_jax, "transformer": transformer_in_jax}[network]
    stored = np.load(pathlib.Path(folder) / f"{network}.npz")
    X = jax.numpy.asarray(stored["examples"])
    params = {name[2:]: jax.numpy.asarray(stored[name]) for name in stored.files if name.startswith("p:")}
    if row == TANGENTS:
        import neural_tangents as nt

        batch = jax.vmap(f, (None, 0))
        k = jax.jit(
            nt.empirical_ntk_fn(
                lambda params, x: batch(params, x), trace_axes=(), vmap_axes=0,
                implementation=nt.NtkImplementation.STRUCTURED_DERIVATIVES,
            )
        )  # fmt: skip
        return lambda: k(X, None, params)
    import widelimit as wl

    kernel = wl.empirical_ntk(f, params, output="full")
    return lambda: wl.gram(kernel, X, memory=8e9)


def of_torch(network: str, row: str, n: int, device: str, folder: str):
    """The full kernel of the module; its parameters and examples are left in `folder`."""
    import numpy as np
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(1)
    model, shape = {"residual cnn": residual_cnn, "transformer": transformer}[network]()
    X = np.random.default_rng(0).normal(size=(n, *shape)).astype(np.float32)
    params = {f"p:{name}": p.detach().numpy() for name, p in model.named_parameters()}
    np.savez(pathlib.Path(folder) / f"{network}.npz", examples=X, **params)
    if row == OURS:
        import jax

        import widelimit as wl

        kernel, examples = wl.empirical_ntk(model, output="full"), jax.numpy.asarray(X)
        return lambda: wl.gram(kernel, examples, memory=8e9)
    where = "cuda" if device == "gpu" else "cpu"
    make = of_operator if row == CURVLINOPS else recipe
    k = make(model.to(where), torch.as_tensor(X, device=where))
    return lambda: k().cpu().numpy()


def worker(network: str, row: str, n: int, device: str, folder: str) -> None:
    import numpy as np

    clock = time.process_time if device == "cpu" else time.perf_counter
    compute = in_jax(network, row, folder) if row in (IN_JAX, TANGENTS) else of_torch(network, row, n, device, folder)
    times = []
    for _ in range(4):
        start = clock()
        K = np.asarray(compute())
        times.append(clock() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    norm = float(np.linalg.norm(K.astype(np.float64)))
    print(json.dumps({"first": times[0], "best": min(times[1:]), "MiB": peak, "norm": norm}))


def compared(network: str, rows: dict[str, str], options, folder: str) -> bool:
    """Prints a line for each row (its name and Python); whether all ran and agree."""
    one = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    if options.device == "cpu":
        one |= {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false", "JAX_PLATFORMS": "cpu"}
    found, well = {}, True
    print(f"\n{network}, {options.examples} examples, {options.device}: seconds, the best of three after the first")
    for row, python in rows.items():
        command = [python, str(pathlib.Path(__file__).resolve()), "--worker", network, row, folder]
        command += ["--examples", str(options.examples), "--device", options.device]
        run = subprocess.run(command, env=one, cwd=folder, capture_output=True, text=True, check=False)
        if run.returncode:
            print(f"{row:<28} failed: {run.stderr.strip().splitlines()[-1:]}")
            well = False
            continue
        found[row] = r = json.loads(run.stdout.splitlines()[-1])
        ratio = f"{r['best'] / found[OURS]['best']:6.2f} x" if OURS in found else ""
        print(f"{row:<28}{r['best']:8.3f}  {ratio}  first {r['first']:6.2f}  peak {r['MiB']:5.0f} MiB", flush=True)
    norms = [r["norm"] for r in found.values()]
    if norms and max(norms) - min(norms) > 1e-3 * norms[0]:
        print(f"the kernels differ: norms {norms}")
        well = False
    return well


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=16)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--network", choices=NETWORKS, action="append", help="one of them only")
    parser.add_argument("--rival", metavar="PYTHON", help="a Python that has neural_tangents")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        network, row, folder = options.worker
        worker(network, row, options.examples, options.device, folder)
        return 0
    rows = dict.fromkeys((OURS, IN_JAX, RECIPE), sys.executable)
    if importlib.util.find_spec("curvlinops") and options.device == "cpu":
        rows[CURVLINOPS] = sys.executable
    if options.rival:
        rows[TANGENTS] = options.rival
    with tempfile.TemporaryDirectory() as folder:
        well = [compared(network, rows, options, folder) for network in options.network or NETWORKS]
    return 0 if all(well) else 1


if __name__ == "__main__":
    sys.exit(main())
