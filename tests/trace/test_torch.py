"""PyTorch modules as they are: their limit beside real modules run by PyTorch, and beside the same networks in JAX."""

from __future__ import annotations

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl
from widelimit.fields import UnknownLimitError

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

RANDOM = np.random.default_rng(0)
VECTORS, SEQUENCES, IMAGES = (RANDOM.normal(size=s) for s in ((3, 5), (2, 3, 5), (2, 3, 6, 6)))


def mlp(n, outputs=1):
    return nn.Sequential(nn.Linear(5, n), nn.ReLU(), nn.Linear(n, n, bias=False), nn.Tanh(), nn.Linear(n, outputs))


def cnn(n, outputs=1):
    """Biases of inner layers are left out: they vanish as 1/n, but are much of a small kernel at finite width."""
    return nn.Sequential(
        nn.Conv2d(3, n, 3, padding=1, stride=2), nn.BatchNorm2d(n), nn.ReLU(inplace=True),
        nn.Conv2d(n, n, 2, bias=False), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(n, outputs, bias=False),
    ).eval()  # fmt: skip


def flattened(n, outputs=1):
    conv = nn.Conv2d(n, n, 2, padding=1, padding_mode="circular", groups=2, bias=False)
    last = nn.Linear(9 * n, outputs, bias=False)
    return nn.Sequential(nn.Conv2d(3, n, 3, dilation=2), nn.ReLU(), conv, nn.GELU(), nn.Flatten(), last)


def grouped(n, outputs=1):
    return nn.Sequential(nn.Linear(5, n), nn.GroupNorm(2, n), nn.ReLU(), nn.Linear(n, outputs, bias=False))


def instance(n, outputs=1):
    """Normalised where the weights' law does not matter: in a first layer it would."""
    return nn.Sequential(
        nn.Conv2d(3, n, 3, stride=2), nn.ReLU(), nn.Conv2d(n, n, 1, bias=False), nn.InstanceNorm2d(n, affine=True),
        nn.ReLU(), nn.Flatten(), nn.Linear(4 * n, outputs, bias=False),
    )  # fmt: skip


class Residual(nn.Module):
    def __init__(self, n, outputs=1):
        super().__init__()
        self.first, self.norm = nn.Linear(5, n), nn.LayerNorm(n)
        self.up, self.down = nn.Linear(n, 4 * n, bias=False), nn.Linear(4 * n, n, bias=False)
        self.last = nn.Linear(n, outputs, bias=False)

    def forward(self, x):
        h = self.first(x)
        return self.last(F.relu(self.norm(h + self.down(F.relu(self.up(self.norm(h)))))))


class Attention(nn.Module):
    """Two heads, causal, with logits over the width of a head to some power."""

    def __init__(self, n, outputs=1, power=1.0):
        super().__init__()
        self.embed, self.qkv = nn.Linear(5, n), nn.Linear(n, 3 * n, bias=False)
        self.mix, self.last = nn.Linear(n, n, bias=False), nn.Linear(n, outputs, bias=False)
        self.power = power
        nn.init.normal_(self.qkv.weight, std=n**-0.5)

    def forward(self, x):
        h = self.embed(x)
        q, k, v = (a.unflatten(-1, (2, -1)).transpose(1, 2) for a in self.qkv(h).chunk(3, -1))
        scale = q.shape[-1] ** -self.power
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale).transpose(1, 2).flatten(2)
        return self.last(torch.relu(h + self.mix(seen)).mean(1))


