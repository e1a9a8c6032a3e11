"""Every way to the empirical NTK gives the same numbers, those of the Jacobian: networks that break shortcuts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import widelimit as wl
from widelimit import nn
from widelimit.empirical import _factors

METHODS = ("auto", "structured", "factorised", "jacobian", "products")
RNG = np.random.default_rng(0)


def arrays(**shapes):
    return {name: jnp.asarray(RNG.normal(size=s) / max((*s, 1)[0], 1) ** 0.5) for name, s in shapes.items()}


def conv(x, W, **options):
    dims = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x[None], W, dimension_numbers=dims, **options)[0]


def mlp(p, x):
    return jnp.tanh(1.3 * (x @ p["A"]) + p["a"]) @ (p["B"] / 2) + 0.1 * p["b"]


def twice(p, x):
    """A layer that is applied twice."""
    h = jnp.tanh(x @ p["A"])
    for _ in range(2):
        h = jnp.tanh(h @ p["B"] + p["b"])
    return h @ p["v"]


def tied(p, x):
    h = jnp.tanh(x @ p["A"])
    return jnp.tanh(jnp.tanh(h @ p["B"]) @ p["B"].T) @ p["v"] + (h @ p["A"].T) @ p["A"] @ p["v"]


def bare(p, x):
    """Parameters used outside layers, one also in a layer; a product of two; weight normalisation."""
    W = p["A"] / jnp.linalg.norm(p["A"], axis=0) * p["g"]
    h = jax.nn.silu(x @ W + jnp.sin(p["a"]))
    h = h * p["g"] + h @ (p["B"] + p["C"] @ p["D"])
    return (h @ p["v"]) * p["s"]


def shifts(p, x):
    """A bias of one layer that is added in another, too; a bias over positions; a bias that is multiplied."""
    h = jnp.tanh(x @ p["A"] + p["a"])
    k = jnp.tanh(h @ p["B"] + p["a"] + p["rows"])
    return ((k @ p["B"] - p["c"]) * 2 + p["c"]).sum(0) @ p["v"]


def read_twice(p, x):
    """What a layer gives goes on beside the sum with its bias, in the same program and out of an inner one."""
    h = x @ p["A"]
    h = jnp.tanh(h + p["a"]) + h
    k = jax.jit(lambda W, h: h @ W)(p["B"], h)
    return (jax.jit(lambda k, b: jnp.tanh(k + b))(k, p["b"]) * k.reshape(-1)) @ p["v"]


def cnn(p, x):
    h = jax.nn.relu(conv(x, p["one"], window_strides=(1, 1), padding="SAME") + p["b"])
    h = jnp.tanh(conv(h, p["two"], window_strides=(2, 1), padding="VALID", rhs_dilation=(1, 2)))
    h = conv(h, p["three"], window_strides=(1, 1), padding=[(1, 0), (0, 2)], feature_group_count=2) + p["c"]
    return jax.nn.gelu(h).mean((0, 1)) @ p["v"]


def same_filter(p, x):
    """A filter in two convolutions of different strides, and flipped in a transposed one."""
    h = jnp.tanh(conv(x, p["W"], window_strides=(1, 1), padding="SAME"))
    k = jnp.tanh(conv(h, p["W"], window_strides=(2, 2), padding="VALID"))
    up = lax.conv_transpose(h[None], p["U"], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return k.sum((0, 1)) @ p["v"] + jnp.tanh(up).mean((0, 1, 2)) @ p["v"]


def attention(p, x):
    h = x @ p["A"] + p["rows"]
    q, k, v = (jnp.einsum("tc,hcd->htd", h, p[name]) for name in ("Q", "K", "V"))
    mixed = jnp.einsum("hts,hsd->htd", jax.nn.softmax(jnp.einsum("htd,hsd->hts", q, k) / 2), v)
    h = h + jnp.einsum("htd,hdc->tc", mixed, p["O"])
    h = (h - h.mean(-1, keepdims=True)) / jnp.sqrt(h.var(-1, keepdims=True) + 1e-3) * p["g"] + p["b"]
    return (jax.nn.gelu(h @ p["B"]) @ p["B"].T).mean(0) @ p["v"]


def scanned(p, x):
    def step(h, a):
        return jnp.tanh(h @ p["W"] + a @ p["A"] + p["b"]), None

    h, _ = lax.scan(step, jnp.zeros(4), x)
    return lax.cond(h[0] > 0, lambda h: h @ p["v"], lambda h: 2 * h @ p["v"], h)


def embedding(p, tokens):
    h = p["E"][tokens] + p["P"]
    return jnp.tanh(h.sum(0)) @ p["E"].T @ p["v"] + jnp.tanh(p["F"][tokens][::-1].mean(0)) @ p["w"]


def local(p, x):
    return jnp.einsum("pj,pjk->pk", jnp.tanh(jnp.einsum("pi,pij->pj", x, p["W"])), p["V"]).sum(0)


@jax.custom_jvp
def doubled(z):
    return z**2


doubled.defjvp(lambda z, t: (z[0] ** 2, 4 * z[0] * t[0]))  # a rule of its own, which inlining would lose


def rules(p, x):
    return doubled(jax.checkpoint(lambda W, x: jnp.tanh(x @ W))(p["A"], x)) @ p["v"] + doubled(p["v"]).sum(0)


@jax.jit
def jitted(p, x):
    layer = jax.jit(lambda W, h: jnp.tanh(h @ W))
    return layer(p["B"], layer(p["A"], x)) @ p["v"]


def stopped(p, x):
    return jnp.tanh(x @ p["A"] + lax.stop_gradient(p["a"])) @ (p["v"] + lax.stop_gradient(p["v"]))


def unused(p, x):
    return jnp.tanh(x @ p["A"])[:2] + 0 * p["v"].sum()


V, T, I = (3,), (4, 3), (7, 6, 2)
CASES = {
    "mlp": (mlp, arrays(A=(3, 5), a=(5,), B=(5, 2), b=(2,)), V),
    "applied twice": (twice, arrays(A=(3, 4), B=(4, 4), b=(4,), v=(4, 2)), V),
    "tied": (tied, arrays(A=(3, 4), B=(4, 5), v=(4, 2)), V),
    "bare": (bare, arrays(A=(3, 4), g=(4,), a=(4,), B=(4, 4), C=(4, 1), D=(1, 4), v=(4, 2), s=()), V),
    "shifts": (shifts, arrays(A=(3, 4), a=(4,), B=(4, 4), rows=(4, 4), c=(4,), v=(4, 2)), T),
    "read twice": (read_twice, arrays(A=(3, 4), a=(4,), B=(4, 4), b=(4,), v=(4, 2)), V),
    "cnn": (cnn, arrays(one=(3, 3, 2, 4), b=(4,), two=(2, 2, 4, 6), three=(2, 2, 3, 4), c=(4,), v=(4, 2)), I),
    "same filter": (same_filter, arrays(W=(2, 3, 2, 2), U=(3, 3, 2, 2), v=(2, 2)), I),
    "attention": (
        attention,
        arrays(A=(3, 6), rows=(4, 6), Q=(2, 6, 3), K=(2, 6, 3), V=(2, 6, 3), O=(2, 3, 6))
        | arrays(g=(6,), b=(6,), B=(6, 5), v=(6, 2)),
        T,
    ),
    "scan": (scanned, arrays(W=(4, 4), A=(3, 4), b=(4,), v=(4, 2)), T),
    "local": (local, arrays(W=(4, 3, 5), V=(4, 5, 2)), T),
    "rules": (rules, arrays(A=(3, 4), v=(4, 2)), V),
    "jitted": (jitted, arrays(A=(3, 4), B=(4, 4), v=(4, 2)), V),
    "stopped": (stopped, arrays(A=(3, 4), a=(4,), v=(4, 2)), V),
    "unused": (unused, arrays(A=(3, 4), v=(4, 2)), V),
}  # fmt: skip
EXAMPLES = {name: RNG.normal(size=(5, *shape)) for name, (_, _, shape) in CASES.items()}
CASES["embedding"] = (embedding, arrays(E=(7, 5), P=(4, 5), v=(7, 2), F=(7, 3), w=(3, 2)), None)
EXAMPLES["embedding"] = np.array([[0, 1, 1, 6], [2, 2, 2, 2], [6, 5, 0, -1], [3, 1, 4, 1], [5, 0, 2, 6]])


def brute_force(f, params, X, Y):
    """``J J'^T`` by entries of the Jacobian, (n, m, O, O)."""

    def rows(x):
        J = jax.vmap(jax.jacrev(f), (None, 0))(params, x)
        return jnp.concatenate([a.reshape(*a.shape[:2], -1) for a in jax.tree.leaves(J)], -1)

    return np.einsum("nok,mpk->nmop", rows(X), rows(Y))


