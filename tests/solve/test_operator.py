"""`wl.operator`: each kernel by each operation, against the dense matrix."""

from __future__ import annotations

import functools
import warnings

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

import widelimit as wl
from widelimit import nn
from widelimit._precision import enable_x64

RNG = np.random.default_rng(0)
X, Z = RNG.normal(size=(10, 4)), RNG.normal(size=(7, 4))
IMAGES = RNG.normal(size=(6, 4, 4, 1))
NET = nn.Sequential(nn.Dense(8, 1.5, 0.1), nn.Sin(), nn.Dense(1))
DROPOUT = nn.Sequential(nn.Dense(8), nn.Sin(), nn.Dropout(0.5), nn.Dense(1))
CNN = nn.Sequential(nn.Conv(4, (3, 3)), nn.Sin(), nn.GlobalAvgPool(), nn.Dense(1))
PARAMS = {"W": RNG.normal(size=(4, 5)), "b": RNG.normal(size=5), "v": RNG.normal(size=(5, 3))}


def network(params, x):
    return jnp.tanh(x @ params["W"] + params["b"]) @ params["v"]


def user(x1, x2):
    return jnp.exp(-jnp.sum((x1 - x2) ** 2))


def user_of_outputs(x1, x2):
    return user(x1, x2) * (jnp.eye(2) + 0.3 * jnp.outer(x1[:2], x2[:2]))


def empirical(**options):
    return wl.empirical_ntk(network, PARAMS, **options)


def rated(output):
    return empirical(output=output, lr={"W": 0.5, "b": np.arange(5.0), "v": 2.0}, parameters=lambda p: p != "['v']")


# kernel, examples, others
CASES = {
    "analytic": (wl.ntk(NET), X, None),
    "dropout": (wl.ntk(DROPOUT), X, None),
    "convolution": (wl.ntk(CNN), IMAGES, None),
    "user": (user, X, None),
    "user, others": (user, X, Z),
    "user, outputs": (user_of_outputs, X, None),
    "mean": (empirical(), X, None),
    "sum": (empirical(output="sum"), X, None),
    "diag": (rated("diag"), X, None),
    "full": (rated("full"), X, None),
    "full, others": (empirical(output="full"), X, Z),
    "one number": (empirical(output=lambda out: out[0] * out[1]), X, None),
    "two functions": (empirical(output="full", other=lambda p, x: network(p, x)[:2] ** 2), X, None),
    "signs": (empirical(gradients="asymmetric"), X, None),
}
every_case = pytest.mark.parametrize("name", CASES)


@functools.cache
def case(name):
    k, x1, x2 = CASES[name]
    return wl.operator(k, x1, x2, batch_size=4), _matrix(wl.gram(k, x1, x2))


def _matrix(G):
    """(n, m, ...) as a matrix of flattened vectors."""
    if G.ndim == 3:
        G = G[..., None] * np.eye(G.shape[2])
    return G if G.ndim == 2 else G.transpose(0, 2, 1, 3).reshape(G.shape[0] * G.shape[2], -1)


def _close(a, b, rtol=1e-12):
    assert a.shape == b.shape and np.abs(np.asarray(a) - b).max() <= rtol * np.abs(b).max()


def _vector(structure, *more):
    return np.random.default_rng(1).normal(size=(*structure.shape, *more))


@every_case
def test_products(name):
    """Of one vector, of several, and of the transpose, with tiles that do not divide the examples."""
    A, G = case(name)
    v, V, u = _vector(A.in_structure()), _vector(A.in_structure(), 2), _vector(A.out_structure())
    product = A.mv(v)
    assert isinstance(product, np.ndarray) and product.dtype == np.float64
    assert product.shape == A.out_structure().shape
    _close(product.ravel(), G @ v.ravel())
    _close(A.mv(V).reshape(-1, 2), G @ V.reshape(-1, 2))
    _close(A.T.mv(u).ravel(), G.T @ u.ravel())


