"""Networks trained elsewhere: their parameters are read, and nothing is trained."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl

RNG = np.random.default_rng(1)
X, Y = RNG.normal(size=(6, 3)), RNG.normal(size=6)
PARAMS = [{"W": RNG.normal(size=(3, 4)), "b": RNG.normal(size=4)}, RNG.normal(size=4)]


def f(params, x):
    return jnp.tanh(x @ params[0]["W"] + params[0]["b"]) @ params[1]


def moved(size):
    return jax.tree.map(lambda a: a + size * RNG.normal(size=a.shape), PARAMS)


def test_what_training_measures_is_measured_of_its_checkpoints():
    states, params = [], PARAMS
    with jax.enable_x64(True):
        slope = jax.grad(lambda p: 0.5 * jnp.sum((jax.vmap(lambda x: f(p, x))(jnp.asarray(X)) - Y) ** 2))
        for _ in range(5):
            params = jax.tree.map(lambda a, g: a - 0.02 * g, params, slope(params))
            states.append(params)
    run = wl.laziness(f, X, Y, params=PARAMS, learning_rate=0.02, steps=5, hessian=False)
    read = wl.laziness(
        f, X, Y, params=PARAMS, checkpoints=[states[i] for i in (0, 1, 4)], times=[1, 2, 5], hessian=False
    )
    assert read.times.tolist() == run.times.tolist() == [0, 1, 2, 5]
    for name in ("loss", "drift", "movement", "change", "alignment", "effective_rank"):
        np.testing.assert_allclose(getattr(read, name), getattr(run, name), rtol=1e-10)
    assert read.settings["training"] == "checkpoints" and "3 checkpoints" in str(read)
    assert not any("Learning rate" in line or "alpha" in line for line in read.advice)


def test_the_distance_is_to_the_linearisation_at_the_same_parameters():
    there = moved(0.1)
    found = wl.laziness(f, X, Y, params=PARAMS, checkpoints=[there], hessian=False)
    lin = wl.linearize(f, PARAMS)
    with jax.enable_x64(True):
        gap = [float(f(there, x) - lin(there, x)) for x in jnp.asarray(X)]
    np.testing.assert_allclose(found.gap[-1], np.sqrt(np.mean(np.square(gap))), rtol=1e-9)


def test_by_name():
    there = moved(0.1)
    named = {"0.W": there[0]["W"], "0.b": there[0]["b"], "1": there[1]}
    one, two = (wl.laziness(f, X, Y, params=PARAMS, checkpoints=[c], hessian=False) for c in (there, named))
    assert one.drift.tolist() == two.drift.tolist()


BAD = [
    ([[{"W": PARAMS[0]["W"]}, PARAMS[1]]], None, "structure"),
    ([[{"W": np.zeros((3, 5)), "b": np.zeros(4)}, PARAMS[1]]], None, "shape"),
    ([jax.tree.map(lambda a: a * np.nan, PARAMS)], None, "NaN"),
    ([PARAMS], [1, 2], "one for each"),
    ([PARAMS, PARAMS], [2, 1], "increasing"),
]


@pytest.mark.parametrize(("checkpoints", "times", "words"), BAD, ids=[w for _, _, w in BAD])
def test_what_is_no_checkpoint_of_the_model(checkpoints, times, words):
    with pytest.raises(ValueError, match=words):
        wl.laziness(f, X, Y, params=PARAMS, checkpoints=checkpoints, times=times)


def test_a_missing_name():
    flat = {"W": PARAMS[0]["W"], "v": PARAMS[1]}
    g = lambda p, x: jnp.tanh(x @ p["W"]) @ p["v"]  # noqa: E731
    with pytest.raises(ValueError, match="lacks 'v'"):
        wl.laziness(g, X, Y, params=flat, checkpoints=[{"W": flat["W"]}])