def case(name):
    """f, parameters and examples in float64, and the kernel by brute force."""
    f, params, _ = CASES[name]
    params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), params)
    X = jnp.asarray(EXAMPLES[name])
    return f, params, X, brute_force(f, params, X, X)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("float64")
def test_methods_agree_with_the_jacobian(name):
    f, params, X, full = case(name)
    slow_to_compile = name in ("attention", "cnn", "same filter", "embedding")
    for method in ("factorised",) if slow_to_compile else ("factorised", "products"):
        k = wl.empirical_ntk(f, params, output="full", method=method)
        np.testing.assert_allclose(wl.gram(k, X), full, rtol=1e-10, atol=1e-12, err_msg=method)
    parts = wl.gram(wl.empirical_ntk(f, params, output="sum", by_parameter=True), X, batch_size=2)
    assert len(parts) == len(jax.tree.leaves(params))
    np.testing.assert_allclose(sum(parts.values()), np.trace(full, axis1=2, axis2=3), rtol=1e-10, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("float64")
def test_all_methods_and_outputs_agree(name):
    f, params, X, full = case(name)
    for method in METHODS:
        k = wl.empirical_ntk(f, params, output="full", method=method)
        np.testing.assert_allclose(wl.gram(k, X, batch_size=2), full, rtol=1e-10, atol=1e-12, err_msg=method)
    diagonal = np.diagonal(full, axis1=2, axis2=3)
    for output, want in (("diag", diagonal), ("sum", diagonal.sum(-1)), ("mean", diagonal.mean(-1))):
        for method in METHODS:
            got = wl.gram(wl.empirical_ntk(f, params, output=output, method=method), X[:2], X)
            np.testing.assert_allclose(got, want[:2], rtol=1e-10, atol=1e-12, err_msg=f"{output} {method}")


@pytest.mark.parametrize("name", ["mlp", "embedding", pytest.param("cnn", marks=pytest.mark.slow)])
@pytest.mark.usefixtures("float64")
def test_products_with_oneself_are_halved(name, monkeypatch):
    """Large blocks on the diagonal take each product once: the same numbers."""
    f, params, X, full = case(name)
    monkeypatch.setattr(_factors, "_FEWEST_ROWS", 3)
    monkeypatch.setattr(_factors, "_FEWEST_PRODUCTS", 1)
    halves, whole = [], _factors.row_products
    monkeypatch.setattr(_factors, "row_products", lambda a, b=None: (halves.append(b is None), whole(a, b))[1])
    diagonal = np.diagonal(full, axis1=2, axis2=3)
    for method in ("factorised", "structured"):
        for output, want in (("full", full), ("diag", diagonal), ("sum", diagonal.sum(-1))):
            got = wl.gram(wl.empirical_ntk(f, params, output=output, method=method), X)
            np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12, err_msg=f"{output} {method}")
    assert not all(halves)  # halves beside each other


