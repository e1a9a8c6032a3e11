"""Largest relative errors of the analytic kernels against multiple-precision arithmetic, in float32 and float64.

    uv run --extra test benchmarks/accuracy.py                      # the table: a few minutes
    uv run --extra test benchmarks/accuracy.py --quick              # some two minutes
    uv run --extra test benchmarks/accuracy.py --depths 1 3 --activations relu erf
    uv run --extra test benchmarks/accuracy.py --activations tanh silu        # some 7 s of processor time a row
    uv run --extra test benchmarks/accuracy.py --rival PYTHON       # Neural Tangents of that Python beside it
    uv run --extra test benchmarks/accuracy.py --derivatives        # gradients at x = x', x = -x', x = 0

`--with gmpy2` after `uv run` makes mpmath faster.  An environment for the rival (Python 3.11): pip install
neural-tangents==0.6.5 jax==0.4.25 jaxlib==0.4.25 numpy==1.26.* scipy==1.13.* tensorflow-cpu==2.16.2 tf2jax==0.3.6

The numbers that the networks see are taken as exact: inputs are rounded to the precision under test first, and the
hyperparameters are exact in float32.  An error is |computed - exact| / |exact|, per pair, the largest of NNGP and
NTK; where the exact value is 0, anything but 0 counts as infinite.  A kernel that changes its sign between two angles
is 0 in between, where no rounded input has a relative error: an entry below 1/100 of the geometric mean of its two
diagonal ones is judged relative to that hundredth, and the row is marked `*` (only kernels named in
`CROSSING`).  Exit code 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
from mpmath import mp, mpf

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests"))

import oracle
import widelimit as wl
from widelimit import nn

TARGETS = {"float32": 1e-5, "float64": 1e-12}
ANGLES = [0.0, 1e-8, 1e-6, 1e-4, 1e-3, 1e-2, 0.1, 1.0, np.pi - 1e-3, np.pi]
LABELS = ["0", "1e-8", "1e-6", "1e-4", "1e-3", "1e-2", "0.1", "1", "pi-1e-3", "pi", "zero", "diag"]
ROOT2 = float(np.float32(2**0.5))
# name -> (our layer, the oracle's moments, W_std); exact in float32; thirty layers neither die nor blow up; except
# silu: it has no W_std without bias at which the variance stays and does not multiply each rounding by hundreds
ACTIVATIONS = {
    "relu": (nn.Relu(), oracle.relu(), ROOT2),
    "leaky": (nn.LeakyRelu(0.25), oracle.leaky_relu(0.25), 1.375),
    "abs": (nn.Abs(), oracle.abs_(), 1.0),
    "erf": (nn.Erf(), oracle.erf(), 1.5),
    "gelu": (nn.Gelu(), oracle.gelu(), 1.5),
    "sin": (nn.Sin(), oracle.sin(), 1.25),
    "cos": (nn.Cos(), oracle.cos(), 1.25),
    "sign": (nn.Sign(), oracle.sign(), 1.5),
    "step": (nn.Step(), oracle.step(), 1.5),
    "exp": (nn.Exp(1.0, 0.25), oracle.exp(1.0, 0.25), 1.0),
    "gaussian": (nn.Gaussian(1.0, 0.5), oracle.gaussian(1.0, 0.5), 1.5),
    "rbf": (nn.Rbf(0.5), oracle.rbf(0.5), 1.0),
    "polynomial": (nn.Polynomial((0.0, 0.5, 0.0, 0.0625)), oracle.polynomial([0, 0.5, 0, 0.0625]), 1.0),
    "abrelu": (nn.ABRelu(-0.5, 1.25), oracle.abrelu(-0.5, 1.25), 1.0),
    "rectified": (nn.RectifiedMonomial(2), oracle.rectified_monomial(2), 0.75),
    "hermite": (nn.Hermite(3), oracle.hermite(3), 0.5),
    "tanh": (nn.Tanh(), oracle.tanh(24), 1.5),
    "softplus": (nn.Softplus(), oracle.softplus(24), 1.0),
    "sigmoid": (nn.Sigmoid(), oracle.sigmoid(24), 4.0),
    "silu": (nn.Silu(), oracle.silu(24), 1.5),
    "elu": (nn.Elu(), oracle.elu(1.0), 1.25),
    "selu": (nn.Selu(), oracle.selu(), 1.0),
}
# powers of preactivations: the kernel of depth L is a polynomial of degree 2^L or 3^L, which blows up any rounding
SHALLOW = {"rectified", "hermite"}
# (activation, b_std) whose NNGP or NTK changes its sign close to one of the angles
CROSSING = {("sign", 0.125), ("rbf", 0.0), ("rbf", 0.125)}
FLOOR = mpf("0.01")
DEFAULT = ["relu", "leaky", "abs", "erf", "gelu", "sin"]
BIASES = [0.0, 0.125]


def network(name: str, depth: int, W_std, b_std):
    layer = ACTIVATIONS[name][0]
    b_std = None if isinstance(b_std, float) and b_std == 0 else b_std
    hidden = [m for _ in range(depth) for m in (nn.Dense(64, W_std=W_std, b_std=b_std), layer)]
    return nn.Sequential(*hidden, nn.Dense(1, W_std=W_std, b_std=b_std))


def points(d: int, dtype: str) -> np.ndarray:
    """One input, then one at each angle to it, then 0; entries of order 1, rounded to `dtype`."""
    rng = np.random.default_rng(d)
    x, y = rng.normal(size=(2, d))
    x *= np.sqrt(d) / np.linalg.norm(x)
    x = x.astype(dtype).astype(np.float64)
    y -= x * (x @ y) / (x @ x)
    y *= np.linalg.norm(x) / np.linalg.norm(y)
    others = [x if a == 0 else -x if a == np.pi else np.cos(a) * x + np.sin(a) * y for a in ANGLES]
    return np.stack([x, *others, np.zeros(d)]).astype(dtype)


def computed(name: str, depth: int, b_std: float, X: np.ndarray) -> np.ndarray:
    """(2, pairs): NNGP and NTK of X[0] with each further point, then of each point with itself."""
    k = wl.kernels(network(name, depth, ACTIVATIONS[name][2], b_std))
    data = jnp.asarray(X) if X.dtype == np.float32 else X
    row, diagonal = wl.gram(k, data[:1], data[1:]), wl.gram(k, data)
    for a in (*row, *diagonal):
        assert a.dtype == X.dtype, f"{X.dtype} in, {a.dtype} out"
    return np.array([[*np.asarray(r)[0], *np.diag(np.asarray(g))] for r, g in zip(row, diagonal, strict=True)])


def exact(name: str, depth: int, b_std: float, X: np.ndarray) -> list[list[mpf]]:
    _, moments, W_std = ACTIVATIONS[name]
    numbers = [[float(v) for v in x] for x in X]
    pairs = [(numbers[0], y) for y in numbers[1:]] + [(x, x) for x in numbers]
    found = [oracle.fully_connected(moments, a, b, depth=depth, W_std=W_std, b_std=b_std) for a, b in pairs]
    return [[p.nngp for p in found], [p.ntk for p in found]]


def relative(got: float, truth: mpf, size: mpf) -> float:
    """Error relative to the truth, or to `FLOOR` of `size` where the truth is smaller: see the top of the file."""
    if not np.isfinite(got):
        return float("inf")
    if truth == 0:
        return 0.0 if got == 0 else float("inf")
    with mp.workdps(60):
        return float(abs(mpf(float(got)) - truth) / max(abs(truth), FLOOR * size))


def errors(case: dict, got: np.ndarray, truth: list[list[mpf]]) -> tuple[np.ndarray, bool]:
    """Largest error of each label (the last: the diagonal), and whether any was judged relative to the diagonal."""
    off = len(LABELS) - 1
    table, floored = [], False
    for gs, ts in zip(got, truth, strict=True):
        diagonal = ts[off:]
        sizes = [mpf(0)] * len(ts)
        if (case["activation"], case["b_std"]) in CROSSING:
            with mp.workdps(60):
                sizes[:off] = [mp.sqrt(abs(diagonal[0] * d)) for d in diagonal[1:]]
        floored |= any(0 < abs(t) < FLOOR * s for t, s in zip(ts, sizes, strict=True))
        table.append([relative(g, t, s) for g, t, s in zip(gs, ts, sizes, strict=True)])
    e = np.array(table)
    return np.array([*e[:, :off].max(0), e[:, off:].max()]), floored


def ask_rival(python: str, cases: list[dict], dtype: str, inputs: dict[int, np.ndarray]) -> list[np.ndarray] | None:
    worker = pathlib.Path(__file__).with_name("_rival.py")
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/inputs.npz", **{str(d): X for d, X in inputs.items()})
        pathlib.Path(folder, "cases.json").write_text(json.dumps(cases))
        run = subprocess.run([python, str(worker), folder, dtype], capture_output=True, text=True, check=False)
        if run.returncode:
            print(f"the rival failed: {run.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
            return None
        with np.load(f"{folder}/out.npz") as out:
            return [out[str(i)] for i in range(len(cases))]


def table(options) -> bool:
    all_met = True
    for dtype in options.dtypes:
        inputs = {d: points(d, dtype) for d in options.dimensions}
        cases = [
            {"activation": a, "depth": depth, "d": d, "b_std": b, "W_std": ACTIVATIONS[a][2]}
            for a in options.activations for depth in options.depths for d in options.dimensions for b in BIASES
            if depth <= (3 if a in SHALLOW else depth)
        ]  # fmt: skip
        rival = ask_rival(options.rival, cases, dtype, inputs) if options.rival else None
        target = TARGETS[dtype]
        print(f"\n{dtype}: largest relative error of NNGP and NTK; target {target:g}")
        header = f"{'activation':<11}{'depth':>5}{'d':>5}{'b_std':>7} " + "".join(f"{s:>9}" for s in LABELS)
        print(header + f"{'met':>5}" + ("   rival, largest (diag)" if rival else ""))
        missed, worst = 0, 0.0
        for i, c in enumerate(cases):
            X = inputs[c["d"]]
            truth = exact(c["activation"], c["depth"], c["b_std"], X)
            ours, floored = errors(c, computed(c["activation"], c["depth"], c["b_std"], X), truth)
            met = bool(ours.max() <= target)
            missed, worst = missed + (not met), max(worst, ours.max())
            line = f"{c['activation']:<11}{c['depth']:>5}{c['d']:>5}{c['b_std']:>7} "
            line += "".join(f"{e:>9.1e}" for e in ours) + f"{'yes' if met else 'NO':>5}{'*' if floored else ''}"
            if rival:
                theirs = errors(c, rival[i], truth)[0] if np.size(rival[i]) else np.full(len(LABELS), np.nan)
                line += f"   {theirs.max():.1e} ({theirs[-1]:.1e})"
            print(line, flush=True)
        print(f"{dtype}: worst {worst:.1e}, {len(cases) - missed} of {len(cases)} rows meet the target")
        all_met &= missed == 0
    return all_met


# with a kink at 0
CONES = ("relu", "leaky", "abs", "abrelu", "selu")


def derivatives(options) -> bool:
    """Gradients in float64 at the places where the closed forms have a 0/0; target 1e-9, relative to the value.

    The kernels of piecewise linear networks have a corner there; what is asked for is the mean of the two one-sided
    derivatives, which is what a symmetric difference gives.  At x = 0 without biases a network with a kink there has a
    cone, to first order ``|t|`` times a function of the direction: no derivative by x, and only that the answer is
    finite is asked for.
    """
    rng = np.random.default_rng(0)
    x, v = rng.normal(size=(2, 3))
    zero, W_std, b_std = np.zeros(3), 1.5, 0.125
    places = {"x = x'": (x, x), "x = -x'": (x, -x), "x = 0": (zero, x), "x = x' = 0": (zero, zero)}
    print("\nderivatives, float64, depth 3: error relative to max(|derivative|, |kernel|); target 1e-9")
    print(f"{'activation':<11}{'b_std':>7} {'place':<12}{'kernel':<7}{'d/dx':>10}{'d/dW_std':>10}{'d/db_std':>10}")
    all_met = True
    for name in options.activations:
        moments = ACTIVATIONS[name][1]
        for b in (0.0, b_std):
            for place, (p, q) in places.items():
                for which in ("nngp", "ntk"):
                    row = _derivative_errors(name, moments, which, p, q, v, W_std, b)
                    shown = [f"{e:>10.1e}" for e in row]
                    if name in CONES and b == 0 and place == "x = 0" and np.isfinite(row[0]):
                        row, shown[0] = row[1:], f"{'none':>10}"
                    all_met &= max(row) <= 1e-9
                    print(
                        f"{name:<11}{b:>7} {place:<12}{which:<7}{''.join(shown)}  {'' if max(row) <= 1e-9 else 'NO'}",
                        flush=True,
                    )
    return all_met


def _derivative_errors(name, moments, which, p, q, v, W_std, b):
    def ours(t, w, c):
        k = getattr(wl, which)(network(name, 3, w, c if b else 0.0))
        return k(jnp.asarray(p) + t * jnp.asarray(v), jnp.asarray(q))

    with jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64():
        got = jax.jit(jax.grad(ours, (0, 1, 2)))(0.0, W_std, b)
        got = [float(g) for g in got]

    def truth(t=0, w=W_std, c=b):
        moved = [mpf(float(a)) + mpf(t) * mpf(float(s)) for a, s in zip(p, v, strict=True)]
        pair = oracle.fully_connected(moments, moved, [float(a) for a in q], depth=3, W_std=mpf(w), b_std=mpf(c))
        return getattr(pair, which)

    with mp.workdps(160):
        slopes = [
            oracle.derivative(lambda t: truth(t=t)),
            oracle.derivative(lambda w: truth(w=w), W_std),
            oracle.derivative(lambda c: truth(c=c), b) if b else mpf(0),
        ]
        size = abs(truth())
        return [
            float(abs(mpf(g) - s) / max(abs(s), size))
            if np.isfinite(g) and max(abs(s), size)
            else float("inf" if not np.isfinite(g) else g != s)
            for g, s in zip(got, slopes, strict=True)
        ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--activations", nargs="+", default=DEFAULT, help=f"of {' '.join(ACTIVATIONS)}, or all")
    parser.add_argument("--depths", nargs="+", type=int, default=[1, 3, 10, 30], help="numbers of hidden layers")
    parser.add_argument("--dimensions", nargs="+", type=int, default=[3, 784])
    parser.add_argument("--dtypes", nargs="+", choices=list(TARGETS), default=list(TARGETS))
    parser.add_argument("--quick", action="store_true", help="depths 1 and 3, d = 3, the default activations")
    parser.add_argument("--rival", metavar="PYTHON", help="a Python that has neural_tangents")
    parser.add_argument("--derivatives", action="store_true", help="gradients instead of values")
    options = parser.parse_args()
    if options.quick:
        options.depths, options.dimensions = [1, 3], [3]
    if options.activations == ["all"]:
        options.activations = list(ACTIVATIONS)
    if unknown := set(options.activations) - set(ACTIVATIONS):
        parser.error(f"unknown activations {sorted(unknown)}; there are {', '.join(ACTIVATIONS)}")
    start = time.perf_counter()
    met = derivatives(options) if options.derivatives else table(options)
    print(f"\n{'all targets met' if met else 'targets missed'}; {time.perf_counter() - start:.0f} s")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
