"""Writes docs/architectures.md: the limit of each architecture beside finite networks of growing width.

    uv run --extra test --with flax scripts/monte_carlo.py            # some twenty minutes
    uv run --extra test scripts/monte_carlo.py --only "mlp"           # prints rows, writes nothing

PyTorch rows need torch, Flax rows flax; without them these rows are left out and said to be.
"""

from __future__ import annotations

import argparse
import importlib.util
import pathlib
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import widelimit as wl
from widelimit import nn

PAGE = pathlib.Path(__file__).resolve().parents[1] / "docs" / "architectures.md"
WIDTHS, SEEDS = (64, 256), 32
DRAWN = np.random.default_rng(0)
VECTORS, IMAGES, SEQUENCES, BATCHES = (DRAWN.normal(size=(3, *s)) for s in ((6,), (6, 6, 2), (5, 4), (8, 10)))
TOKENS = DRAWN.integers(0, 20, (3, 5))
GRAPHS = DRAWN.normal(size=(3, 4, 3)), np.tile(np.eye(4) + np.eye(4, k=1) + np.eye(4, k=-1), (3, 1, 1))
WIDER = DRAWN.normal(size=(3, 20))  # uniform first weights act as Gaussian ones
PAIRS = SEQUENCES[:, :3], SEQUENCES[:, 3:]
NORM = wl.normal


def weights(n: int, **shapes: tuple[int, ...]) -> dict:
    """Parameters ``N(0, 1/fan_in)``, fan_in the first axis of each."""
    return {name: NORM(shape, shape[-2 if len(shape) > 1 else 0] ** -0.5) for name, shape in shapes.items()}


def swiglu(p, x):
    h = x @ p["A"]
    return (h + (jax.nn.silu(h @ p["B"]) * (h @ p["C"])) @ p["D"]) @ p["v"]


def derivative(p, x):
    def f(x):
        return jnp.tanh(jnp.tanh(x @ p["A"]) @ p["B"]) @ p["v"]

    value, slope = jax.jvp(f, (x,), (jnp.eye(6)[0],))
    return value + slope


def tied(p, x):
    h = jnp.tanh(x @ p["A"])
    return jnp.tanh(jnp.tanh(h @ p["B"]) @ p["B"].T) @ p["v"]


def embedding(p, tokens):
    h = jax.nn.gelu(p["E"][tokens] + p["P"])
    return jax.nn.gelu(h @ p["B"]).mean(0) @ p["v"]


def depthwise(p, x):
    dims = ("NHWC", "HWIO", "NHWC")
    h = jax.nn.relu(lax.conv_general_dilated(x[None], p["C"], (1, 1), "SAME", dimension_numbers=dims))
    h = lax.conv_general_dilated(h, p["D"], (1, 1), "SAME", dimension_numbers=dims, feature_group_count=h.shape[-1])
    return jax.nn.relu(h @ p["B"]).mean((0, 1, 2)) @ p["v"]


def layers_scanned(p, x):
    h, _ = lax.scan(lambda h, W: (jnp.tanh(h @ W), None), jnp.tanh(x @ p["A"]), p["B"])
    return h @ p["v"]


def pooled(p, x):
    h = jnp.tanh(x @ p["A"]).mean(0)
    return jax.nn.relu(jnp.tanh(2 * h) @ p["B"]) @ p["v"]


def largest(p, x):
    return jax.nn.relu(jnp.max(x @ p["A"], axis=0) @ p["B"]) @ p["v"]


class Row(NamedTuple):
    """An architecture: its name, framework, limit and examples; widths of its finite networks."""

    name: str
    framework: str
    limit: Callable[[], Any]
    x: Any
    widths: tuple[int, int] = WIDTHS


def rows() -> list[Row]:
    """Every architecture whose framework is at hand."""
    found = _modules() + _functions()
    for make, module in ((_equinox, "equinox"), (_flax, "flax"), (_torch, "torch")):
        if importlib.util.find_spec(module):
            found += make()
    return found


