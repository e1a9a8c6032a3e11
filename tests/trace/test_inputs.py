"""Inputs that are not one array: tokens, masks, graphs; parameters picked by them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl
from widelimit import nn

TOKENS = np.array([[1, 2, 3, 1, 0], [3, 2, 1, 1, 4], [2, 2, 4, 0, 3]])
VOCABULARY = 5


def embedded(p, tokens):
    h = jax.nn.relu((p["E"][tokens] + p["P"][: tokens.shape[0]]) @ p["W"])
    return h.mean(0) @ p["v"]


def embedding_prior(n):
    return {
        "E": wl.normal((VOCABULARY, n)), "P": wl.normal((8, n), 0.3), "W": wl.normal((n, n), 1 / n**0.5),
        "v": wl.normal((n,), 1 / n**0.5),
    }  # fmt: skip


def test_tokens_are_rows_of_a_one_hot_product():
    def one_hot(p, x):
        h = jax.nn.relu((x @ p["E"] + p["P"][: x.shape[0]]) @ p["W"])
        return h.mean(0) @ p["v"]

    by_token = wl.gram(wl.limit(embedded, embedding_prior, lr="ntk").kernels, TOKENS)
    by_product = wl.gram(wl.limit(one_hot, embedding_prior, lr="ntk").kernels, np.eye(VOCABULARY)[TOKENS])
    np.testing.assert_allclose(by_token, by_product, rtol=1e-7)


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.uint16])
def test_tokens_of_any_integers(dtype):
    k = wl.limit(embedded, embedding_prior, lr="ntk").ntk
    assert k(TOKENS[0].astype(dtype), TOKENS[1].astype(dtype)) == k(TOKENS[0], TOKENS[1])


def test_tokens_against_finite_networks():
    check = wl.limit(embedded, embedding_prior, lr="ntk").check(
        TOKENS, key=jax.random.key(0), widths=(64, 256), seeds=16
    )
    assert check.rows[-1].ntk_z < 4.5 and check.rows[-1].nngp_z < 4.5, str(check)


def test_the_vocabulary_is_not_multiplied_out():
    large = wl.limit(embedded, lambda n: {**embedding_prior(n), "E": wl.normal((10**6, n))}, lr="ntk")
    x = jnp.asarray(TOKENS[0])
    sizes = [v.aval.size for e in jax.make_jaxpr(large.ntk)(x, x).jaxpr.eqns for v in e.outvars]
    assert max(sizes) <= 2 * 10**6  # the places of the rows, once for each input; never pairs of them


@pytest.mark.parametrize("index", [lambda e, t: e[t[0]], lambda e, t: e[t].sum(0), lambda e, t: e[3] + e[t[1]]])
def test_rows_picked_in_every_way(index):
    """One token, several, and fixed rows beside tokens: the same row is the same vector."""

    def f(p, tokens):
        return jnp.tanh(index(p["E"], tokens)) @ p["v"]

    def p(n):
        return {"E": wl.normal((VOCABULARY, n)), "v": wl.normal((n,), 1 / n**0.5)}

    k = wl.limit(f, p, lr="ntk").ntk
    rng = np.random.default_rng(0)
    E = rng.normal(size=(VOCABULARY, 200_000))
    u, v = (np.asarray(index(E, t)) for t in TOKENS[:2])
    nngp = np.mean(np.tanh(u) * np.tanh(v))
    overlap = np.einsum("ni,ni->", *(np.asarray(index(np.eye(VOCABULARY), t))[None] for t in TOKENS[:2]))
    expected = nngp + np.mean((1 - np.tanh(u) ** 2) * (1 - np.tanh(v) ** 2)) * overlap
    np.testing.assert_allclose(k(TOKENS[0], TOKENS[1]), expected, atol=0.02)


def test_overlapping_parts_of_a_vector():
    """``E[0] + E[0:2].sum(0)``: entries that two parts share are the same (they were taken for independent)."""

    def f(p, x):
        e = p["E"]
        return jnp.tanh(e[0] * x[0] + e[0:2].sum(0) + e[1:3].sum(0)) @ p["v"]

    def g(p, x):
        return jnp.tanh(jnp.array([x[0] + 1, 2.0, 1.0, 0.0]) @ p["E"]) @ p["v"]

    def p(n):
        return {"E": wl.normal((4, n)), "v": wl.normal((n,), 1 / n**0.5)}

    x = np.array([[0.3], [-0.5]])
    one, two = (np.array(wl.limit(h, p, lr="ntk").kernels(x[0], x[1])) for h in (f, g))
    np.testing.assert_allclose(one, two, rtol=1e-12)


def test_overlapping_parts_of_a_weight_are_refused():
    def f(p, x):
        h = jax.nn.relu(x @ p["U"])
        a, b = (jnp.einsum("an,amn->m", h[s], p["V"][s]) for s in (slice(0, 2), slice(1, 3)))
        return jnp.tanh(a + b) @ p["v"]

    def p(n):
        return {"U": wl.normal((5, n)), "V": wl.normal((3, n, n), 1 / n**0.5), "v": wl.normal((n,), 1 / n**0.5)}

    with pytest.raises(wl.UnknownLimitError, match="parts of one parameter that overlap"):
        wl.limit(f, p).ntk(np.ones((3, 5)), np.ones((3, 5)))


def test_a_use_that_is_not_trained():
    """A parameter used twice, once behind `stop_gradient`: its NTK is that of the trained use alone."""

    def f(p, x):
        return x @ p["W"] @ p["v"] + x @ jax.lax.stop_gradient(p["W"]) @ p["v"]

    def p(n):
        return {"W": wl.normal((3, n)), "v": wl.normal((n,), 1 / n**0.5, lr=0.0)}

    x, y = np.random.default_rng(0).normal(size=(2, 3))
    np.testing.assert_allclose(wl.limit(f, p).ntk(x, y), x @ y, rtol=1e-12)


def graph_network(p, graph):
    nodes, adjacency = graph
    h = jax.nn.relu(adjacency @ nodes @ p["U"])
    h = jax.nn.relu(adjacency @ h @ p["W"])
    return h.sum(0) @ p["v"]


def graph_prior(n):
    return {"U": wl.normal((3, n)), "W": wl.normal((n, n), 1 / n**0.5), "v": wl.normal((n,), 1 / n**0.5)}


def graphs(count=3, nodes=4):
    rng = np.random.default_rng(2)
    adjacency = (rng.uniform(size=(count, nodes, nodes)) < 0.5).astype(float)
    return rng.normal(size=(count, nodes, 3)), np.maximum(adjacency, np.swapaxes(adjacency, 1, 2)) + np.eye(nodes)


def test_graphs_are_pairs_of_arrays():
    limit, (nodes, adjacency) = wl.limit(graph_network, graph_prior, lr="ntk"), graphs()
    G = wl.gram(limit.ntk, (nodes, adjacency))
    one = limit.ntk((nodes[0], adjacency[0]), (nodes[1], adjacency[1]))
    np.testing.assert_allclose(G[0, 1], one, rtol=1e-12)
    np.testing.assert_allclose(wl.gram_diag(limit.ntk, (nodes, adjacency)), np.diag(G), rtol=1e-12)
    cross = wl.gram(limit.ntk, (nodes[:2], adjacency[:2]), (nodes, adjacency), batch_size=1)
    np.testing.assert_allclose(cross, G[:2], rtol=1e-12)
    check = limit.check((nodes, adjacency), key=jax.random.key(1), widths=(64, 256), seeds=16)
    assert check.rows[-1].ntk_z < 4.5 and check.rows[-1].nngp_z < 4.5, str(check)


def test_dicts_and_masks():
    def f(p, x):
        h = jax.nn.relu(x["values"] @ p["U"])
        kept = x["mask"].astype(h.dtype)
        return (h * kept[:, None]).sum(0) / kept.sum() @ p["v"]

    limit = wl.limit(f, graph_prior, lr="ntk")
    nodes, _ = graphs()
    mask = np.array([[1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]], bool)
    G = wl.gram(limit.kernels, {"values": nodes, "mask": mask})
    short = {"values": nodes[0, :2], "mask": np.ones(2, bool)}
    other = {"values": nodes[1, :3], "mask": np.ones(3, bool)}
    np.testing.assert_allclose(np.array(G)[:, 0, 1], np.array(limit.kernels(short, other)), rtol=1e-12)


def test_arrays_of_different_counts_are_refused():
    nodes, adjacency = graphs()
    with pytest.raises(ValueError, match="hold \\[2, 3\\] examples"):
        wl.gram(wl.limit(graph_network, graph_prior).ntk, (nodes, adjacency[:2]))


def test_limit_of_a_module():
    net = nn.Sequential(nn.Dense(64, b_std=0.1), nn.Relu(), nn.Dense(32), nn.Relu(), nn.Dense(2))
    limit, x = wl.limit(net), np.random.default_rng(3).normal(size=(3, 4))
    assert limit.ntk(x[0], x[1]) == wl.ntk(net)(x[0], x[1])
    assert "layers" in limit.explain(x[0]) or "[0]" in limit.explain(x[0])
    assert limit.finite(16, jax.random.key(0), x[0])(x[0]).shape == (2,)
    check = limit.check(x, key=jax.random.key(0), widths=(64, 256), seeds=16)
    assert check.rows[1].ntk_error < 0.75 * check.rows[0].ntk_error and check.rows[-1].ntk_z < 4.5, str(check)
    with pytest.raises(ValueError, match="shapes depend on the input"):
        limit.finite(16, jax.random.key(0))
    with pytest.raises(ValueError, match="states its own prior"):
        wl.limit(net, lr="ntk")


def test_integers_of_images_and_of_plain_kernels():
    """`nn` modules compute with floating-point numbers; a kernel that is any function gets them too."""
    images = np.random.default_rng(4).integers(0, 255, (2, 3, 3, 1)).astype(np.uint8)
    net = nn.Sequential(nn.Conv(8, (3, 3)), nn.Relu(), nn.Flatten(), nn.Dense(1))
    np.testing.assert_array_equal(wl.gram(wl.ntk(net), images), wl.gram(wl.ntk(net), images.astype(float)))
    assert wl.ntk(net)(images[0], images[1]) == wl.limit(net).ntk(*images.astype(float))
    G = wl.gram(lambda x, y: x @ y, jnp.arange(6).reshape(3, 2))
    assert jnp.issubdtype(G.dtype, jnp.floating) and G[2, 1] == 23