@every_case
def test_entries(name):
    A, G = case(name)
    _close(A.as_matrix(), G)
    _close(A.T.as_matrix(), G.T)
    rows, columns = [3, 0, 5, 4], [1, 3, 2, 5]
    cells = [len(G) // CASES[name][1].shape[0], G.shape[1] // len(CASES[name][1] if A.x2 is None else Z)]
    index = [np.add.outer(np.array(i) * c, np.arange(c)).ravel() for i, c in zip((rows, columns), cells, strict=True)]
    _close(A.block(rows, columns), G[np.ix_(*index)])
    _close(A.T.block(columns, rows), G[np.ix_(*index)].T)
    if A.x2 is None and len(G) == G.shape[1]:
        _close(A.diag, np.diagonal(G))
    if A.x2 is not None:
        with pytest.raises(ValueError, match="has no diagonal"):
            _ = A.diag


@every_case
def test_structure_and_tags(name):
    A, G = case(name)
    k, _, x2 = CASES[name]
    symmetric = x2 is None and getattr(k, "symmetric", True)
    assert (A.out_size(), A.in_size()) == G.shape
    assert lx.is_symmetric(A) == symmetric
    assert lx.is_positive_semidefinite(A) == (symmetric and not name.startswith("user"))
    assert A.T is A or not symmetric


@pytest.mark.parametrize("name", ["user, outputs", "full"])
def test_float32_and_compiled(name):
    k, x1, _ = CASES[name]
    A, G = wl.operator(k, jnp.asarray(x1, jnp.float32), batch_size=4), case(name)[1]
    v = jnp.asarray(_vector(A.in_structure()), jnp.float32)
    for product in (A.mv(v), jax.jit(lambda A, v: A.mv(v))(A, v), jax.vmap(A.mv, 1, 1)(v[:, None])[:, 0]):
        assert isinstance(product, jax.Array) and product.dtype == jnp.float32
        _close(product.ravel(), G @ np.asarray(v).ravel(), 1e-5)


def test_derivatives_through_a_product():
    x, v = jnp.asarray(X, jnp.float32), jnp.asarray(_vector(case("user")[0].in_structure()), jnp.float32)

    def form(scale, by):
        def k(a, b):
            return user(scale * a, scale * b)

        return v @ by(k)

    found = jax.jit(jax.grad(lambda s: form(s, lambda k: wl.operator(k, x, batch_size=4).mv(v))))(0.7)
    wanted = jax.grad(lambda s: form(s, lambda k: jax.vmap(lambda a: jax.vmap(lambda b: k(a, b))(x))(x) @ v))(0.7)
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


@pytest.mark.parametrize("name", ["analytic", "full"])
def test_ridge_solve_by_conjugate_gradients(name):
    k, x1, _ = CASES[name]
    G, ridge = case(name)[1], 1.0
    A = wl.operator(k, x1, ridge=ridge, batch_size=4)
    Y = _vector(A.in_structure())
    wanted = np.linalg.solve(G + ridge * np.eye(len(G)), Y.ravel())
    _close(A.as_matrix(), G + ridge * np.eye(len(G)))
    _close(A.diag, np.diagonal(G) + ridge)
    with enable_x64():
        found = lx.linear_solve(A, jnp.asarray(Y), lx.CG(1e-10, 1e-10)).value
    _close(np.asarray(found).ravel(), wanted, 1e-7)
    # JAX's 64-bit types off: an operator made from NumPy is one of float32
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Explicitly requested dtype float64")  # JAX 0.12
        found = lx.linear_solve(A, jnp.asarray(Y, jnp.float32), lx.CG(1e-4, 1e-4)).value
    assert found.dtype == jnp.float32
    _close(np.asarray(found).ravel(), wanted, 2e-3)


def test_lineax_takes_it_as_its_own():
    A, G = case("full")
    with enable_x64():
        _close(lx.materialise(A).as_matrix(), G)
        _close(lx.diagonal(A), np.diagonal(G))
        _close((2.0 * A + A).as_matrix(), 3 * G)
        A, G = case("mean")
        dense = lx.linear_solve(lx.materialise(A), jnp.ones(len(G)), lx.LU()).value
    _close(dense, np.linalg.solve(G, np.ones(len(G))), 1e-6)


def test_parameters_in_training_need_no_new_program():
    k = empirical()
    step, traced = jax.jit(lambda A, v: (traced.append(1), A.mv(v))[1]), []
    x, v = jnp.asarray(X, jnp.float32), jnp.ones(len(X))
    for scale in (1.0, 2.0):
        moved = jax.tree.map(lambda a, scale=scale: scale * a, PARAMS)
        product = step(wl.operator(k.at(moved), x), v)
        _close(product, wl.gram(k.at(moved), X).sum(1), 1e-5)
    assert len(traced) == 1


def test_memory_where_the_matrix_would_not_fit():
    """3000 examples, a matrix of 72 MB, within 4 MB as XLA counts them."""
    from widelimit.solve._gram_operator import _product

    x = np.random.default_rng(2).normal(size=(3000, 3))
    A = wl.operator(user, x, memory=4e6)
    v = np.ones(3000)
    with enable_x64():
        lowered = jax.jit(lambda A, v: _product(A, v)).lower(A, jnp.asarray(v))
        memory = lowered.compile().memory_analysis()
    assert A.bytes <= 4e6 and memory.temp_size_in_bytes <= 4e6 < 8 * 3000**2
    some = [0, 1234, 2999]
    np.testing.assert_allclose(A.mv(v)[some], wl.gram(user, x[some], x).sum(1), rtol=1e-12)
    assert "tiles of" in str(A) and "MiB" in str(A)


def test_memory_of_an_empirical_kernel():
    """Passes of the network in batches: what XLA holds stays within the budget, which one batch would not."""
    from widelimit.solve._gram_operator import _product

    def wide(params, x):
        return jnp.tanh(jnp.outer(params["a"], x).ravel()) @ params["v"]

    params = {"a": np.ones(200, np.float32), "v": np.ones(800, np.float32)}
    x = jnp.asarray(np.random.default_rng(2).normal(size=(1000, 4)), jnp.float32)
    A = wl.operator(wl.empirical_ntk(wide, params), x, memory=1e6)
    v = jnp.ones(1000)
    compiled = jax.jit(lambda A, v: _product(A, v)).lower(A, v).compile()
    assert compiled.memory_analysis().temp_size_in_bytes <= A.bytes <= 1e6 < 1000 * 800 * 4
    assert A.products.batch < 256
    _close(A.mv(v)[:5], np.asarray(wl.gram(wl.empirical_ntk(wide, params), x[:5], x)).sum(1), 1e-5)


def test_long_programs_are_fenced():
    def deep(x1, x2):
        s = x1 @ x2
        for _ in range(600):
            s = jnp.sin(s) * 1.5 + 0.1
        return s

    x = jnp.asarray(X, jnp.float32)
    A = wl.operator(deep, x, batch_size=4)
    assert "optimization_barrier" in str(jax.make_jaxpr(A.mv)(jnp.ones(10)))
    _close(A.mv(jnp.ones(10)), np.asarray(wl.gram(deep, x)).sum(1), 1e-4)


@pytest.mark.parametrize(
    "arguments, options, error, message",
    [
        ((NET, X), {}, TypeError, "operator: k is a network"),
        ((wl.kernels(NET), X), {}, TypeError, "operator: k gives 2 kernels"),
        ((empirical(by_parameter=True), X), {}, TypeError, "operator: k gives 3 kernels"),
        ((wl.empirical_ntk(lambda p, x: 1j * network(p, x), PARAMS), X), {}, TypeError, "k is complex"),
        ((lambda a, b: jnp.ones((2, 2, 2)), X), {}, TypeError, r"not shape \(2, 2, 2\)"),
        ((user, X, X[:, 0]), {}, ValueError, "operator: examples of x1 have shape"),
        ((user, X * np.nan), {}, ValueError, "operator: x1 holds NaN"),
        ((user, X[:0]), {}, ValueError, "at least one example"),
        ((user, X), {"ridge": -1.0}, ValueError, "ridge must be a finite number >= 0"),
        ((user, X, Z), {"ridge": 1.0}, ValueError, "a ridge needs a square Gram"),
        ((user, X), {"memory": 0}, ValueError, "memory must be a positive number of bytes"),
        ((user, X), {"batch_size": 0}, ValueError, "batch_size must be a positive integer"),
        ((empirical(), X), {"memory": 100}, MemoryError, "one example takes"),
    ],
)  # fmt: skip
def test_bad_input(arguments, options, error, message):
    with pytest.raises(error, match=message):
        wl.operator(*arguments, **options)


def test_vectors_of_another_shape():
    with pytest.raises(ValueError, match=r"must have shape \(10,\) or \(10, C\), not \(12,\)"):
        case("user")[0].mv(np.ones(12))


def test_without_lineax(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "lineax", None)
    monkeypatch.delitem(sys.modules, "widelimit.solve._gram_operator")
    with pytest.raises(ImportError, match=r'lineax is not installed. Remedy: pip install "widelimit\[operators\]"'):
        wl.operator(user, X)
