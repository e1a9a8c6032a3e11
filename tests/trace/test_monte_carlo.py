"""Limits read from code against averages over finite networks (see finite_networks.py)."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from finite_networks import SEEDS, extrapolated, kernels_of_draws, numbers
from jax.scipy.special import erf
from networks import NETWORKS, D, Network, dense

import widelimit as wl
from widelimit import nn

INPUTS = np.random.default_rng(7).normal(size=(2, D))
WIDTH, OUTPUTS = 32, 64
# Standard errors, as part of the largest entry: what the test can tell apart is four times that.
RESOLUTION = 0.035


def _fused_gate(p, x):
    u, gate = jnp.split(dense(p["W"], jax.nn.relu(dense(p["in"], x))), 2)
    return dense(p["out"], u * erf(gate))


def _trained_norm(p, x):
    h = jnp.abs(dense(p["in"], x))
    h = (h - h.mean()) * jax.lax.rsqrt(h.var() + 1e-6)
    return dense(p["out"], jnp.sin(dense(p["W"], (1 + p["gain"]) * h + p["shift"])))


def _rates(p, x):
    h = jnp.abs(jnp.einsum("i,ij->j", x, p["in"]) + p["b"])
    return jnp.einsum("jk,j->k", p["out"], h) / h.size**0.5


def _recursion(p, x):
    h = dense(p["in"], x)
    for _ in range(2):
        h = 0.5 * h + jax.nn.relu(dense(p["W"], h))
    return dense(p["out"], h)


PLAIN = NETWORKS | {
    "fused gate": Network(
        _fused_gate,
        lambda n, m: {"in": wl.normal((D, n)), "W": wl.normal((n, 2 * n)), "out": wl.normal((n, m))},
    ),
    "layer norm with gain": Network(
        _trained_norm,
        lambda n, m: {
            "in": wl.normal((D, n)), "gain": wl.normal((n,), 0.0, 1.0), "shift": wl.normal((n,), 0.3, 0.5),
            "W": wl.normal((n, n)), "out": wl.normal((n, m)),
        },
    ),
    "a rate for each parameter": Network(
        _rates,
        lambda n, m: {
            "in": wl.normal((D, n), 0.6, 0.2), "b": wl.normal((n,), 0.5, 2.0), "out": wl.normal((n, m), 1.3, 0.1)
        },
    ),
    "matrix tied over a residual": Network(
        _recursion, lambda n, m: {"in": wl.normal((D, n)), "W": wl.normal((n, n)), "out": wl.normal((n, m))}
    ),
}  # fmt: skip

MODULES = {
    "frozen layers": lambda n, m: nn.Sequential(
        nn.Dense(n, W_lr=0.0), nn.Relu(), nn.Dense(n, b_std=0.5, b_lr=3.0), nn.Relu(), nn.Dense(m, W_lr=0.0)
    ),
    "layer norm and gelu": lambda n, m: nn.Sequential(
        nn.Dense(n), nn.LayerNorm(), nn.Gelu(), nn.Dense(n, b_std=0.3), nn.LayerNorm(), nn.Gelu(), nn.Dense(m)
    ),
    "dropout": lambda n, m: nn.Sequential(
        nn.Dense(n), nn.Relu(), nn.Dropout(0.6), nn.Dense(n), nn.Relu(), nn.Dropout(0.8), nn.Dense(m)
    ),
    "branches": lambda n, m: nn.Sequential(
        nn.Dense(n),
        nn.Residual(nn.Relu(), nn.Dense(n, W_std=0.7)),
        nn.Concat(nn.Sequential(nn.Dense(n), nn.Relu()), nn.Sin()),
        nn.Product(nn.Sequential(nn.Dense(n), nn.Erf()), nn.Dense(n)),
        nn.Sum(nn.Identity(), nn.Sequential(nn.Dense(n), nn.Erf())),
        nn.Dense(m),
    ),
    "standard modules": lambda n, m: nn.Sequential(
        nn.Dense(n, 1.4, 0.2, parameterization="standard", W_lr=0.3), nn.LeakyRelu(0.2),
        nn.Dense(n, 1.2, 0.1, parameterization="standard", W_lr=1 / n), nn.Abs(),
        nn.Dense(m, parameterization="standard", W_lr=1 / n),
    ),
}  # fmt: skip


# What `init` draws, in the order of the leaves, where it is not N(0, 1): standard deviations divided by sqrt(lr).
STORED = {
    "frozen layers": [1, 1, 3**-0.5, 1],
    "standard modules": [1.4 / (D * 0.3) ** 0.5, 0.2, 1.2, 0.1, 1],
}


def _stds(name, leaves):
    return STORED.get(name, [1.0] * len(leaves))


def _is_normal(a):
    return isinstance(a, wl.Normal)


def _plain(name, n, repeat):
    """Draws of the parameters, the function of (params, x, key), and the learning rates."""
    f, prior = PLAIN[name]
    leaves, tree = jax.tree.flatten(prior(n, OUTPUTS), is_leaf=_is_normal)
    draws = [a.std * numbers((SEEDS, *a.shape), f"{repeat} {i}") for i, a in enumerate(leaves)]
    return jax.tree.unflatten(tree, draws), lambda p, x, key: f(p, x), [a.lr for a in leaves]


def _module(name, n, repeat):
    net = MODULES[name](n, OUTPUTS)
    leaves, tree = jax.tree.flatten(jax.eval_shape(lambda k: net.init(k, (D,)), jax.random.key(0)))
    draws = [
        s * numbers((SEEDS, *a.shape), f"{repeat} {i}")
        for i, (a, s) in enumerate(zip(leaves, _stds(name, leaves), strict=True))
    ]
    return jax.tree.unflatten(tree, draws), lambda p, x, key: net.apply(p, x, key=key), [1.0] * len(draws)


@functools.cache
def _draws(name, n, repeat):
    """``f f'`` and ``df df'`` of each draw, averaged over outputs: (SEEDS, 2, inputs, inputs)."""
    params, f, rates = (_module if name in MODULES else _plain)(name, n, repeat)
    leaves, tree = jax.tree.flatten(params)
    directions = [
        r**0.5 * numbers(a.shape, f"{repeat} d{i}") for i, (a, r) in enumerate(zip(leaves, rates, strict=True))
    ]
    if repeat:
        numbers.cache_clear()  # large, and not wanted again
    return kernels_of_draws(f, params, jax.tree.unflatten(tree, directions), INPUTS, 1000 * n + repeat)


def _agrees(kernel, name, repeats=(0,), resolution=RESOLUTION):
    exact = np.stack(wl.gram(kernel, INPUTS))
    width = WIDTH if len(repeats) == 1 else 3 * WIDTH // 2  # the rest, O(1/n^2), must stay below the standard errors
    small, large = (np.concatenate([_draws(name, n, r) for r in repeats]) for n in (width, 2 * width))
    mean, error = extrapolated(small, large)
    part = error.max((1, 2)) / mean.max((1, 2))
    assert part.max() < resolution, f"too few draws to tell anything: {part}"
    z = (mean - exact) / error
    assert np.abs(z).max() < 4, f"exact\n{exact}\nmean\n{mean}\nin standard errors\n{z}"


# others of their kind are checked each time, all of them by the slow test
_LONG = ("matrix in two branches", "relu with biases", "branches")


def _quick(names):
    return [n for n in names if n not in _LONG]


@pytest.mark.parametrize("name", _quick(PLAIN))
def test_plain_code(name):
    f, prior = PLAIN[name]
    _agrees(wl.limit(f, lambda n: prior(n, 1)).kernels, name)


@pytest.mark.parametrize("name", _quick(MODULES))
def test_modules(name):
    _agrees(wl.kernels(MODULES[name](64, 1)), name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*PLAIN, *MODULES])
def test_with_eight_times_the_draws(name):
    if name in MODULES:
        kernel = wl.kernels(MODULES[name](64, 1))
    else:
        f, prior = PLAIN[name]
        kernel = wl.limit(f, lambda n: prior(n, 1)).kernels
    _agrees(kernel, name, range(1, 9), 0.4 * RESOLUTION)


@pytest.mark.parametrize("name", STORED)
def test_init_draws_what_is_compared(name):
    leaves = jax.tree.leaves(MODULES[name](256, 64).init(jax.random.key(0), (D,)))
    for leaf, std in zip(leaves, _stds(name, leaves), strict=True):
        assert leaf.std() == pytest.approx(std, rel=4 / (2 * leaf.size) ** 0.5)


WRONG = {  # trained instead of frozen; other dropout; without a normalisation; with another branch
    "frozen layers": lambda: nn.Sequential(
        nn.Dense(64), nn.Relu(), nn.Dense(64, b_std=0.5, b_lr=3.0), nn.Relu(), nn.Dense(1, W_lr=0.0)
    ),
    "dropout": lambda: nn.Sequential(
        nn.Dense(64), nn.Relu(), nn.Dropout(0.7), nn.Dense(64), nn.Relu(), nn.Dropout(0.8), nn.Dense(1)
    ),
    "layer norm and gelu": lambda: nn.Sequential(
        nn.Dense(64), nn.LayerNorm(), nn.Gelu(), nn.Dense(64, b_std=0.3), nn.Gelu(), nn.Dense(1)
    ),
    "branches": lambda: nn.Sequential(
        *(nn.Concat(*m.branches[:1] * 2) if isinstance(m, nn.Concat) else m for m in MODULES["branches"](64, 1).layers)
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_module_is_noticed(name):
    with pytest.raises(AssertionError, match="in standard errors"):
        _agrees(wl.kernels(WRONG[name]()), name)


def _fresh_recursion(p, x):
    h = dense(p["in"], x)
    for name in ("W", "V"):
        h = 0.5 * h + jax.nn.relu(dense(p[name], h))
    return dense(p["out"], h)


def _fresh_branches(p, x):
    u = dense(p["in"], x)
    return dense(p["out"], erf(dense(p["W"], jnp.sin(u))) + erf(dense(p["V"], jax.nn.relu(u))))


@pytest.mark.parametrize(
    "name, f", [("matrix tied over a residual", _fresh_recursion), ("matrix in two branches", _fresh_branches)]
)
def test_fresh_instead_of_tied_is_noticed(name, f):
    def prior(n):
        return {"in": wl.normal((D, n)), "W": wl.normal((n, n)), "V": wl.normal((n, n)), "out": wl.normal((n, 1))}

    with pytest.raises(AssertionError, match="in standard errors"):
        _agrees(wl.limit(f, prior).kernels, name)
