"""Graphs and masked examples: the forward pass, and that padding changes no kernel."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl
from widelimit import nn

RNG = np.random.default_rng(3)
X = RNG.normal(size=(2, 5, 3))
MASK = np.array([[1, 1, 1, 0, 0], [1, 1, 0, 0, 0]], bool)
PADDED = np.where(MASK[..., None], X, 100.0)
LENGTHS = (3, 2)
ADJACENCY = RNG.normal(size=(2, 5, 5))
HEAD = (nn.GlobalAvgPool(), nn.Dense(1))

NETWORKS = {
    "convolution, cos": (nn.Conv(8, 3, b_std=0.1), nn.Cos(), nn.Conv(8, 3), nn.GlobalSumPool(), nn.Dense(1)),
    "attention": (nn.Dense(8), nn.SelfAttention(8, 2, b_std=0.3), nn.Relu(), *HEAD),
    "causal attention": (nn.Dense(8), nn.SelfAttention(8, causal=True), nn.Relu(), *HEAD),
    "relu attention": (nn.Dense(8), nn.SelfAttention(8, mechanism="relu"), nn.Relu(), *HEAD),
    "residual, layer norm": (nn.Dense(8), nn.Residual(nn.LayerNorm(), nn.Dense(8, b_std=0.4), nn.Relu()), *HEAD),
    "norm over positions": (nn.Dense(8), nn.GroupNorm(1), nn.Relu(), *HEAD),
    "branches": (
        nn.Dense(8, b_std=0.2),
        nn.Concat(nn.Relu(), nn.Sequential(nn.Dense(8), nn.Cos()), nn.Identity()),
        nn.Dense(8, b_std=0.2),
        nn.Product(nn.Relu(), nn.Dense(8)),
        nn.GlobalSumPool(),
        nn.Dense(1),
    ),
    "recurrent": (nn.RNN(8, b_std=0.2), *HEAD),
    "positions": (nn.Dense(8), nn.PositionalEmbedding(decay=0.5), nn.Dense(8), nn.Relu(), *HEAD),
}
_SLOW = ("recurrent", "branches", "causal attention", "relu attention")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in _SLOW else ()) for n in NETWORKS])
def test_a_padded_example_has_the_kernel_of_the_example(name):
    masked, plain = (wl.kernels(make(*NETWORKS[name])) for make in (nn.Masked, nn.Sequential))
    lengths = (3, 3) if name == "positions" else LENGTHS  # its parameters have a row for each position
    examples = [
        (np.where(np.arange(5)[:, None] < n, x, 100.0), np.arange(5) < n) for x, n in zip(X, lengths, strict=True)
    ]
    padded = masked(*examples)
    wanted = plain(X[0, : lengths[0]], X[1, : lengths[1]])
    np.testing.assert_allclose(padded, wanted, rtol=1e-12)


def test_a_gram_of_padded_examples():
    """The same through tiles, where masks are traced; the diagonal too."""
    net = (nn.Dense(8, b_std=0.1), nn.Relu(), *HEAD)
    G, plain = wl.gram(wl.ntk(nn.Masked(*net)), (PADDED, MASK)), wl.ntk(nn.Sequential(*net))
    np.testing.assert_allclose(G[0, 1], plain(X[0, :3], X[1, :2]), rtol=1e-12)
    np.testing.assert_allclose(G[1, 1], plain.diag(X[1, :2]), rtol=1e-12)


@pytest.mark.usefixtures("float64")
def test_one_output_at_each_position():
    # a mask over one channel takes other operations than over several, if it is written as a broadcast
    layers = (nn.Dense(32), nn.Relu(), nn.Dense(1))
    k = wl.limit(nn.Masked(nn.Sequential(*layers)), output="full").nngp
    plain = wl.limit(nn.Sequential(*layers), output="full").nngp
    both = np.outer(*MASK)
    np.testing.assert_allclose(k((X[0], MASK[0]), (X[1], MASK[1])), np.where(both, plain(*X), 0), atol=1e-14)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["causal attention", "norm over positions", "branches"])
def test_forward_of_a_padded_example(name):
    """Finite networks give the padded example the output of the example; masks may be numbers."""
    net, plain = nn.Masked(*NETWORKS[name]), nn.Sequential(*NETWORKS[name])
    params = net.init(jax.random.key(0), ((5, 3), (5,)))
    y = net.apply(params, (PADDED[0], MASK[0].astype(int)))
    np.testing.assert_allclose(y, plain.apply(params, X[0, :3]), rtol=1e-10)


def _graph(x, A, params):
    h = x
    for W in params:
        h = np.maximum(A @ h @ np.asarray(W["W"]) * np.sqrt(2 / h.shape[1]), 0)
    return h


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("pool", ["sum", "mean"])
def test_forward_of_a_graph(pool):
    net = nn.gcn(2, 16, pool)
    params = net.init(jax.random.key(0), ((5, 3), (5, 5)))
    h = getattr(np, pool)(_graph(X[0], ADJACENCY[0], [params[1], params[4]]), axis=0)
    wanted = h @ np.asarray(params[-1]["W"]) / 4
    np.testing.assert_allclose(net.apply(params, (X[0], ADJACENCY[0])), wanted, rtol=1e-12)
    masked = nn.Graph(*net.body.layers).apply(params, (PADDED[0], ADJACENCY[0], MASK[0]))
    part = net.apply(params, (X[0, :3], ADJACENCY[0, :3, :3]))
    np.testing.assert_allclose(masked, part, rtol=1e-12)


def test_a_padded_graph_has_the_kernel_of_the_graph():
    k = wl.kernels(nn.gcn(2))
    padded = k((PADDED[0], ADJACENCY[0], MASK[0]), (PADDED[1], ADJACENCY[1], MASK[1]))
    wanted = k((X[0, :3], ADJACENCY[0, :3, :3]), (X[1, :2], ADJACENCY[1, :2, :2]))
    np.testing.assert_allclose(padded, wanted, rtol=1e-12)


@pytest.mark.slow
def test_a_graph_of_tokens_and_its_finite_networks():
    """Nodes with integer tags, through an embedding; Monte Carlo of the same code."""
    tags = np.array([[0, 1, 2, 1, 7], [2, 2, 7, 7, 7]])
    net = nn.Graph(
        nn.Embedding(8, 3), nn.Aggregate(), nn.Dense(8, 1.4, 0.1), nn.Relu(), nn.GlobalSumPool(), nn.Dense(1)
    )
    limit = wl.limit(net)
    check = limit.check((tags, ADJACENCY, MASK), key=jax.random.key(1), widths=(64,), seeds=24)
    assert max(check.rows[0].nngp_z, check.rows[0].ntk_z) < 4.5
    assert limit.finite(64, jax.random.key(0), (tags[0], ADJACENCY[0]))((tags[0], ADJACENCY[0])).shape == (1,)


@pytest.mark.parametrize(
    ("net", "x", "message"),
    [
        (nn.Sequential(nn.Aggregate(), nn.Dense(1)), X[0], r"Aggregate: there is no adjacency .* inside nn.Graph"),
        (nn.Masked(nn.Aggregate(), nn.Dense(1)), (X[0], MASK[0]), "Aggregate: there is no adjacency matrix"),
        (nn.Graph(nn.GlobalSumPool(), nn.Aggregate()), (X[0], ADJACENCY[0]), "before any pooling"),
        (nn.Graph(nn.Aggregate()), X[0], r"Graph: the input must be a tuple \(nodes, adjacency\)"),
        (nn.Graph(nn.Aggregate()), (X[0], ADJACENCY[0, :4]), r"Graph: .* \(4, 5\), and 5 nodes .* need \(5, 5\)"),
        (nn.Graph(nn.Dense(1)), (X[0], ADJACENCY[0], MASK[0, :4]), r"Graph: the mask has shape \(4,\)"),
        (nn.Masked(nn.Dense(1)), X[0], r"Masked: the input must be a tuple \(x, mask\)"),
        (nn.Masked(nn.Dense(1)), (X[0], MASK[0, :4]), r"Masked: the mask has shape \(4,\)"),
        (nn.Masked(nn.Flatten()), (X[0], MASK[0]), "Flatten: it changes the positions of a masked example"),
        (nn.Masked(nn.Conv(4, 3, 2)), (X[0], MASK[0]), r"Conv: it changes the positions .* from \(5,\) to \(3,\)"),
        (nn.Masked(nn.Conv(4, 3, padding="CIRCULAR")), (X[0], MASK[0]), 'Conv: padding "CIRCULAR" sees where'),
        (nn.Masked(nn.RNN(4, last=True)), (X[0], MASK[0]), "RNN: the last state of a padded sequence"),
        (nn.Masked(nn.Sum(nn.Identity(), nn.GlobalSumPool())), (X[0], MASK[0]), "Sum: one branch keeps the masked"),
    ],
)
def test_errors_name_the_layer_and_the_remedy(net, x, message):
    """Where parameters are drawn, or else where the network is applied."""
    shape = tuple(a.shape for a in x) if isinstance(x, tuple) else x.shape
    with pytest.raises(ValueError, match=message):
        net.apply(net.init(jax.random.key(0), shape), jax.tree.map(jnp.asarray, x))
