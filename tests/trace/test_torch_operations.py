"""ATen operations in JAX give what PyTorch gives, on the parameters of real modules."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from widelimit.fields import UnknownLimitError
from widelimit.trace._aten import ATEN, run
from widelimit.trace._torch import TorchBuilder
from widelimit.trace._torch_graph import exported, lifted_integer, lifted_number

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402


class Code(nn.Module):
    """A module of one function of (its one parameter, x)."""

    def __init__(self, function, shape=(6,)):
        super().__init__()
        self.p = nn.Parameter(torch.randn(shape))
        self.function = function

    def forward(self, x):
        return self.function(self.p, x)


def ran_in_jax(module, x):
    graph = exported(module, x.shape, np.issubdtype(x.dtype, np.integer), tuple(ATEN))
    tensors = {**dict(module.named_parameters(remove_duplicate=False)), **dict(module.named_buffers())}
    values = {name: jnp.asarray(t.detach().numpy()) for name, t in tensors.items()} | graph.constants
    return run(graph, lambda name: jnp.asarray(values[name]), jnp.asarray(x))


def agrees(module, shape, dtype=np.float32):
    x = np.random.default_rng(3).normal(size=shape).astype(dtype)
    with torch.no_grad():
        expected = module(torch.as_tensor(x)[None])[0].numpy()
    np.testing.assert_allclose(ran_in_jax(module, x), expected, rtol=1e-5, atol=1e-5)


def settled(module):
    """Evaluation mode, with running averages and gains that are not all 0 and 1."""
    for tensor in [*module.parameters(), *module.buffers()]:
        if tensor.is_floating_point() and tensor.ndim == 1:
            nn.init.uniform_(tensor, 0.5, 1.5)
    return module.eval()


ACTIVATIONS = [
    nn.ReLU(inplace=True), nn.ReLU6(), nn.LeakyReLU(0.2), nn.PReLU(), nn.ELU(0.7), nn.SELU(), nn.CELU(0.6), nn.GELU(),
    nn.GELU(approximate="tanh"), nn.SiLU(), nn.Mish(), nn.Tanh(), nn.Sigmoid(), nn.Softplus(), nn.Softplus(2.0),
    nn.Softsign(), nn.Hardtanh(-0.3, 0.6), nn.Hardsigmoid(), nn.Hardswish(), nn.LogSigmoid(), nn.Tanhshrink(),
    nn.Hardshrink(), nn.Softshrink(), nn.Threshold(0.1, 0.2), nn.GLU(), nn.Softmax(-1), nn.LogSoftmax(-1),
    nn.Identity(), nn.Softmin(-1),
]  # fmt: skip


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=repr)
def test_activations(activation):
    agrees(nn.Sequential(nn.Linear(5, 6), activation), (5,))


LAYERS = [
    (nn.Conv1d(3, 4, 3, stride=2, padding=1, dilation=2), (3, 11)),
    (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), groups=2), (4, 7, 6)),
    (nn.Conv2d(3, 4, 3, dilation=2, padding="same"), (3, 5, 6)),
    (nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular", bias=False), (3, 5, 6)),
    (nn.Conv2d(3, 4, 3, padding=2, padding_mode="reflect"), (3, 5, 6)),
    (nn.Conv3d(2, 3, 2), (2, 3, 4, 3)),
    (nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1), (3, 4, 5)),
    (nn.ConvTranspose1d(4, 6, 3, stride=3, dilation=2, groups=2), (4, 5)),
    (nn.AvgPool2d(3, stride=2, padding=1), (2, 7, 6)),
    (nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False), (2, 7, 6)),
    (nn.AvgPool2d(3, stride=2, ceil_mode=True), (2, 8, 7)),
    (nn.AvgPool2d(2, divisor_override=3), (2, 8, 7)),
    (nn.AvgPool1d(2), (2, 8)),
    (nn.MaxPool2d(3, stride=2, padding=1), (2, 7, 6)),
    (nn.AdaptiveAvgPool2d((3, 1)), (2, 7, 6)),
    (nn.AdaptiveAvgPool1d(4), (2, 7)),
    (settled(nn.BatchNorm2d(3)), (3, 4, 5)),
    (settled(nn.BatchNorm1d(5)), (5,)),
    (nn.InstanceNorm2d(3, eps=0.1), (3, 4, 5)),
    (settled(nn.InstanceNorm1d(3, affine=True)), (3, 5)),
    (settled(nn.InstanceNorm1d(3, affine=True, track_running_stats=True)), (3, 5)),
    (settled(nn.LayerNorm(5)), (3, 5)),
    (settled(nn.LayerNorm((3, 5))), (3, 5)),
    (settled(nn.GroupNorm(2, 6)), (6, 3, 2)),
    (settled(nn.RMSNorm(5)), (3, 5)),
    (nn.Flatten(), (3, 2, 4)),
    (nn.Dropout(0.5).eval(), (4,)),
    (nn.PixelShuffle(2), (8, 3, 2)),
    (nn.Unflatten(1, (2, 3)), (6, 2)),
    (nn.ZeroPad2d(1), (2, 3, 4)),
    (nn.CircularPad2d(1), (2, 3, 4)),
    (nn.ReplicationPad1d(2), (2, 3)),
    (nn.UpsamplingNearest2d(scale_factor=2), (2, 3, 4)),
    (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval(), (5, 8)),
    (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True, activation="gelu").eval(), (5, 8)),
]


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=lambda a: repr(a).split("\n")[0])
def test_layers(layer, shape):
    agrees(nn.Sequential(layer, Code(lambda p, x: x * p[0])), shape)


def set_second(x):
    x[:, 1] = 0.5
    return x


CODE = {
    "arithmetic": lambda p, x: (2 - x) / (x**2 + 1) + p * x - torch.exp(-x.abs()) + torch.add(x, p, alpha=0.3),
    "functions": lambda p, x: torch.erf(x) + torch.sin(p) * torch.cos(x) + torch.rsqrt(1 + x * x) + x.sigmoid().log(),
    "comparison": lambda p, x: (
        torch.where(x > p, x, p) + torch.clamp(x, -0.5, 0.5) + torch.maximum(x, p) + x.clamp(min=0)
    ),
    "masks": lambda p, x: x.masked_fill(torch.arange(6, device=x.device) > 3, -1.0) * torch.tril(p.new_ones(6, 6))[2],
    "joining": lambda p, x: torch.cat([x, p[None]], -1)[:, 2:9:2].flip(-1) + torch.stack([x, x], 1).sum(1)[:, :4],
    "splitting": lambda p, x: sum(x.chunk(3, -1)) + x.split([2, 4], -1)[0] * x.unbind(-1)[3][:, None],
    "shapes": lambda p, x: (x.view(1, 2, 3).transpose(1, 2).reshape(1, 6) + p.expand(1, 6)).unsqueeze(1).squeeze(1),
    "reductions": lambda p, x: (
        x.mean(-1, keepdim=True) + (p * x).sum() + x.std(-1, keepdim=True) + x.norm(dim=-1)[:, None]
    ),
    "products": lambda p, x: (
        torch.einsum("bi,j->bij", x, p) @ p + (x @ torch.outer(p, p)) * torch.matmul(x, p)[:, None]
    ),
    "attention": lambda p, x: F.scaled_dot_product_attention(
        *[(x[..., None] * p).unsqueeze(1)] * 3, is_causal=True, scale=0.1
    ),
    "in place": lambda p, x: set_second(x.clone()).mul_(p).add_(1),
    "indices": lambda p, x: x[:, torch.tensor([3, 0, 3])] + x[:, -1:] * p[:3] + torch.roll(x, 2, -1)[:, :3],
    "padding": lambda p, x: F.pad(x * p, (2, 1), value=0.5) + F.pad(x, (2, 1)),
    "detached": lambda p, x: (x * p).detach() + p,
    "cumulative": lambda p, x: torch.cumsum(x * p, -1) + torch.logsumexp(x, -1, keepdim=True),
    "types": lambda p, x: (x > 0).to(x.dtype) * p + (x > 0).sum(-1, keepdim=True) + x.double().float(),
}


@pytest.mark.parametrize("name", CODE)
def test_code(name):
    agrees(Code(CODE[name]), (6,))


def test_tokens():
    module = nn.Sequential(nn.Embedding(10, 6), nn.Linear(6, 2))
    x = np.asarray([3, 1, 3])
    with torch.no_grad():
        expected = module(torch.as_tensor(x)[None])[0].numpy()
    np.testing.assert_allclose(ran_in_jax(module, x), expected, rtol=1e-5, atol=1e-5)


def test_an_operation_without_a_counterpart_is_named():
    module = nn.Sequential(nn.Linear(6, 6), Code(lambda p, x: torch.special.bessel_j0(x + p)))
    with pytest.raises(UnknownLimitError, match=r"module `1` \(Code\), aten\.special_bessel_j0.*no counterpart"):
        ran_in_jax(module, np.ones(6, np.float32))


@pytest.mark.parametrize(
    ("values", "at_1000"), [((5, 5, 5), 5), ((96, 192, 288), 1000), ((97, 193, 289), 1001), ((48, 96, 144), 500)]
)
def test_sizes_continued_to_any_width(values, at_1000):
    assert lifted_integer(values, (96, 192, 288), "a size")(1000) == at_1000


def test_sizes_that_are_not_affine_are_refused():
    with pytest.raises(UnknownLimitError, match="not affine"):
        lifted_integer((96**2, 192**2, 288**2), (96, 192, 288), "a size")


@pytest.mark.parametrize(
    "law", [lambda n: 0.3, lambda n: n**-0.5, lambda n: -3.0 * n**0.25, lambda n: 2 / (n + 10), lambda n: 1 / (3 * n)]
)
def test_numbers_continued_to_any_width(law):
    value = lifted_number([law(n) for n in (96, 192, 288)], (96, 192, 288), "a number")(2**44)
    assert value == pytest.approx(law(2**44), rel=1e-12)


def test_numbers_of_another_kind_are_refused():
    with pytest.raises(UnknownLimitError, match="no power of the width"):
        lifted_number([np.log(n) for n in (96, 192, 288)], (96, 192, 288), "a number")


LAWS = {
    "uniform": (lambda w: nn.init.uniform_(w, -1, 3), 1.0, 4 / 12**0.5),
    "normal": (lambda w: nn.init.normal_(w, 0.5, 0.2), 0.5, 0.2),
    "of the tensor": (lambda w: w.data.normal_(0, 2).mul_(0.5).add_(1), 1.0, 1.0),
    "kaiming uniform": (lambda w: nn.init.kaiming_uniform_(w, nonlinearity="relu"), 0.0, (2 / 8) ** 0.5),
    "kaiming normal": (lambda w: nn.init.kaiming_normal_(w, mode="fan_out", nonlinearity="relu"), 0.0, (2 / 96) ** 0.5),
    "glorot": (lambda w: nn.init.xavier_normal_(w, gain=2.0), 0.0, 2 * (2 / (8 + 96)) ** 0.5),
    "glorot uniform": (lambda w: nn.init.xavier_uniform_(w), 0.0, (2 / (8 + 96)) ** 0.5),
    "truncated far out": (lambda w: nn.init.trunc_normal_(w, std=0.02), 0.0, 0.02),
    "constant": (lambda w: nn.init.constant_(w, 0.7), 0.7, 0.0),
    "copied": (lambda w: w.data.copy_(torch.randn(w.shape) * 3), 0.0, 3.0),
    "set": (lambda w: setattr(w, "data", 1 - torch.rand(w.shape) / 2), 0.75, 0.5 / 12**0.5),
    "scaled in place": (lambda w: w.data.normal_().__imul__(0.5).__isub__(1), -1.0, 0.5),
    "by erfinv": (lambda w: w.data.uniform_(-1, 1).erfinv_().mul_(2**0.5), 0.0, 1.0),
}


def a_layer(initialise):
    def build(n):
        layer = nn.Linear(8, n)
        with torch.no_grad():
            initialise(layer.weight)
        return layer

    return build


@pytest.mark.parametrize("name", LAWS)
def test_laws_are_read_from_the_calls_of_the_initialiser(name):
    initialise, mean, std = LAWS[name]
    law, shape, _ = TorchBuilder(a_layer(initialise), None, "ntk")._law("weight", 96)
    assert shape == (96, 8)
    assert float(law.mean) == pytest.approx(mean, rel=1e-9) and law.variance**0.5 == pytest.approx(std, rel=1e-9)


@pytest.mark.parametrize(
    "initialise",
    [nn.init.orthogonal_, nn.init.trunc_normal_, nn.init.eye_,
     lambda w: w[:, 0].zero_(), lambda w: w.data.bernoulli_(0.5),
     lambda w: w.data.copy_(torch.randn(1, 8).expand(96, 8))],
    ids=["orthogonal", "truncated", "identity", "a part", "coins", "repeated"],
)  # fmt: skip
def test_laws_that_are_not_known_are_refused(initialise):
    with pytest.raises(UnknownLimitError, match=r"law of parameter 'weight'.*wl\.normal"):
        TorchBuilder(lambda n: a_layer(initialise)(96), None, "ntk").program()


def test_values_that_do_not_have_the_law_that_was_read_are_refused():
    """Whatever changes an array behind the back of PyTorch."""

    def initialise(weight):
        weight.numpy()[:] *= 2

    with pytest.raises(ValueError, match="standard deviation"):
        TorchBuilder(a_layer(initialise), None, "ntk")
