"""Long programs run in pieces give what they give whole."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl
from widelimit import _segments, nn
from widelimit._segments import segmented


def layers(x, y):
    """Eight layers that differ in a constant, so that equal-looking pieces must not be shared."""
    for i in range(8):
        x = jnp.sin(x * (1 + i % 2)) + y / (2 + i)
        y = jnp.where(y > 0, y, 0.5 * y) + jnp.exp(-x * x) * jnp.tanh(y)
    return {"x": x, "sum": x + y}


@pytest.mark.parametrize("longest", [1, 7, 40, 10_000])
def test_pieces_give_what_the_whole_gives(monkeypatch, longest):
    monkeypatch.setattr(_segments, "_LONGEST", longest)
    x, y = np.random.default_rng(0).normal(size=(2, 50)).astype(np.float32)
    whole, pieces = layers(jnp.asarray(x), jnp.asarray(y)), segmented(layers, x, y)(x, y)
    assert set(pieces) == {"x", "sum"}
    for name, value in whole.items():
        np.testing.assert_allclose(pieces[name], value, rtol=2e-5, atol=2e-6)


def test_repeated_layers_are_compiled_once():
    net = nn.Sequential(*(m for _ in range(12) for m in (nn.Dense(8, b_std=0.1), nn.Relu())), nn.Dense(1))
    x = jnp.ones((3, 5))
    eqns = jax.make_jaxpr(jax.vmap(wl.ntk(net)))(x, x).jaxpr
    weights = [_segments._weight(e) for e in eqns.eqns]
    pieces = _segments._pieces(eqns, _segments._cuts(eqns.eqns, weights))
    assert len(pieces) > 8
    assert len({id(compiled) for compiled, *_ in pieces}) <= len(pieces) // 2 + 1


def test_a_deep_gram_agrees_with_its_pairs(monkeypatch):
    monkeypatch.setattr(_segments, "_LONGEST", _segments._LONGEST // 3)
    net = nn.Sequential(*(m for _ in range(4) for m in (nn.Dense(8, b_std=0.1), nn.Relu())), nn.Dense(1))
    x = np.random.default_rng(1).normal(size=(70, 4))
    k = wl.kernels(net)
    row = jnp.asarray(x[:3])
    assert sum(map(_segments._weight, jax.make_jaxpr(jax.vmap(k))(row, row).jaxpr.eqns)) > _segments._LONGEST
    whole, corner = wl.gram(k, x), wl.gram(k, x[:9])
    for a, b in zip(whole, corner, strict=True):
        np.testing.assert_allclose(a[:9, :9], b, rtol=1e-13)
