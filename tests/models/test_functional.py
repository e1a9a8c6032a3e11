"""Models of every framework, as they are: the same kernel as by the framework's own gradients, or a clear error."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 5)).astype(np.float32)
IMAGES = RNG.normal(size=(3, 6, 6, 2)).astype(np.float32)


def of_gradients(rows):
    """Full kernel (n, n, O, O) from gradients, (n, O, P)."""
    return np.einsum("nok,mpk->nmop", rows, rows)


def torch_rows(module, x):
    torch = pytest.importorskip("torch")
    params = [p for p in module.parameters() if p.requires_grad]
    rows = []
    for one in torch.as_tensor(x):
        out = module(one[None])[0]
        grads = [torch.autograd.grad(o, params, retain_graph=True, allow_unused=True) for o in out]
        zero = [[torch.zeros_like(p) if g is None else g for g, p in zip(row, params, strict=True)] for row in grads]
        rows.append([torch.cat([g.reshape(-1) for g in row]).numpy() for row in zero])
    return np.array(rows)


def torch_modules():
    torch = pytest.importorskip("torch")
    from torch import nn

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.layer, self.last = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, x):
            h = self.embed(x)
            for _ in range(3):
                h = torch.tanh(self.layer(h))
            return self.last(h)

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.down, self.up = nn.Linear(5, 6), nn.Linear(6, 5)
            self.up.weight = nn.Parameter(self.down.weight.detach().T.clone())
            self.same = self.down

        def forward(self, x):
            return self.same(torch.relu(self.up(torch.relu(self.down(x)))) @ self.down.weight.T @ self.down.weight)[
                :, :2
            ]

    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.gain = nn.Linear(5, 6), nn.Parameter(torch.randn(6))
            self.scale, self.mix = nn.Parameter(torch.tensor(0.7)), nn.Parameter(torch.randn(6, 2))
            self.register_buffer("shift", torch.randn(6))

        def forward(self, x):
            return self.scale * (torch.tanh(self.layer(x)) * self.gain + self.shift) @ self.mix

    class Conv(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.last = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Linear(4, 2)
            self.norm.running_mean += torch.randn(4) / 4

        def forward(self, x):
            return self.last(torch.relu(self.norm(self.conv(x))).mean((2, 3)))

    torch.manual_seed(0)
    frozen = Twice()
    frozen.embed.weight.requires_grad_(False)
    mlp = nn.Sequential(nn.Linear(5, 8), nn.LayerNorm(8), nn.GELU(), nn.Dropout(0.5), nn.Linear(8, 2))
    images = np.moveaxis(IMAGES, -1, 1).copy()
    return {
        "mlp": (mlp.eval(), X), "twice": (Twice(), X), "tied": (Tied(), X), "bare": (Bare(), X),
        "frozen": (frozen, X), "conv": (Conv().eval(), images),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["mlp", "twice", "tied", "bare", "frozen", "conv"])
def test_pytorch(name):
    module, x = torch_modules()[name]
    want = of_gradients(torch_rows(module, x))
    got = wl.gram(wl.empirical_ntk(module, output="full"), x)
    np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-5 * np.abs(want).max())
    f, params = wl.functional(module)
    assert len(params) == len([p for p in module.parameters() if p.requires_grad])
    import torch

    np.testing.assert_allclose(
        f(params, jnp.asarray(x[0])), module(torch.as_tensor(x[:1]))[0].detach(), rtol=1e-4, atol=1e-5
    )


def test_pytorch_refuses_what_is_no_function_of_one_example():
    torch = pytest.importorskip("torch")
    from torch import nn

    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(5, 2)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            return self.layer(x) / self.calls

    with pytest.raises(ValueError, match=r"BatchNorm1d\) is in training mode"):
        wl.empirical_ntk(nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4)))
    with pytest.raises(ValueError, match="dropout in training mode makes the module random"):
        wl.gram(wl.empirical_ntk(nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.5))), X)
    with pytest.raises(ValueError, match="changes its own state"):
        wl.gram(wl.empirical_ntk(Counts()), X)
    with pytest.raises(ValueError, match="no parameter that trains"):
        wl.empirical_ntk(nn.ReLU())


def rows_of(f, params, x):
    J = jax.vmap(jax.jacrev(f), (None, 0))(params, jnp.asarray(x))
    return np.concatenate([np.asarray(a).reshape(*a.shape[:2], -1) for a in jax.tree.leaves(J)], -1)


def test_equinox():
    eqx = pytest.importorskip("equinox")
    one, two = jax.random.split(jax.random.key(0))
    layer = eqx.nn.Linear(6, 6, key=two)

    class Model(eqx.Module):
        embed: eqx.nn.Linear
        layer: eqx.nn.Linear
        gain: jax.Array
        name: str = "model"

        def __call__(self, x):
            h = self.embed(x)
            for _ in range(2):  # applied twice
                h = jnp.tanh(self.layer(h)) * self.gain
            return h[:2]

    model = Model(eqx.nn.Linear(5, 6, key=one), layer, jnp.arange(1.0, 7.0))
    arrays, rest = eqx.partition(model, eqx.is_inexact_array)
    want = of_gradients(rows_of(lambda p, x: eqx.combine(p, rest)(x), arrays, X))
    np.testing.assert_allclose(wl.gram(wl.empirical_ntk(model, output="full"), X), want, rtol=2e-4, atol=1e-4)
    random = eqx.nn.Sequential([eqx.nn.Linear(5, 4, key=one), eqx.nn.Dropout(0.5)])
    with pytest.raises(ValueError, match="Dropout is in training mode"):
        wl.empirical_ntk(random)
    assert wl.gram(wl.empirical_ntk(eqx.nn.inference_mode(random)), X).shape == (4, 4)
    with pytest.raises(ValueError, match="BatchNorm is in training mode"):
        wl.empirical_ntk(eqx.nn.make_with_state(eqx.nn.BatchNorm)(4, "batch", mode="batch")[0])
    with pytest.raises(TypeError, match="no floating-point arrays"):
        wl.empirical_ntk(jnp.tanh)
    with pytest.raises(TypeError, match="must be a model"):
        wl.functional(3)


def test_flax_nnx():
    nnx = pytest.importorskip("flax.nnx")

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.conv, self.norm = nnx.Conv(2, 4, (3, 3), rngs=rngs), nnx.BatchNorm(4, rngs=rngs)
            self.drop, self.last = nnx.Dropout(0.5, rngs=rngs), nnx.Linear(4, 2, rngs=rngs)

        def __call__(self, x):
            return self.last(self.drop(nnx.relu(self.norm(self.conv(x)))).mean((0, 1)))

    model = Model(nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"`norm` \(BatchNorm\)|`drop` \(Dropout\)"):
        wl.empirical_ntk(model)
    model.eval()
    definition, params, rest = nnx.split(model, nnx.Param, ...)
    want = of_gradients(rows_of(lambda p, x: nnx.merge(definition, p, rest)(x), params, IMAGES))
    np.testing.assert_allclose(wl.gram(wl.empirical_ntk(model, output="full"), IMAGES), want, rtol=2e-4, atol=1e-5)


def test_flax_linen():
    linen = pytest.importorskip("flax.linen")

    class Model(linen.Module):
        train: bool = False

        @linen.compact
        def __call__(self, x):
            h = linen.gelu(linen.LayerNorm()(linen.Dense(6)(x)))
            h = linen.Dropout(0.5, deterministic=not self.train)(h)
            return linen.Dense(2)(h)

    variables = Model().init(jax.random.key(0), X[0])
    want = of_gradients(rows_of(lambda p, x: Model().apply({"params": p}, x), variables["params"], X))
    np.testing.assert_allclose(
        wl.gram(wl.empirical_ntk(Model(), variables, output="full"), X), want, rtol=2e-4, atol=1e-5
    )
    with pytest.raises(ValueError, match="training mode"):
        wl.gram(wl.empirical_ntk(Model(train=True), variables), X)
    with pytest.raises(TypeError, match="holds no parameters"):
        wl.empirical_ntk(Model())


def torch_of(function, **layers):
    """A PyTorch module of layers, by name, whose forward is function(module, x); in double precision."""
    torch = pytest.importorskip("torch")

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            for name, layer in layers.items():
                setattr(self, name, layer)

        def forward(self, x):
            return function(self, x)

    torch.manual_seed(0)
    return Model().double()


def agrees_with_torch(module, x):
    want = of_gradients(torch_rows(module, x))
    got = wl.gram(wl.empirical_ntk(module, output="full"), x)
    np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-10 * np.abs(want).max())


def test_pytorch_derivatives_at_kinks(float64):
    """Two hidden units are exactly 0 (or, of the last layers, at a bound), as units whose weights start at 0 are."""
    torch = pytest.importorskip("torch")
    from torch import nn
    from torch.nn import functional as F

    hidden = nn.Linear(5, 6)
    with torch.no_grad():
        hidden.weight[:2] = hidden.bias[:2] = 0
    functions = [
        F.relu, F.relu6, F.hardtanh, lambda h: F.hardtanh(h, 0, 0.5), lambda h: F.leaky_relu(h, 0.2), torch.abs,
        lambda h: h.clamp(min=0), lambda h: h.clamp(max=0), lambda h: h.clamp(0, 1), lambda h: h.clamp(h[:, :1] * 0),
        lambda h: torch.maximum(h, 0 * h), lambda h: F.softplus(h, 2.0, 0.1), lambda h: F.softshrink(h + 0.5, 0.5),
        lambda h: F.hardswish(h + 3) + F.hardswish(h - 3), torch.sinc,
        lambda h: F.hardsigmoid(h[:, :2] - 3),  # elsewhere PyTorch multiplies by 1/6 in 32 bits
        lambda h: h[:, :2].norm(1, 1, True) + h[:, :2].norm(float("inf"), 1, True), lambda h: torch.copysign(h, h - 1),
    ]  # fmt: skip
    last = nn.ModuleList([nn.PReLU(6), nn.RMSNorm(6)])

    def forward(self, x):
        h = self.hidden(x)
        parts = [f(h) for f in (*functions, *self.last)]
        return torch.stack([(p * torch.arange(1, p.shape[1] + 1)).sum(1) for p in parts], 1)

    agrees_with_torch(torch_of(forward, hidden=hidden, last=last), X.astype(np.float64))


def test_pytorch_padding_and_types(float64):
    pytest.importorskip("torch")
    from torch import nn

    tokens = np.array([[0, 1, 2], [0, 0, 3], [4, 0, 4]])
    padded = nn.Embedding(5, 4, padding_idx=0)
    agrees_with_torch(torch_of(lambda m, t: m.layer(m.table(t)).sum(1), table=padded, layer=nn.Linear(4, 2)), tokens)

    def by_counts(m, x):
        return m.layer(x) * ((x > 0).type_as(x) + (x > -1).type_as(x)).sum(1, keepdim=True)

    agrees_with_torch(torch_of(by_counts, layer=nn.Linear(5, 2)), X.astype(np.float64))
    half = nn.Linear(5, 2).bfloat16()
    want = of_gradients(torch_rows(nn.Linear(5, 2), X))  # of no parameter's value
    np.testing.assert_allclose(wl.gram(wl.empirical_ntk(half, output="full"), X), want, rtol=1e-5)
    frequent = nn.Embedding(5, 4, scale_grad_by_freq=True)
    for m, x in (
        (torch_of(lambda m, t: m.table(t).sum(1), table=frequent), tokens),
        (torch_of(lambda m, x: m.layer(x) * (100 * x).char(), layer=nn.Linear(5, 5)), X),
    ):
        with pytest.raises(ValueError, match="Remedy"):
            wl.gram(wl.empirical_ntk(m), x)