def _modules() -> list[Row]:
    dense = [nn.Dense(64, W_std=1.4, b_std=0.1), nn.Relu()]
    conv = [nn.Conv(64, (3, 3), W_std=1.4), nn.Relu()]
    normed = [nn.Conv(64, (3, 3)), nn.GroupNorm(2), nn.Relu(), nn.Flatten()]
    networks = {
        "mlp, 3 layers": (nn.Sequential(*dense * 3, nn.Dense(1)), VECTORS),
        "cnn, flattened": (nn.Sequential(*conv * 2, nn.Flatten(), nn.Dense(1)), IMAGES),
        "cnn, pooled": (nn.Sequential(*conv * 2, nn.GlobalAvgPool(), nn.Dense(1)), IMAGES),
        "group norm": (nn.Sequential(*normed, nn.Dense(1)), IMAGES),
        "wide residual": (nn.wide_resnet(1), IMAGES),
        "transformer": (nn.transformer(1), SEQUENCES),
        "graph convolution": (nn.gcn(2), GRAPHS),
        "transposed cnn": (
            nn.Sequential(nn.ConvTranspose(64, (3,), (2,)), nn.Relu(), nn.Flatten(), nn.Dense(1)),
            SEQUENCES,
        ),
        "locally connected": (nn.Sequential(nn.ConvLocal(64, (3,)), nn.Relu(), nn.Flatten(), nn.Dense(1)), SEQUENCES),
        "GLU, RMSNorm": (nn.Sequential(nn.Dense(64), nn.GLU(64), nn.RMSNorm(), nn.Dense(1)), VECTORS),
        "batch norm, batches of 8": (nn.Sequential(nn.Dense(64), nn.BatchNorm(), nn.Relu(), nn.Dense(1)), BATCHES),
        "cross attention": (nn.Sequential(nn.CrossAttention(64), nn.Relu(), nn.GlobalAvgPool(), nn.Dense(1)), PAIRS),
        "gru, last state": (nn.Sequential(nn.GRU(64, last=True), nn.Dense(1)), SEQUENCES[:, :2]),
        "rnn, mean of states": (nn.Sequential(nn.RNN(64), nn.GlobalAvgPool(), nn.Dense(1)), SEQUENCES),
    }
    attention = nn.SelfAttention(64, 64, scaling="root_width")
    many = nn.Sequential(attention, nn.Relu(), nn.GlobalAvgPool(), nn.Dense(1))
    found = [Row(name, "widelimit.nn", lambda net=net: wl.limit(net), x) for name, (net, x) in networks.items()]
    name = "attention over the root of the width, as many heads"
    return [*found, Row(name, "widelimit.nn", lambda: wl.limit(many), SEQUENCES, (16, 64))]


def _functions() -> list[Row]:
    def tokens(n):
        return {"E": NORM((20, n)), "P": NORM((5, n), 0.3), **weights(n, B=(n, n), v=(n,))}

    def filters(n):
        return {"C": NORM((3, 3, 2, n), 0.3), "D": NORM((3, 3, 1, n), 0.33), **weights(n, B=(n, n), v=(n,))}

    def square(n):
        return weights(n, A=(6, n), B=(n, n), v=(n,))

    functions = {
        "embedding, positions": (embedding, tokens, TOKENS),
        "SwiGLU residual": (swiglu, lambda n: {**square(n), **weights(n, C=(n, n), D=(n, n))}, VECTORS),
        "f + df/dx (PINN)": (derivative, square, VECTORS),
        "W beside W.T": (tied, square, VECTORS),
        "depthwise separable cnn": (depthwise, filters, IMAGES),
        "pooling, then tanh": (pooled, lambda n: weights(n, A=(4, n), B=(n, n), v=(n,)), SEQUENCES),
        "largest over positions": (largest, lambda n: weights(n, A=(4, n), B=(n, n), v=(n,)), SEQUENCES),
        "layers by scan": (layers_scanned, lambda n: {**square(n), **weights(n, B=(3, n, n))}, VECTORS),
    }
    return [
        Row(name, "JAX", lambda f=f, prior=prior: wl.limit(f, prior, lr="ntk"), x)
        for name, (f, prior, x) in functions.items()
    ]


def _equinox():
    import equinox as eqx

    def mlp(n, key):
        # its biases vanish as 1/n, and at these widths would be as large as what is left of the inputs
        biases = {"use_bias": False, "use_final_bias": False}
        return eqx.nn.MLP(20, 1, n, 2, activation=jax.nn.silu, key=key, **biases)

    return [Row("mlp, silu, without biases", "Equinox", lambda: wl.limit(mlp), WIDER)]


