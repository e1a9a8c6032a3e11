"""Derivatives of PyTorch modules that are not those of forward: PyTorch's own, or refused."""

from __future__ import annotations

import numpy as np
import pytest

import widelimit as wl
from widelimit.fields import UnknownLimitError

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

TOKENS = np.array([[0, 1, 2, 0], [0, 0, 3, 3], [1, 2, 3, 4]])


class Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx, h):
        return torch.round(4 * h) / 4

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class Applied(nn.Module):
    def __init__(self, function, n=6):
        super().__init__()
        self.first, self.last, self.function = nn.Linear(5, n), nn.Linear(n, 2), function

    def forward(self, x):
        return self.last(self.function(torch.tanh(self.first(x))))


def jacobian(module, x):
    rows = [torch.autograd.grad(o, list(module.parameters()), retain_graph=True) for o in module(x[None])[0]]
    return np.stack([np.concatenate([g.numpy().ravel() for g in row]) for row in rows])


def agrees(module, X):
    J = np.stack([jacobian(module, torch.as_tensor(x)) for x in X])
    got = wl.gram(wl.empirical_ntk(module, output="full"), X)
    np.testing.assert_allclose(got, np.einsum("aop,bqp->aboq", J, J), rtol=1e-9, atol=1e-12)


def halved(h):
    h = 1 * h
    if h.requires_grad:
        h.register_hook(lambda g: g / 2)
    return h


def without_gradients(h):
    with torch.inference_mode():
        factor = 2 * h
    return h + factor


def hooked(how):
    module = Applied(torch.sin)
    how(module)
    return module


REFUSED = {
    "Rounded": lambda: Applied(Rounded.apply),
    "register_hook": lambda: Applied(halved),
    "inference_mode": lambda: Applied(without_gradients),
    "detach_": lambda: Applied(lambda h: h * (1 * h).detach_()),
    "no_grad": lambda: Applied(torch.no_grad()(torch.sin)),
    "first.weight": lambda: hooked(lambda m: m.first.weight.register_hook(lambda g: g / 2)),
    "register_full_backward_hook": lambda: hooked(
        lambda m: m.last.register_full_backward_hook(lambda _, into, out: (into[0] / 2,))
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_backward_alone_knows_is_refused(name):
    x = np.ones((1, 5), np.float32)
    with pytest.raises(ValueError, match=rf"{name}.*Remedy"):
        wl.gram(wl.empirical_ntk(REFUSED[name]()), x)
    if name == "Rounded":  # of infinite width too
        with pytest.raises(UnknownLimitError, match=name):
            wl.gram(wl.limit(lambda n: Applied(Rounded.apply, n)).ntk, x)


KEPT = {
    "straight through": lambda: Applied(lambda h: h + (torch.round(4 * h) / 4 - h).detach()),
    "forward hook": lambda: hooked(lambda m: m.first.register_forward_hook(lambda _, into, out: 2 * out)),
    "epsilon of the type": lambda: Applied(lambda h: nn.functional.rms_norm(1e-3 * h, (6,))),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_forward_does_is_kept(name, float64):
    torch.manual_seed(0)
    agrees(KEPT[name]().double(), np.random.default_rng(0).normal(size=(3, 5)))


class Read(nn.Module):
    """Rows of a table, in one vector."""

    def __init__(self, table, read):
        super().__init__()
        self.table, self.last, self.read = table, nn.Linear(4, 2), read

    def forward(self, tokens):
        return self.last(torch.tanh(self.read(self.table, tokens)))


def bags(starts, **how):
    """Bags of a flat list, of which the first and the last are read."""

    def read(table, tokens):
        found = table(tokens[0], torch.tensor(starts), **how)
        return found[:1] + 2 * found[-1:]

    return read


def rows(table, tokens):
    return table(tokens).sum(1)


def whole(table, tokens):
    return table(tokens)


def weighted(table, tokens):
    return table(tokens, per_sample_weights=torch.tensor([[0.1, 0.2, -0.3, 0.4]], dtype=torch.float64))


TABLES = {
    "rows": (nn.Embedding, {}, rows),
    "rows, padded": (nn.Embedding, {"padding_idx": 0}, rows),
    "sum, padded": (nn.EmbeddingBag, {"mode": "sum", "padding_idx": 0}, whole),
    "mean, padded": (nn.EmbeddingBag, {"mode": "mean", "padding_idx": 0}, whole),
    "max, padded": (nn.EmbeddingBag, {"mode": "max", "padding_idx": 0}, whole),
    "weighted": (nn.EmbeddingBag, {"mode": "sum"}, weighted),
    "an empty bag": (nn.EmbeddingBag, {"mode": "mean"}, bags([0, 2, 2])),
    "max of bags": (nn.EmbeddingBag, {"mode": "max"}, bags([0, 3])),
    "with the end": (nn.EmbeddingBag, {"mode": "sum", "include_last_offset": True}, bags([0, 1, 4])),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables(name, float64):
    kind, options, read = TABLES[name]
    torch.manual_seed(0)
    agrees(Read(kind(11, 4, **options), read).double(), TOKENS)


def test_gradients_by_frequency_are_refused():
    module = Read(nn.Embedding(11, 4, scale_grad_by_freq=True), rows)
    with pytest.raises(ValueError, match=r"scale_grad_by_freq=True.*Remedy"):
        wl.gram(wl.empirical_ntk(module), TOKENS)


def test_a_bag_has_the_limit_of_its_mean():
    def bag(n):
        return nn.Sequential(nn.EmbeddingBag(11, n), nn.ReLU(), nn.Linear(n, 1))

    class Mean(nn.Module):
        def __init__(self, n):
            super().__init__()
            self.table, self.last = nn.Embedding(11, n), nn.Linear(n, 1)

        def forward(self, tokens):
            return self.last(torch.relu(self.table(tokens).mean(1)))

    for one, other in zip(*(wl.gram(wl.limit(b).kernels, TOKENS) for b in (bag, Mean)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