@pytest.mark.usefixtures("float64")
def test_layers_are_factorised():
    """What the methods are for: dense layers, filters, heads and tables are not differentiated one by one."""
    expected = {
        "mlp": {"['A']": "Gram", "['a']": "shared", "['B']": "Gram", "['b']": "shared"},
        "applied twice": {"['A']": "Gram", "['B']": "Gram", "['b']": "shared", "['v']": "Gram"},
        "tied": {"['A']": "direct", "['B']": "direct", "['v']": "Gram"},
        "cnn": {f"['{n}']": "Gram" for n in ("one", "two", "three", "v")} | {"['b']": "shared", "['c']": "shared"},
        "attention": {f"['{n}']": "Gram" for n in "AQKVO"} | {"['B']": "direct", "['rows']": "direct"},
        "embedding": {"['F']": "Gram", "['E']": "direct"},
        "local": {"['W']": "Gram", "['V']": "Gram"},
    }  # fmt: skip
    for name, ways in expected.items():
        f, params, X, _ = case(name)
        plan = wl.empirical_ntk(f, params, method="factorised").plan(X)
        found = {plan.names[p.leaf]: p.way for p in plan.parts}
        assert ways.items() <= found.items(), (name, found)


@pytest.mark.usefixtures("float64")
def test_parameters_rates_and_signs():
    f, params, X, _ = case("shifts")
    J = jax.vmap(jax.jacrev(f), (None, 0))(params, X)
    of = {name: np.asarray(a).reshape(5, 2, -1) for name, a in J.items()}
    rates = {name: jnp.asarray(RNG.uniform(0.5, 2, a.shape if name in "Bc" else ())) for name, a in params.items()}
    weighted = {n: a * np.broadcast_to(rates[n], params[n].shape).ravel() for n, a in of.items()}
    want = {n: np.einsum("nok,mpk->nmop", weighted[n], of[n]) for n in of}
    for method in ("structured", "factorised", "products"):
        k = wl.empirical_ntk(f, params, output="full", lr=rates, method=method)
        np.testing.assert_allclose(wl.gram(k, X), sum(want.values()), rtol=1e-10)
        some = wl.empirical_ntk(
            f, params, output="full", lr=rates, parameters=lambda path: path in ("['a']", "['v']"), method=method
        )
        np.testing.assert_allclose(wl.gram(some, X), want["a"] + want["v"], rtol=1e-10)
    for kind, left in (("sign", np.sign), ("asymmetric", lambda a: a)):
        k = wl.empirical_ntk(f, params, output="full", gradients=kind)
        signed = sum(np.einsum("nok,mpk->nmop", left(of[n]), np.sign(of[n])) for n in of)
        np.testing.assert_allclose(wl.gram(k, X, batch_size=2), signed, rtol=1e-10)


