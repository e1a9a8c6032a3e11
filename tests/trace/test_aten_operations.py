"""Operations of PyTorch, with their derivatives, beside PyTorch's own; and what of them has an infinite limit."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import widelimit as wl
from widelimit.fields import UnknownLimitError

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402


class Applied(nn.Module):
    """Functions of one random hidden layer, beside each other."""

    def __init__(self, functions):
        super().__init__()
        self.first, self.functions = nn.Linear(5, 12), functions

    def forward(self, x):
        h = torch.tanh(self.first(x))
        return torch.cat([function(h).flatten(1) for function in self.functions], 1)


def image(h):
    return h.reshape(-1, 1, 3, 4)


def square(h):
    return h[:, :9].reshape(-1, 3, 3)


def positive(h):
    return square(h) @ square(h).mT + 0.3 * torch.eye(3, dtype=h.dtype)


def changed(h, place, values, copy=True):
    h = h.clone() if copy else h
    h[place] = values
    return h


def points(shape, dtype=torch.float64):
    """Some of them outside of the image."""
    return torch.as_tensor(np.random.default_rng(1).uniform(-1.3, 1.3, shape), dtype=dtype)


def resized(sizes, mode, **how):
    return lambda h: F.interpolate(h.reshape(-1, 1, *sizes[0]), mode=mode, **sizes[1], **how)


def sampled(mode, beyond, aligned):
    return lambda h: F.grid_sample(image(h), points((1, 3, 3, 2)), mode, beyond, aligned)


def cut_by_maxima(h):
    values, places = F.max_pool2d(h.reshape(-1, 1, 2, 6), 2, return_indices=True)
    return F.max_unpool2d(values, places, [2, 2])


ZERO, FIXED = torch.tensor([0]), torch.tensor([[0, 3, 3, 1]])
REPEATED = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]])
FIVE = torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.5]], dtype=torch.float64)


def reduced(reduce, include_self):
    return lambda h: (FIVE + h[:, :5]).scatter_reduce(1, REPEATED, h, reduce, include_self=include_self)


OPERATIONS = {
    "picked": [
        lambda h: h.gather(-1, FIXED),
        lambda h: image(h).gather(2, torch.tensor([[[[2, 0, 1]]]])),
        lambda h: h.take_along_dim(FIXED, 1),
        lambda h: h.unfold(1, 3, 2),
        lambda h: image(h)[0].diagonal(1, 1, 2),
        lambda h: square(h).diagonal(-1, 2, 1),
        lambda h: square(h)[0][tuple(torch.tril_indices(3, 3))][None],
        lambda h: F.unfold(image(h), 2),
        lambda h: F.cross_entropy(h, torch.tensor([2]), reduction="none")[:, None],
        lambda h: h[:, torch.tensor([True, False] * 6)],
    ],
    "put": [
        lambda h: torch.zeros(1, 12, dtype=h.dtype).scatter(-1, torch.arange(11, -1, -1)[None], h),
        lambda h: h.scatter(1, FIXED[:, 2:], 2.0),
        lambda h: changed(h, (slice(None), slice(0, 3)), h[:, 3:6]),
        lambda h: changed(h, (slice(None), slice(1, 12, 4)), h[:, 3:6] ** 2),
        lambda h: changed(h, (slice(None), [0, -2]), h[:, 3:5] ** 2),
        lambda h: changed(h, (slice(None), 4), h[:, 0] ** 2),
        lambda h: changed(h, h > 0, 0.25),
        lambda h: changed(image(h), (slice(None), slice(None), [0, 2], [1, 3]), h[:, :2] ** 2),
        lambda h: h.masked_scatter(h > 0, h.flip(1) ** 2),
        lambda h: square(h)[0].diagonal_scatter(h[0, :2] ** 2, 1)[None],
        lambda h: h.select_scatter(h[:, 0] ** 2, 1, -1) + h.roll(2) + h.roll(-1, 1),
        lambda h: h.put(FIXED[:, :2], h[:, 4:6] ** 2) * h.put(FIXED[:, 1:3], h[:, :2], accumulate=True),
        lambda h: h.index_copy(1, FIXED[0, :2], h[:, 4:6]).index_fill(1, FIXED[0, 3:], 1.0),
    ],
    "reduced": [
        lambda h: (FIVE + h[:, :5]).scatter_add(-1, REPEATED, h),
        lambda h: (FIVE + h[:, :5]).index_add(1, REPEATED[0], h),
        lambda h: image(h).index_put((ZERO, ZERO, FIXED[0, :1]), h[:, :4] ** 2, accumulate=True),
        lambda h: F.fold(F.unfold(image(h), 2), (3, 4), 2),
        *[reduced(how, own) for how in ("sum", "mean", "prod", "amax", "amin") for own in (True, False)],
        lambda h: h.scatter_reduce(1, FIXED[:, :2], h[:, 4:6], "prod"),
    ],
    "ordered": [
        lambda h: h.sort(-1, descending=True).values,
        lambda h: torch.sort(image(h), dim=2, stable=True).values * image(h).argsort(2),
        lambda h: h.gather(-1, h.argsort(-1)) * h.argsort(-1, descending=True),
        lambda h: h.topk(3, -1).values * h.topk(3, -1, largest=False).indices,
        lambda h: image(h).topk(2, 2, largest=False)[0],
        lambda h: h.gather(-1, h.argmax(-1, keepdim=True)) + h.argmin()[None, None],
        lambda h: image(h).max(2, keepdim=True)[0] + image(h).max(2, keepdim=True)[1] + image(h).min(2)[1],
        lambda h: h.kthvalue(2, -1, keepdim=True)[0] + h.kthvalue(4, -1)[1],
        lambda h: image(h).median(-1)[0] + image(h).median(2).indices[..., :3] * h.median(),
        lambda h: h.quantile(0.3, -1, keepdim=True),
        lambda h: h * torch.bucketize(h, torch.tensor([-0.5, 0.0, 0.5], dtype=h.dtype), right=True),
        lambda h: h * torch.searchsorted(torch.arange(-3.0, 3.0, dtype=h.dtype)[None] / 4, h),
    ],
    "running": [
        lambda h: h.cumprod(-1),
        lambda h: image(h).cummax(2)[0] * image(h).cummax(2)[1],
        lambda h: h.cummin(1).values,
        lambda h: h.logcumsumexp(-1),
    ],
    "functions": [
        lambda h: torch.fmod(h, 0.5) + torch.fmod(h, h.flip(1)) + torch.fmod(2 * h, -0.3),
        lambda h: torch.erfinv(0.9 * h) + torch.special.ndtri(h.sigmoid()) + torch.special.log_ndtr(3 * h),
        lambda h: (
            torch.lgamma(h.abs() + 1) + torch.digamma(h + 10) + torch.polygamma(2, h + 2)
        ),  # far from 0: PyTorch's trigamma is off by 1e-8
        lambda h: torch.hypot(h, h + 2) + torch.fmin(h, h.flip(1)) + torch.fmax(h, 0 * h) + h.copysign(h.flip(1)),
        lambda h: torch.special.i0(h) + torch.special.i0e(h) + torch.special.i1(h) + torch.special.i1e(h),
        lambda h: torch.special.entr(h.abs()) + torch.special.xlog1py(h, h.abs()) + torch.ldexp(h, torch.tensor(2)),
        lambda h: torch.special.gammainc(torch.tensor(1.5, dtype=h.dtype), h.abs()) * torch.signbit(h),
        lambda h: F.rms_norm(h, (12,)) + F.rms_norm(1e-7 * h, (12,)),
        lambda h: h * h.sum().item() + torch.empty_like(h).fill_(2.0) * torch.empty(12, dtype=h.dtype).fill_(0.5),
    ],
    "complex": [
        lambda h: torch.fft.rfft(h).abs(),
        lambda h: torch.view_as_real(torch.fft.fft(h, norm="ortho")) * 2,
        lambda h: torch.fft.irfft(torch.fft.rfft(h) * torch.fft.rfft(h.flip(1)), n=12),
        lambda h: torch.fft.irfft2(torch.fft.rfft2(image(h), norm="forward") ** 2, s=(3, 3), norm="ortho"),
        lambda h: torch.fft.ifft2(torch.fft.fft2(image(h)) * image(h)).real,
        lambda h: torch.fft.hfft(torch.fft.fft(h), norm="ortho"),
        lambda h: torch.complex(h, h**2).angle() + torch.polar(h.abs(), h.flip(1)).conj().imag + h.angle(),
        lambda h: (torch.complex(h, h**2) * torch.exp(1j * h)).sgn().real,
        lambda h: torch.view_as_complex(h.reshape(1, 6, 2)).abs(),
        lambda h: torch.stft(h, 4, window=torch.ones(4, dtype=h.dtype), return_complex=True).abs(),
    ],
    "matrices": [
        lambda h: torch.linalg.solve(positive(h), h[:, :3]) + torch.linalg.det(square(h))[:, None],
        lambda h: torch.linalg.solve(positive(h), square(h), left=False),
        lambda h: torch.linalg.inv(positive(h)) + torch.linalg.matrix_exp(square(h)),
        lambda h: torch.linalg.slogdet(square(h)).logabsdet[:, None] + torch.linalg.svdvals(image(h))[:, 0],
        lambda h: torch.linalg.cholesky(positive(h)) + torch.linalg.cholesky(positive(h), upper=True),
        lambda h: torch.linalg.cholesky_ex(square(h) + 3 * torch.eye(3, dtype=h.dtype)).L,  # not symmetric
        lambda h: torch.linalg.eigvalsh(square(h)) + torch.linalg.eigh(positive(h)).eigenvectors.abs()[:, 0],
        lambda h: torch.linalg.solve_triangular(positive(h), square(h), upper=True),
        lambda h: torch.linalg.solve_triangular(positive(h), square(h), upper=False, left=False, unitriangular=True),
        lambda h: torch.cholesky_solve(square(h), positive(h).tril()) + torch.linalg.qr(square(h)).R.abs(),
        lambda h: torch.linalg.householder_product(h.reshape(-1, 4, 3), h[:, :3]),
        lambda h: F.bilinear(h[:, :3], h[:, 3:5], h[0, :12].reshape(2, 3, 2)),
    ],
    "distances": [
        *[lambda h, p=p: torch.cdist(h.reshape(-1, 4, 3), h.reshape(-1, 4, 3), p=p) for p in (1.0, 2.0, 3.0)],
        lambda h: torch.cdist(h.reshape(-1, 4, 3), h.reshape(-1, 4, 3) ** 2, p=float("inf")),
        lambda h: torch.pdist(h.reshape(4, 3))[None],
        lambda h: torch.stack([h.norm(p, -1) for p in (1, 2, 3, float("inf"))], -1),
        lambda h: torch.stack([(0 * h).norm(2, -1), (0 * h).std(-1)], -1),
    ],
    "resized": [
        resized(((12,), {"size": 7}), "linear"),
        resized(((3, 4), {"scale_factor": 2}), "bilinear"),
        resized(((3, 4), {"scale_factor": (1.7, 0.6)}), "bilinear"),
        resized(((3, 4), {"size": (5, 1)}), "bilinear", align_corners=True),
        resized(((3, 4), {"size": (2, 3)}), "bilinear", antialias=True),
        resized(((2, 2, 3), {"size": (3, 3, 5)}), "trilinear"),
        resized(((3, 4), {"scale_factor": 1.5}), "bicubic"),
        resized(((3, 4), {"size": (5, 3)}), "bicubic", align_corners=True),
        resized(((3, 4), {"size": (2, 3)}), "bicubic", antialias=True),
        lambda h: F.adaptive_max_pool2d(image(h), (2, 3)),
        lambda h: F.adaptive_max_pool1d(h[:, None], 5),
        lambda h: F.adaptive_max_pool3d(h.reshape(-1, 1, 2, 2, 3), (1, 2, 2)),
        cut_by_maxima,
    ],
    "sampled": [
        *[sampled("bilinear", beyond, False) for beyond in ("zeros", "border", "reflection")],
        *[sampled("bicubic", beyond, True) for beyond in ("zeros", "border", "reflection")],
        sampled("bilinear", "reflection", True),
        sampled("nearest", "zeros", False),
        lambda h: F.grid_sample(
            image(h), F.affine_grid(h[:, :6].reshape(-1, 2, 3), [1, 1, 2, 2], False), align_corners=False
        ),
        lambda h: F.grid_sample(h.reshape(-1, 1, 2, 2, 3), points((1, 2, 1, 2, 3)), align_corners=False),
    ],
}


def jacobian(module, x):
    """By PyTorch, of one example: (outputs, parameters)."""
    out = module(torch.as_tensor(x)[None])[0]
    rows = [torch.autograd.grad(o, list(module.parameters()), retain_graph=True) for o in out]
    return out.detach().numpy(), np.stack([np.concatenate([g.numpy().ravel() for g in row]) for row in rows])


def worst(got, expected, places):
    """Of which function the error is largest."""
    error = np.abs(got - expected).max(axis=tuple(range(got.ndim - 1)))
    return f"operation {int(places[np.argmax(error)])}, error {error.max():.1e}"


@pytest.mark.parametrize("name", OPERATIONS)
def test_values_and_kernels_are_those_of_pytorch(name, float64):
    torch.manual_seed(0)
    module = Applied(OPERATIONS[name]).double()
    x = np.random.default_rng(0).normal(size=(2, 5))
    expected, jacobians = (np.stack(a) for a in zip(*(jacobian(module, one) for one in x), strict=True))
    sizes = [function(torch.tanh(module.first(torch.as_tensor(x[:1])))).numel() for function in module.functions]
    places = np.repeat(np.arange(len(sizes)), sizes)
    f, params = wl.functional(module)
    got = np.stack([f(params, one) for one in x])
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-11, err_msg=worst(got, expected, places))
    exact = np.einsum("aop,bqp->aboq", jacobians, jacobians)
    ntk = np.asarray(wl.gram(wl.empirical_ntk(module, output="full"), x))
    ntk = ntk.reshape(2, len(places), 2, len(places)).swapaxes(1, 2) if ntk.ndim != 4 else ntk
    np.testing.assert_allclose(ntk, exact, rtol=1e-8, atol=1e-10, err_msg=worst(ntk, exact, places))


TIES = {
    "max": lambda h: h.amax(1, keepdim=True) + 2 * h.amin(1, keepdim=True) + h.max() * h.min(),
    "max of an axis": lambda h: torch.stack([h.max(1).values, h.min(1).values], 1),
    "running": lambda h: torch.cat([h.cummax(1).values, h.cummin(1).values], 1),
    "sort": lambda h: torch.cat([h.sort(dim=1, stable=True)[0], h.sort(dim=1, descending=True, stable=True)[0]], 1),
    "median of all": lambda h: h.median()[None, None],
    "scatter": lambda h: torch.cat([reduced(r, own)(h) for r in ("amax", "amin") for own in (True, False)], 1),
    "pool": lambda h: F.adaptive_max_pool2d(image(h), 2),
    "distance": lambda h: torch.cdist(h.reshape(-1, 6, 2), h.reshape(-1, 6, 2)),
    "norm": lambda h: F.normalize(h[:, ::2] - h[:, 1::2]) + (h[:, 0] - h[:, 1]).std(0, correction=0),
}


@pytest.mark.parametrize("name", TIES)
def test_ties_share_the_gradient_as_in_pytorch(name, float64):
    """Every entry of the hidden layer twice, with different weights: the same values, other gradients."""
    torch.manual_seed(0)
    module = Applied([TIES[name]]).double()
    with torch.no_grad():
        module.first.weight[1::2] = module.first.weight[::2]
        module.first.bias[1::2] = module.first.bias[::2]
    x = np.random.default_rng(0).normal(size=(2, 5))
    jacobians = np.stack([jacobian(module, one)[1] for one in x])
    ntk = np.asarray(wl.gram(wl.empirical_ntk(module, output="full"), x))
    exact = np.einsum("aop,bqp->aboq", jacobians, jacobians)
    assert np.abs(exact).max() > 0.1 and np.isfinite(exact).all()
    np.testing.assert_allclose(ntk.reshape(exact.shape), exact, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("operation", "function", "why"),
    [
        ("rand", lambda h: h * torch.rand(12), "random numbers"),
        ("rand", lambda h: h * torch.rand(12, generator=torch.Generator().manual_seed(0)), "random numbers"),
        ("randn_like", lambda h: h + torch.randn_like(h), "random numbers"),
        ("masked_select", lambda h: h.masked_select(h > 0).sum()[None, None], "values of the data"),
        ("nonzero", lambda h: h.nonzero().sum()[None, None] * h, "values of the data"),
        ("index", lambda h: changed(h, h > 0, h[h > 0] * 2), "values of a mask"),
        ("linalg_eig", lambda h: torch.linalg.eigvals(square(h)).abs(), "no counterpart"),
        ("mode", lambda h: h.mode(-1).values[None], "no counterpart"),
    ],
    ids=lambda a: a if isinstance(a, str) and " " not in a else "",
)
def test_what_stays_refused_is_named(operation, function, why):
    f, params = wl.functional(Applied([function]))
    with pytest.raises(ValueError, match=rf"aten\.{operation}\b.*{why}"):
        jax.jit(f)(params, np.ones(5, np.float32))


# Infinite width


class Mapped(nn.Module):
    """A function of positions (batch, positions, channels) between two layers."""

    def __init__(self, n, function):
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(5, n), nn.Linear(n, n), nn.Linear(n, 1, bias=False)
        nn.init.normal_(self.first.weight, std=0.4)
        self.function = function

    def forward(self, x):
        h = self.function(torch.relu(self.first(x)))
        return self.last(torch.relu(self.middle(h)).mean(1))


def channels_last(function):
    """Of images (2, 3) made of six positions, and back."""

    def on_positions(h):
        y = function(h.transpose(1, 2).reshape(1, -1, 2, 3))
        return y.reshape(*y.shape[:2], -1).transpose(1, 2)

    return on_positions


LINEAR = {
    "bilinear": channels_last(lambda h: F.interpolate(h, scale_factor=2, mode="bilinear")),
    "bilinear, corners": channels_last(lambda h: F.interpolate(h, size=(5, 2), mode="bilinear", align_corners=True)),
    "bicubic": channels_last(lambda h: F.interpolate(h, scale_factor=1.5, mode="bicubic")),
    "smoothed": channels_last(lambda h: F.interpolate(h, size=(2, 2), mode="bilinear", antialias=True)),
    "diagonal": channels_last(lambda h: h.diagonal(1, 2, 3)),
    "windows": lambda h: h.unfold(1, 3, 2).flatten(1, 1).mean(-1),
    "put": lambda h: changed(h, (slice(None), [0, 2]), h[:, 1:3] * 2),
    "slices": lambda h: changed(h, (slice(None), slice(1, None, 2)), h[:, ::2]),
    "added": lambda h: torch.zeros_like(h[:, :2]).index_add(1, torch.tensor([0, 1, 0, 0, 1, 1]), h),
}


@pytest.mark.parametrize("name", LINEAR)
def test_linear_maps_of_positions_have_the_limit_of_their_matrix(name):
    function = LINEAR[name]
    matrix = function(torch.eye(6)[None])[0]
    x = np.random.default_rng(0).normal(size=(2, 6, 5))
    limits = [
        wl.limit(lambda n, f=f: Mapped(n, f)) for f in (function, lambda h: torch.einsum("op,bpc->boc", matrix, h))
    ]
    for one, other in zip(*(wl.gram(limit.kernels, x) for limit in limits), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-6)  # PyTorch's matrix is float32


def upsampling(n):
    return nn.Sequential(
        nn.Conv2d(3, n, 3, padding=1), nn.ReLU(), nn.UpsamplingBilinear2d(scale_factor=2),
        nn.Conv2d(n, n, 3, padding=1, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(n, 1, bias=False),
    )  # fmt: skip


def test_finite_networks_that_upsample_approach_their_limit():
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 4))
    checked = wl.limit(upsampling).check(x, key=jax.random.key(0), widths=(16, 64, 256), seeds=8)
    assert -0.8 < checked.slope < -0.25
    assert checked.rows[-1].ntk_z < 4


WIDE = {
    "sort": lambda h: h.sort(-1).values,
    "topk": lambda h: h * h.topk(3, -1).values.sum(-1, keepdim=True),
    "topk of positions": lambda h: h.topk(2, 1).values,
    "median": lambda h: h * h.median(),
    "gather": lambda h: h.gather(2, torch.arange(h.shape[2] - 1, -1, -1).expand(1, 6, -1)),
    "put": lambda h: h.index_fill(2, torch.tensor([0, 1]), 1.0),
    "resized": lambda h: F.interpolate(h, size=h.shape[2], mode="linear"),
    "running": lambda h: h.cummax(-1).values,
    "running product": lambda h: h.cumprod(-1),
    "Fourier": lambda h: torch.fft.fft(h).real,
    "diagonal": lambda h: (h[..., None] * h[:, :, None]).diagonal(dim1=2, dim2=3),
    "solved": lambda h: torch.linalg.solve(2 * torch.eye(6), h),
    "random": lambda h: h * torch.rand(h.shape[-1]),
}


@pytest.mark.parametrize("name", WIDE)
def test_what_has_no_limit_is_refused(name):
    with pytest.raises(UnknownLimitError, match=r"primitive|aten\.|different operations"):
        wl.limit(lambda n: Mapped(n, WIDE[name])).nngp(np.ones((6, 5)), np.ones((6, 5)))