def _flax():
    from flax import linen, nnx

    class Norm(nnx.Module):
        def __init__(self, n, rngs):
            self.first, self.norm = nnx.Linear(6, n, rngs=rngs), nnx.LayerNorm(n, rngs=rngs)
            self.last = nnx.Linear(n, 1, rngs=rngs)

        def __call__(self, x):
            return self.last(jax.nn.gelu(self.norm(self.first(x))))

    class Cnn(linen.Module):
        n: int

        @linen.compact
        def __call__(self, x):
            h = linen.relu(linen.Conv(self.n, (3, 3), strides=(2, 2))(x))
            return linen.Dense(1)(linen.avg_pool(h, (3, 3)).reshape(-1))

    return [
        Row("LayerNorm mlp", "Flax NNX", lambda: wl.limit(lambda n, key: Norm(n, nnx.Rngs(key))), VECTORS),
        Row("cnn, strides", "Flax Linen", lambda: wl.limit(lambda n, key: Cnn(n)), IMAGES),
    ]


def _torch():
    from torch import nn as tnn

    def mlp(n):
        # its biases vanish as 1/n, and at these widths would be as large as what is left of the inputs
        hidden, last = tnn.Linear(n, n, bias=False), tnn.Linear(n, 1, bias=False)
        return tnn.Sequential(tnn.Linear(20, n), tnn.Tanh(), hidden, tnn.Tanh(), last)

    def cnn(n):
        return tnn.Sequential(
            tnn.Conv2d(2, n, 3, padding=1), tnn.ReLU(), tnn.Conv2d(n, n, 3, groups=2), tnn.ReLU(), tnn.Flatten(),
            tnn.Linear(16 * n, 1),
        )  # fmt: skip

    images = np.moveaxis(IMAGES, -1, 1)
    return [
        Row("mlp, tanh", "PyTorch", lambda: wl.limit(mlp), WIDER),
        Row("cnn, groups", "PyTorch", lambda: wl.limit(cnn), images),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="rows whose name or framework holds this text; nothing is written")
    only = parser.parse_args().only
    lines = [
        "| Architecture | Framework | widths | NTK error, narrow | wide | slope | NTK, s.e. | NNGP, s.e. |",
        "| --- |" + " --- |" * 7,
    ]
    for row in rows():
        if only not in f"{row.name} {row.framework}":
            continue
        check = row.limit().check(row.x, key=jax.random.key(1), widths=row.widths, seeds=SEEDS)
        narrow, wide = check.rows
        cells = [row.name, row.framework, f"{narrow.width}, {wide.width}", f"{narrow.ntk_error:.3f}"]
        zs = [f"{wide.ntk_z:.1f}", f"{wide.nngp_z:.1f}"]
        if max(wide.ntk_z, wide.nngp_z) > 3:  # once more, with other networks
            again = row.limit().check(row.x, key=jax.random.key(2), widths=row.widths[1:], seeds=SEEDS).rows[0]
            zs = [f"{first} (again: {z:.1f})" for first, z in zip(zs, (again.ntk_z, again.nngp_z), strict=True)]
        cells += [f"{wide.ntk_error:.3f}", f"{check.slope:.2f}", *zs]
        lines.append(f"| {' | '.join(cells)} |")
        print(lines[-1], flush=True)
        if not only:  # after each row: none is lost
            PAGE.write_text(_page(lines))
    return 0


def _page(lines: list[str]) -> str:
    return f"""# Architectures beside finite networks

Written by `scripts/monte_carlo.py`. Each limit is compared with real networks of the same code, {SEEDS} random ones a
width, on three inputs: the error of one network's NTK (root mean square, relative), which falls as width^(-1/2); the
slope of its logarithm between the two widths; and the largest distance of the mean over networks from the limit at the
larger width, in standard errors, over all pairs. That mean also has a bias of order 1/width, and a slope from two
widths scatters by some 0.15. The distance is the largest of six numbers, some of which are beyond 3 by chance in a
table of this size: where it is, {SEEDS} other networks are drawn.

Flax draws from a truncated Gaussian: with the six inputs of the row "LayerNorm mlp" the first layer is not quite
Gaussian, which may be why its NTK stays three standard errors off.

{chr(10).join(lines)}
"""


if __name__ == "__main__":
    sys.exit(main())
