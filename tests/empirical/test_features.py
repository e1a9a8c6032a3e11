"""Random projections of the Jacobian: unbiased, the same for the same key, their errors as told."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 4))
PARAMS = {"W": RNG.normal(size=(4, 6)), "v": RNG.normal(size=(6, 3)) / 6**0.5}
LR = {"W": 0.5, "v": np.arange(1.0, 4.0)}
KEY = jax.random.key(0)
FEATURES = 2000


def network(params, x):
    return jnp.tanh(x @ params["W"]) @ params["v"]


def one(out):
    return out[0] - out[1]


OUTPUTS = {"mean": "mean", "sum": "sum", "diag": "diag", "full": "full", "one number": one}


@functools.cache
def features(name, kind="gaussian", key=0, features=FEATURES):
    output, key = OUTPUTS[name], jax.random.key(key)
    return wl.ntk_features(network, PARAMS, X, features=features, key=key, output=output, lr=LR, kind=kind)


@functools.cache
def kernel(name):
    return wl.gram(wl.empirical_ntk(network, PARAMS, output=OUTPUTS[name], lr=LR), X)


def estimated(name, Phi):
    if name == "full":
        return np.einsum("iar,jbr->ijab", Phi, Phi)
    return np.einsum("iar,jar->ija", Phi, Phi) if name == "diag" else Phi @ Phi.T


@pytest.mark.parametrize("kind", ["gaussian", "rademacher"])
@pytest.mark.parametrize("name", OUTPUTS)
def test_inner_products_estimate_the_kernel(name, kind):
    K, Phi = kernel(name), features(name, kind)
    found = estimated(name, Phi)
    assert Phi.dtype == np.float64 and found.shape == K.shape
    own = np.einsum("ii...->i...", K)
    own = np.einsum("iaa->ia", own) if name == "full" else own
    if name == "full":
        error = np.sqrt((own[:, None, :, None] * own[None, :, None] + K**2) / FEATURES)
    else:
        error = np.sqrt((own[:, None] * own + K**2) / FEATURES)  # for several outputs, of one: larger
        error = error * 3**0.5 if name in ("mean", "sum") else error
    assert np.all(np.abs(found - K) < 4.5 * error)


def test_the_same_key_gives_the_same_directions():
    options = {"key": KEY, "lr": LR, "output": one}
    whole = features("one number")
    test = wl.ntk_features(network, PARAMS, X[7:], features=FEATURES, memory=2e5, **options)
    np.testing.assert_allclose(test, whole[7:], rtol=1e-10, atol=1e-12)
    few = wl.ntk_features(network, PARAMS, X, features=10, **options)
    np.testing.assert_allclose(few, whole[:, :10] * (FEATURES / 10) ** 0.5, rtol=1e-10, atol=1e-12)
    single = wl.ntk_features(network, PARAMS, jnp.asarray(X, jnp.float32), features=10, **options)
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, few, rtol=1e-3, atol=1e-4)
    other = wl.ntk_features(network, PARAMS, X, features=10, **{**options, "key": jax.random.key(1)})
    assert np.abs(other - few).max() > 0.1


def test_parameters_that_do_not_count():
    def chosen(path):
        return path == "['v']"

    K = wl.gram(wl.empirical_ntk(network, PARAMS, output=one, parameters=chosen), X)
    Phi = wl.ntk_features(network, PARAMS, X, features=FEATURES, key=KEY, output=one, parameters=chosen)
    error = wl.projection_standard_error(Phi)
    assert np.all(np.abs(Phi @ Phi.T - K) < 4.5 * error)


@pytest.mark.parametrize("name, outputs", [("one number", 1), ("mean", 3)])
def test_standard_errors(name, outputs):
    """Those told are those of the formula, for one output, and the spread over 30 keys."""
    K = kernel(name)
    draws = [features(name, key=key, features=300) for key in range(30)]
    told = np.mean([wl.projection_standard_error(Phi, outputs=outputs) ** 2 for Phi in draws], axis=0) ** 0.5
    spread = np.std([Phi @ Phi.T for Phi in draws], axis=0, ddof=1)
    assert np.median(spread / told) == pytest.approx(1, abs=0.1)
    own = np.diagonal(K)
    formula = np.sqrt((own[:, None] * own + K**2) / 300)
    if outputs == 1:
        np.testing.assert_allclose(told, formula, rtol=0.2)
    cross = wl.projection_standard_error(draws[0], draws[0][:5], outputs=outputs)
    np.testing.assert_allclose(cross, wl.projection_standard_error(draws[0], outputs=outputs)[:, :5], rtol=1e-12)


def test_the_bound_holds_and_falls_as_it_says():
    """The error of the whole matrix over 20 keys and two numbers of features."""
    K = kernel("one number")
    norm = np.linalg.norm(K, 2)
    dimension = np.trace(K) / norm
    means = []
    for m in (100, 1600):
        errors = [
            np.linalg.norm(Phi @ Phi.T - K, 2) / norm
            for Phi in (features("one number", key=key, features=m) for key in range(20))
        ]
        assert max(errors) < wl.projection_bound(dimension, m) < 20 * np.mean(errors)
        means.append(np.mean(errors))
    slope = np.log(means[1] / means[0]) / np.log(16)
    assert slope == pytest.approx(-0.5, abs=0.1)
    assert wl.projection_bound(dimension, 10**8) / wl.projection_bound(dimension, 10**6) == pytest.approx(0.1, rel=0.01)


def test_models_of_other_libraries():
    equinox = pytest.importorskip("equinox")
    model = equinox.nn.MLP(4, 1, 8, 1, key=KEY)
    Phi = wl.ntk_features(model, x=X, features=FEATURES, key=KEY)
    K = wl.gram(wl.empirical_ntk(model), X)
    assert np.all(np.abs(Phi @ Phi.T - K) < 4.5 * wl.projection_standard_error(Phi))


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"kind": "uniform"}, ValueError, "kind must be gaussian or rademacher"),
        ({"output": "trace"}, ValueError, "output must be one of"),
        ({"features": 0}, ValueError, "features must be a positive integer"),
        ({"features": 2.0}, ValueError, "features must be a positive integer"),
        ({"lr": -1.0}, ValueError, "lr must not be negative"),
        ({"memory": 10}, MemoryError, "ntk_features: one example takes"),
        ({"x": X[:0]}, ValueError, "at least one example"),
        ({"x": None}, TypeError, "x, the examples, is missing"),
    ],
)  # fmt: skip
def test_bad_input(options, error, message):
    with pytest.raises(error, match=message):
        wl.ntk_features(network, PARAMS, **{"x": X, "features": 5, "key": KEY, **options})


@pytest.mark.parametrize("arguments", [(0.5, 10), (np.nan, 10), (2, 0)])
def test_bad_bounds(arguments):
    with pytest.raises(ValueError, match="dimension must be a number >= 1"):
        wl.projection_bound(*arguments)


def test_bad_features():
    with pytest.raises(ValueError, match="columns a multiple of outputs"):
        wl.projection_standard_error(np.ones((3, 5)), outputs=2)
    with pytest.raises(ValueError, match="one direction has no spread"):
        wl.projection_standard_error(np.ones((3, 1)))