class Encoder(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.embed, self.last = nn.Linear(5, n), nn.Linear(n, 1)
        self.layer = nn.TransformerEncoderLayer(n, 2, 2 * n, dropout=0.0, batch_first=True)

    def forward(self, x):
        return self.last(self.layer(self.embed(x)).mean(1))


NETWORKS = {
    "mlp": (mlp, VECTORS, 256),
    "cnn": (cnn, IMAGES, 256),
    "flattened": (flattened, IMAGES, 128),
    "grouped": (grouped, VECTORS, 512),
    "instance": (instance, IMAGES, 256),
    "residual": (Residual, VECTORS, 256),
    "attention": (Attention, SEQUENCES, 256),
}


def of_pytorch(build, rates, x, width, draws=32, outputs=16):
    """Both kernels of real modules run and differentiated by PyTorch, and their standard errors over draws: the NNGP
    averaged over outputs, the NTK of the first.
    """
    inputs, nngp, ntk = torch.as_tensor(x, dtype=torch.float32), [], []
    for seed in range(draws):
        torch.manual_seed(seed)
        module = build(width, outputs)
        f = module(inputs)
        nngp.append((f @ f.T / outputs).detach().double().numpy())
        rows = [torch.autograd.grad(out, list(module.parameters()), retain_graph=True) for out in f[:, 0]]
        pairs = [[sum(lr * (g * h).sum() for lr, g, h in zip(rates, a, b, strict=True)) for b in rows] for a in rows]
        ntk.append(np.asarray(pairs, float))
    return [(np.mean(a, 0), np.std(a, 0, ddof=1) / draws**0.5) for a in (nngp, ntk)]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_limit_is_that_of_real_modules(name):
    """Initialised, run and differentiated by PyTorch; rates are the initialisers' variances, ``1 / (3 fan_in)``."""
    build, x, width = NETWORKS[name]
    limit = wl.limit(build)
    module = build(width)
    rates = [0.0 if p.ndim == 1 else 1 / (3 * p[0].numel()) for p in module.parameters()]
    names = [path for path, _ in module.named_parameters()]
    for i, path in enumerate(names):  # biases are drawn as the weights beside them; gains and shifts are constant
        if path.endswith("bias") and rates[i - 1] > 0:
            rates[i] = rates[i - 1]
        if "qkv" in path:
            rates[i] = 1 / width
    exact = wl.gram(limit.kernels, x)
    for kernel, (mean, error) in zip(exact, of_pytorch(build, rates, x, width), strict=True):
        assert np.abs((mean - kernel) / error).max() < 4
        assert error.max() < 0.1 * np.abs(kernel).max()


def test_check_runs_the_module_at_finite_widths():
    def build(n):
        return nn.Sequential(nn.Linear(5, n), nn.ReLU(), nn.Linear(n, 1, bias=False))

    check = wl.limit(build).check(VECTORS, key=jax.random.key(0), widths=(16, 256), seeds=24)
    assert max(check.rows[-1].nngp_z, check.rows[-1].ntk_z) < 4
    assert check.rows[-1].ntk_error < 0.5 * check.rows[0].ntk_error


def test_the_same_network_in_jax_has_the_same_limit():
    eqx = pytest.importorskip("equinox")

    def in_jax(n, key):
        one, two, three = jax.random.split(key, 3)
        layers = [eqx.nn.Linear(5, n, key=one), eqx.nn.Lambda(jax.nn.relu), eqx.nn.Linear(n, n, False, key=two)]
        return eqx.nn.Sequential([*layers, eqx.nn.Lambda(jnp.tanh), eqx.nn.Linear(n, 1, key=three)])

    ours, theirs = (wl.limit(b).kernels(VECTORS[0], VECTORS[1]) for b in (mlp, in_jax))
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_finite_networks_are_the_modules_own():
    """Drawn by PyTorch with a seed from the key, and run in JAX."""
    limit = wl.limit(mlp)
    key = jax.random.key(3)
    f = limit.finite(32, key)
    assert np.isfinite(f(VECTORS[0])).all() and f(VECTORS[0]).shape == (1,)
    assert f(VECTORS[0]) == limit.finite(32, key)(VECTORS[0])
    assert f(VECTORS[0]) != limit.finite(32, jax.random.key(4))(VECTORS[0])
    state = torch.get_rng_state()
    limit.finite(16, key)(VECTORS[0])
    assert torch.equal(torch.get_rng_state(), state)


def test_what_is_read_is_told():
    told = wl.limit(lambda n: nn.Sequential(nn.Linear(5, n), nn.LayerNorm(n), nn.Linear(n, 1))).explain(VECTORS[0])
    assert f"0.weight: (n, 5)  std {15**-0.5:.4g}  lr {1 / 15:.4g}" in told
    assert "1.weight: starts at 1, and is not trained" in told
    assert "2.weight: initialiser is not Gaussian" in told
    assert "module `1` (LayerNorm), aten.layer_norm.default" in told


def test_a_prior_states_parameters_by_name():
    """The law and rate of one parameter; the others are read as they are."""
    plain, same = wl.limit(mlp), wl.limit(mlp, lambda n: {"0.weight": wl.normal((n, 5), 15**-0.5, 1 / 15)})
    pair = VECTORS[0], VECTORS[1]
    np.testing.assert_allclose(same.kernels(*pair), plain.kernels(*pair), rtol=1e-12)
    frozen = wl.limit(mlp, lambda n: {"0.weight": wl.normal((n, 5), 15**-0.5, 0.0)})
    assert frozen.nngp(*pair) == pytest.approx(plain.nngp(*pair), rel=1e-12)
    assert frozen.ntk(*pair) < plain.ntk(*pair)
    with pytest.raises(ValueError, match=r"'W', which is none of the parameters 0\.weight, 0\.bias"):
        wl.limit(mlp, lambda n: {"W": wl.normal((n, 5))})
    with pytest.raises(ValueError, match="has shape"):
        wl.limit(mlp, lambda n: {"0.weight": wl.normal((5, n))})


def test_initialisers_without_a_known_law_can_be_stated():
    def build(n):
        module = mlp(n)
        nn.init.trunc_normal_(module[0].weight)
        return module

    with pytest.raises(UnknownLimitError, match=r"'0.weight' cannot be read.*wl\.normal"):
        wl.limit(build)
    std = 0.8796256610342398  # of a standard normal cut at two standard deviations
    limit = wl.limit(build, lambda n: {"0.weight": wl.normal((n, 5), std, std**2)})
    exact = wl.gram(limit.nngp, VECTORS)
    assert np.isfinite(exact).all()


def test_parameters_that_do_not_train_are_frozen():
    def build(n):
        module = mlp(n)
        module[0].requires_grad_(False)
        return module

    frozen = wl.limit(
        mlp, lambda n: {k: wl.normal(s, 15**-0.5, 0.0) for k, s in (("0.weight", (n, 5)), ("0.bias", (n,)))}
    )
    assert wl.limit(build).ntk(VECTORS[0], VECTORS[1]) == pytest.approx(frozen.ntk(VECTORS[0], VECTORS[1]), rel=1e-12)


def test_weights_that_are_tied_are_one_parameter():
    class Tied(nn.Module):
        def __init__(self, n):
            super().__init__()
            self.first, self.one, self.two, self.last = (
                nn.Linear(5, n),
                nn.Linear(n, n),
                nn.Linear(n, n),
                nn.Linear(n, 1),
            )
            self.two.weight = self.one.weight

        def forward(self, x):
            h = self.first(x)
            return self.last(torch.relu(self.one(h) + self.two(h)))

    def untied(n):
        return nn.Sequential(nn.Linear(5, n), Twice(n), nn.ReLU(), nn.Linear(n, 1))

    class Twice(nn.Linear):
        def __init__(self, n):
            super().__init__(n, n)

        def forward(self, x):
            return 2 * F.linear(x, self.weight)

    pair = VECTORS[0], VECTORS[1]
    limit = wl.limit(lambda n: Tied(n))
    assert "two.weight" not in limit.explain(VECTORS[0])
    np.testing.assert_allclose(limit.kernels(*pair), wl.limit(untied).kernels(*pair), rtol=1e-9)


def test_buffers_are_read():
    """Fixed ones by value, constant ones of any width, random ones as parameters that do not train."""

    class Features(nn.Module):
        def __init__(self, n):
            super().__init__()
            self.register_buffer("B", torch.randn(n, 5))
            self.register_buffer("weights", torch.tensor([1.0, 2.0, 0.5, 1.0, 1.0]))
            self.register_buffer("ones", torch.ones(n))
            self.register_buffer("root", torch.tensor(n**-0.5))
            self.v = nn.Parameter(torch.randn(n, 1))

        def forward(self, x):
            return (torch.cos(x * self.weights @ self.B.T) * self.ones) @ self.v * self.root

    limit = wl.limit(Features)
    x, y = VECTORS[:2] * np.array([1.0, 2.0, 0.5, 1.0, 1.0])
    expected = (np.exp(-((x - y) ** 2).sum() / 2) + np.exp(-((x + y) ** 2).sum() / 2)) / 2
    nngp, ntk = limit.kernels(VECTORS[0], VECTORS[1])
    assert nngp == pytest.approx(expected, rel=1e-6)  # the root is held in single precision
    assert ntk == pytest.approx(nngp, rel=1e-12)  # v alone is trained, with rate 1


class BatchStatistics(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, n, 3), nn.Linear(16 * n, 1)

    def forward(self, x):
        return self.last(torch.flatten(F.batch_norm(self.first(x), None, None, training=True), 1))


REFUSED = {
    "maximum over windows": (
        lambda n: nn.Sequential(nn.Conv2d(3, n, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * n, 1)), IMAGES,
        r"module `1` \(MaxPool2d\), aten\.max_pool2d.*limit\.finite",
    ),
    "a norm over too many positions": (
        lambda n: nn.Sequential(nn.Conv1d(3, n, 1), nn.InstanceNorm1d(n), nn.Flatten(), nn.Linear(100 * n, 1)),
        np.ones((2, 3, 100)), r"InstanceNorm1d.*more than 96 enter.*GroupNorm\(1\)",
    ),
    "logits over the root of the width": (
        lambda n: Attention(n, 1, 0.5), SEQUENCES, "divide the inner product by the width",
    ),
    "encoder": (Encoder, SEQUENCES, r"module `layer\.self_attn` \(MultiheadAttention\).*divide the inner product"),
    "batch normalisation": (lambda n: cnn(n).train(), IMAGES, r"module `1` \(BatchNorm2d\).*module\.eval\(\)"),
    "batch normalisation without running averages": (
        lambda n: nn.Sequential(nn.Linear(5, n), nn.BatchNorm1d(n, track_running_stats=False), nn.Linear(n, 1)).eval(),
        VECTORS, r"module `1` \(BatchNorm1d\) has no running averages.*track_running_stats=True",
    ),
    "batch normalisation by a function": (
        BatchStatistics, IMAGES, r"batch normalisation in training mode.*module\.eval\(\)",
    ),
    "dropout": (
        lambda n: nn.Sequential(nn.Linear(5, n), nn.Dropout(0.1), nn.Linear(n, 1)), VECTORS,
        r"module `1` \(Dropout\).*module\.eval\(\)",
    ),
    "a maximum over the width": (
        lambda n: nn.Sequential(nn.Linear(5, n), nn.AdaptiveMaxPool1d(1)), VECTORS,
        r"`reduce_max`.*no deterministic",
    ),
    "copies of a layer": (
        lambda n: nn.Sequential(nn.Linear(5, n), nn.TransformerEncoder(Encoder(n).layer, 2)), SEQUENCES,
        "copies of one draw",
    ),
    "layers by the width": (
        lambda n: nn.Sequential(nn.Linear(5, n), nn.Sequential(*[nn.ReLU()] * (n // 96)), nn.Linear(n, 1)), VECTORS,
        "different operations at different widths",
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_known_limit_is_refused_by_name(name):
    build, x, message = REFUSED[name]
    with pytest.raises(UnknownLimitError, match=message):
        wl.limit(build).kernels(x[0], x[1])


def test_gradients_that_are_switched_off_are_refused():
    class NoGrad(nn.Linear):
        def forward(self, x):
            with torch.no_grad():
                return super().forward(x)

    with pytest.raises(UnknownLimitError, match=r"torch\.no_grad"):
        wl.limit(lambda n: nn.Sequential(NoGrad(5, n), nn.Linear(n, 1))).ntk(VECTORS[0], VECTORS[1])


def test_detached_values_have_no_derivative():
    class Detached(nn.Linear):
        def forward(self, x):
            return super().forward(x).detach()

    pair = VECTORS[0], VECTORS[1]
    nngp, ntk = wl.limit(lambda n: nn.Sequential(Detached(5, n), nn.ReLU(), nn.Linear(n, 1, bias=False))).kernels(*pair)
    assert ntk == pytest.approx(nngp, rel=1e-12)


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.BatchNorm2d])
def test_batch_normalisation_in_evaluation_scales(norm):
    """By the root of 1 + eps; in closed form, for its gain and averages are constants."""
    flat = norm is nn.BatchNorm1d
    x = VECTORS if flat else IMAGES

    def build(n, eps=None):
        first = nn.Linear(5, n, bias=False) if flat else nn.Conv2d(3, n, 3, bias=False)
        between = [norm(n, eps=eps)] if eps else []
        last = nn.Linear(n if flat else 16 * n, 1, bias=False)
        return nn.Sequential(first, *between, nn.ReLU(), nn.Flatten(), last).eval()

    limit = wl.limit(lambda n: build(n, 0.1))
    wanted = np.array(wl.limit(build).kernels(x[0], x[1])) / 1.1
    np.testing.assert_allclose(np.array(limit.kernels(x[0], x[1])), wanted, rtol=1e-10)
    assert "quasi-Monte Carlo" not in limit.explain(x[0])


def test_inputs_that_do_not_fit_are_told():
    with pytest.raises(ValueError, match=r"input of shape \(7,\)"):
        wl.limit(mlp).nngp(np.ones(7), np.ones(7))


def test_builders_that_are_none_are_told():
    with pytest.raises(TypeError, match=r"must return a torch\.nn\.Module, not list"):
        wl.limit(lambda n: [n])
    with pytest.raises(TypeError, match="takes the width only"):
        wl.limit(lambda n, key: mlp(n))


def test_without_pytorch_the_remedy_is_told():
    code = "import sys; sys.modules['torch'] = None; import widelimit as wl; wl.limit(lambda n: n)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert 'pip install "widelimit[torch]"' in done.stderr