@pytest.mark.usefixtures("float64")
def test_functions_of_one_network_have_blocks():
    """A PINN's network u and its residual u'' + u: the blocks make one positive semi-definite matrix."""
    params = arrays(A=(1, 6), a=(6,), B=(6, 6), v=(6, 1))

    def u(p, x):
        return jnp.tanh(jnp.tanh(x @ p["A"] + p["a"]) @ p["B"]) @ p["v"]

    def residual(p, x):
        return jax.jacfwd(jax.jacfwd(lambda x: u(p, x)))(x).ravel() + u(p, x)

    X, Y = jnp.asarray(RNG.normal(size=(3, 1))), jnp.asarray(RNG.normal(size=(4, 1)))
    K = {(a, b): wl.gram(wl.empirical_ntk(f, params, output="full", other=g), x, y)[:, :, 0, 0]
         for a, f, x in (("u", u, X), ("r", residual, Y)) for b, g, y in (("u", u, X), ("r", residual, Y))}  # fmt: skip

    def rows(f, x):
        leaves = jax.tree.leaves(jax.jit(jax.vmap(jax.jacrev(f), (None, 0)))(params, x))
        return np.concatenate([np.asarray(a).reshape(len(x), -1) for a in leaves], 1)

    J = rows(u, X), rows(residual, Y)
    whole = np.block([[K["u", "u"], K["u", "r"]], [K["r", "u"], K["r", "r"]]])
    np.testing.assert_allclose(whole, np.concatenate(J) @ np.concatenate(J).T, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("method", ["structured", "products"])
def test_complex_outputs(method):
    params = arrays(A=(3, 4), v=(4, 2), w=(4, 2))

    def f(p, x):
        h = jnp.tanh(x @ p["A"])
        return (h @ p["v"]) * jnp.exp(1j * (h @ p["w"]))

    X = jnp.asarray(RNG.normal(size=(4, 3)))
    J = [
        jax.vmap(jax.jacrev(lambda p, x, part=part: part(f(p, x))), (None, 0))(params, X)
        for part in (jnp.real, jnp.imag)
    ]
    J = [np.concatenate([np.asarray(a).reshape(4, 2, -1) for a in jax.tree.leaves(part)], -1) for part in J]
    J = J[0] + 1j * J[1]
    want = np.einsum("nok,mpk->nmop", J, J.conj())
    got = wl.gram(wl.empirical_ntk(f, params, output="full", method=method), X, batch_size=3)
    np.testing.assert_allclose(got, want, rtol=1e-10)
    got = wl.gram(wl.empirical_ntk(f, params, method=method), X)
    np.testing.assert_allclose(got, np.trace(want, axis1=2, axis2=3) / 2, rtol=1e-10)


def test_memory_is_planned_and_kept():
    net, X = nn.mlp(2, width=64, outputs=8), jnp.asarray(RNG.normal(size=(128, 32)), jnp.float32)
    k = wl.empirical_ntk(net.apply, net.init(jax.random.key(0), (32,)), output="full")
    wide, narrow = k.plan(X, memory=2e9), k.plan(X, memory=4e5)
    assert narrow.bytes <= 4e5 < wide.bytes and narrow.tile < wide.tile
    assert "128 x 128 examples" in str(narrow) and "factors (1 positions" in str(narrow)
    np.testing.assert_allclose(wl.gram(k, X, memory=4e5), wl.gram(k, X), rtol=2e-5, atol=1e-5)
    with pytest.raises(MemoryError, match="Remedy"):
        wl.gram(k, X, memory=1e4)


def test_products_are_chosen_where_they_cost_less():
    """Many outputs of a wide network, and few examples."""
    params = {"A": jnp.ones((4, 64)), "s": jnp.ones((64, 512))}

    def f(p, x):
        return jnp.tanh(x @ p["A"]) @ (p["s"] * jnp.cos(p["s"]))

    plan = wl.empirical_ntk(f, params, output="full").plan(jnp.ones((2, 4)))
    assert plan.method == "products"
    assert wl.empirical_ntk(f, params, output=jnp.sum).plan(jnp.ones((2, 4))).method == "structured"


def test_bad_input():
    f, params, _ = CASES["mlp"]
    for options, message in (
        ({"method": "fast"}, "method must be one of"),
        ({"gradients": "adam"}, "gradients must be one of"),
        ({"parameters": lambda path: False}, "chooses none of"),
        ({"other": f}, "output must be 'full'"),
        ({"method": "products", "by_parameter": True}, "Remedy"),
        ({"lr": {**params, "A": jnp.ones(7)}}, "lr\\['A'\\] has shape"),
    ):
        with pytest.raises(ValueError, match=message):
            wl.empirical_ntk(f, params, **options)
    with pytest.raises(TypeError, match="must return one array"):
        wl.gram(wl.empirical_ntk(lambda p, x: (x @ p["A"], x), params), np.ones((2, 3)))
    with pytest.raises(TypeError, match="floating-point numbers, not int"):
        wl.gram(wl.empirical_ntk(lambda p, x: (x @ p["A"]).astype(int), params), np.ones((2, 3)))


@pytest.mark.usefixtures("float64")
def test_a_kernel_at_other_parameters():
    f, params, X, _ = case("mlp")
    k = wl.empirical_ntk(f, params)
    moved = jax.tree.map(lambda a: a + 0.1, params)
    np.testing.assert_allclose(wl.gram(k.at(moved), X), wl.gram(wl.empirical_ntk(f, moved), X), rtol=1e-12)
    assert np.array_equal(wl.gram(k, X), wl.gram(k, X).T)
    np.testing.assert_allclose(wl.gram_diag(k, X), np.diag(wl.gram(k, X)), rtol=1e-12)
    with pytest.raises(ValueError, match="another structure"):
        k.at([params])
    with pytest.raises(ValueError, match=r"\['A'\] has shape"):
        k.at({**params, "A": jnp.ones((2, 2))})


def test_what_a_function_reads_elsewhere_is_read_again():
    """A kernel is of the function as it is when the kernel is made, not of an earlier one of that name."""
    scale = [1.0]

    def f(p, x):
        return scale[0] * x @ p

    before = wl.gram(wl.empirical_ntk(f, jnp.ones((3, 1))), np.ones((2, 3)))
    scale[0] = 2.0
    np.testing.assert_allclose(wl.gram(wl.empirical_ntk(f, jnp.ones((3, 1))), np.ones((2, 3))), 4 * before)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("method", ["structured", "products"])
def test_examples_of_two_shapes(method):
    params = arrays(A=(3, 4), v=(4, 2))

    def f(p, x):
        return jnp.tanh(x @ p["A"]).mean(0) @ p["v"]

    X, Y = (jnp.asarray(RNG.normal(size=(2, n, 3))) for n in (3, 5))
    k = wl.empirical_ntk(f, params, output="full", method=method)
    np.testing.assert_allclose(wl.gram(k, X, Y), brute_force(f, params, X, Y), rtol=1e-10, atol=1e-12)


def test_examples_of_a_wrong_shape_are_named():
    k = wl.empirical_ntk(lambda p, x: jnp.tanh(x @ p), np.ones((6, 2)))
    with pytest.raises(ValueError, match=r"cannot be applied to one example of shape \(2, 3\)"):
        wl.gram(k, np.ones((4, 2, 3)))
