"""The width seen as groups of a fixed number of channels: members are independent, and what they share is not."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl

X = np.random.default_rng(0).normal(size=(2, 4))
X[1] = 0.6 * X[0] + 0.8 * X[1]
SEQUENCES = np.stack([X, X[::-1]], axis=1)  # of two positions
EPSILON = 0.1


def _prior(n, size=8):
    return {
        "W": wl.normal((4, n), 0.5), "b": wl.normal((n,), 0.3), "U": wl.normal((4, n), 0.5),
        "V": wl.normal((n, n), n**-0.5), "few": wl.normal((n // size,), n**-0.5), "g": wl.normal((n,), 0.4),
        "r": wl.normal((n,), n**-0.5), "each": wl.normal((n // size, size, size), size**-0.5),
        "F": wl.normal((3, n, n), (3 * n) ** -0.5), "one": wl.normal((size, size), size**-0.5),
    }  # fmt: skip


def _groups(y, size=8):
    return y.reshape(*y.shape[:-1], y.shape[-1] // size, size)


def _joined(y):
    return y.reshape(*y.shape[:-2], y.shape[-2] * y.shape[-1])


def _normalised(y):
    y = y - y.mean(-1, keepdims=True)
    return y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + EPSILON)


def _layer(p, x):
    return x @ p["W"] + p["b"]


def _readout(p, y):
    return jax.nn.relu(y @ p["V"]) @ p["r"]


def _kernels(network, inputs=X, **options):
    k = wl.limit(network, _prior, lr="ntk", **options).kernels(*inputs)
    return np.array(k)


SAME = {  # name: (in groups, without)
    "apart and together again": (
        lambda p, x: _readout(p, _joined(jax.nn.relu(_groups(_layer(p, x))))),
        lambda p, x: _readout(p, jax.nn.relu(_layer(p, x))),
    ),
    "residual": (
        lambda p, x: _readout(p, _layer(p, x) + _joined(jnp.square(_groups(_layer(p, x))))),
        lambda p, x: _readout(p, _layer(p, x) + jnp.square(_layer(p, x))),
    ),
    "sum of each group": (
        lambda p, x: jax.nn.relu(_groups(_layer(p, x)).sum(-1)) @ p["few"],
        lambda p, x: jax.nn.relu(8**0.5 * _layer(p, x)[: p["few"].size]) @ p["few"],
    ),
    "group of eight widths": (
        lambda p, x: _readout(p, jax.nn.relu(_layer(p, x).reshape(8, -1)).reshape(-1)),
        lambda p, x: _readout(p, jax.nn.relu(_layer(p, x))),
    ),
    "two of a pair": (
        lambda p, x: (lambda h: (jax.nn.relu(h[..., 0]) * h[..., 1]) @ p["r"][: h.shape[-2]])(_groups(_layer(p, x), 2)),
        lambda p, x: (
            (jax.nn.relu(_layer(p, x)) * (x @ p["U"] + p["g"] * 0.75))[: p["r"].size // 2] @ p["r"][: p["r"].size // 2]
        ),
    ),
    "groups of groups": (
        lambda p, x: jax.nn.relu(_groups(_groups(_layer(p, x), 4).sum(-1), 2).sum(-1)) @ p["few"],
        lambda p, x: jax.nn.relu(8**0.5 * _layer(p, x)[: p["few"].size]) @ p["few"],
    ),
    "two axes of a group": (
        lambda p, x: jax.nn.relu(_layer(p, x).reshape(-1, 2, 4).sum((1, 2))) @ p["few"],
        lambda p, x: jax.nn.relu(8**0.5 * _layer(p, x)[: p["few"].size]) @ p["few"],
    ),
    "parameter in groups": (
        lambda p, x: _readout(p, _joined(jax.nn.relu(jnp.einsum("i,igk->gk", x, _groups(p["W"])) + _groups(p["b"])))),
        lambda p, x: _readout(p, jax.nn.relu(_layer(p, x))),
    ),
    "joined, then a sum over the width": (
        lambda p, x: _readout(p, _layer(p, x) * jnp.square(_joined(_groups(_layer(p, x)) * np.arange(8.0))).mean()),
        lambda p, x: _readout(p, _layer(p, x) * jnp.square(_layer(p, x)).mean() * np.mean(np.arange(8.0) ** 2)),
    ),
    "a matrix for each group": (
        lambda p, x: _joined(jnp.einsum("gk,gkl->gl", _groups(_layer(p, x)), p["each"])) @ p["r"],
        lambda p, x: _layer(p, x) @ p["V"] @ p["r"],
    ),
    "joined, then an inner product": (
        lambda p, x: (
            _readout(p, _layer(p, x) * (_joined(_groups(_layer(p, x)) * np.arange(8.0)) @ _layer(p, x))) / p["r"].size
        ),
        lambda p, x: _readout(p, _layer(p, x) * jnp.square(_layer(p, x)).mean() * 3.5),
    ),
    "constants in groups": (
        lambda p, x: _readout(p, _joined(jax.nn.relu(_groups(_layer(p, x)) * _groups(jnp.full(p["r"].shape, 2.0))))),
        lambda p, x: _readout(p, jax.nn.relu(2 * _layer(p, x))),
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_members_are_independent_channels(name):
    first, second = SAME[name]
    np.testing.assert_allclose(_kernels(first), _kernels(second), rtol=1e-10)


def _law(function, size, count=100_000):
    """``E[f f']`` and ``E[df df']`` over one group: fields u and tangents of one law, and their standard errors."""
    cov = 0.25 * X @ X.T + 0.09
    draws = np.random.default_rng(1).normal(size=(2, count, size, 2)) @ np.linalg.cholesky(cov).T
    u, du = jnp.moveaxis(jnp.asarray(draws), -1, 1)
    ys, dys = zip(*(jax.jvp(function, (u[i],), (du[i],)) for i in (0, 1)), strict=True)
    products = [np.asarray((a * b).reshape(count, -1).mean(-1)) for a, b in (ys, dys)]
    return [(v.mean(), v.std() / count**0.5) for v in products]


GROUPS = {
    "norm": lambda h: jnp.tanh(_normalised(h)),
    "softmax": lambda h: 8 * jax.nn.softmax(h, axis=-1),
    "largest": lambda h: jax.nn.relu(h - h.max(-1, keepdims=True) + 1),
}


@pytest.mark.parametrize("size", [2, pytest.param(8, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", GROUPS)
def test_what_members_share_agrees_with_sampled_groups(name, size):
    (nngp, nngp_error), (slope, slope_error) = _law(GROUPS[name], size)

    def network(p, x):
        return _joined(GROUPS[name](_groups(_layer(p, x), size))) @ p["r"]

    found = _kernels(network)
    assert abs(found[0] - nngp) < 3 * nngp_error + 2e-3 * nngp
    assert abs(found[1] - nngp - slope) < 3 * np.hypot(nngp_error, slope_error) + 2e-3 * found[1]
    apart = _kernels(lambda p, x: jnp.tanh(_layer(p, x)) @ p["r"])
    assert abs(apart[0] - nngp) > 20 * nngp_error


@pytest.mark.slow
@pytest.mark.parametrize("place", ["before", "residual", "gain"])
def test_finite_networks(place):
    def network(p, x):
        h = _layer(p, x)
        y = _joined(jax.nn.relu(_normalised(_groups(h))))
        y = {"before": y, "residual": y + h, "gain": y * (1 + p["g"])}[place]
        return jnp.tanh(y @ p["V"]) @ p["r"]

    check = wl.limit(network, _prior, lr="ntk").check(X, key=jax.random.key(1), widths=(64, 512), seeds=32)
    assert max(check.rows[1].nngp_z, check.rows[1].ntk_z) < 3, str(check)
    assert -0.7 < check.slope < -0.3


def _two_sizes(p, x):
    return _readout(p, _joined(_normalised(_groups(_layer(p, x)))) + _joined(_normalised(_groups(_layer(p, x), 4))))


@pytest.mark.slow
def test_attention_within_groups_agrees_with_finite_networks():
    def network(p, x):
        h, k = (_groups(x @ p[name], 2) for name in "WU")
        a = jax.nn.softmax(jnp.einsum("tgk,sgk->gts", h, k) / 2**0.5, -1)
        return jnp.tanh(_joined(jnp.einsum("gts,sgk->tgk", a, h)) @ p["V"]).mean(0) @ p["r"]

    limit = wl.limit(network, _prior, lr="ntk", points=1024)
    check = limit.check(SEQUENCES, key=jax.random.key(1), widths=(512,), seeds=48)
    assert max(check.rows[0].nngp_z, check.rows[0].ntk_z) < 3, str(check)


REFUSED = {
    "groups of two sizes": (_two_sizes, r"different axes merged|groups of another size"),
    "joined, then a convolution": (
        lambda p, x: jax.lax.conv_general_dilated(
            _joined(_normalised(_groups(x[:, None] * p["g"] + p["b"])))[None], p["F"], (1,), "SAME",
            dimension_numbers=("NWC", "WIO", "NWC"),
        )[0].mean(0) @ p["r"],
        "merged with the width",
    ),
    "shuffled": (lambda p, x: _readout(p, jax.nn.relu(_groups(x @ p["W"]).T.reshape(-1)) + x @ p["W"]), "groups of"),
    "cut within a group": (
        lambda p, x: jax.nn.relu(_groups((x @ p["W"])[4:-4]).sum(-1)) @ p["few"][1:],
        "hold no whole number of groups",
    ),
    "one matrix for all groups": (
        lambda p, x: _readout(p, _joined(_groups(x @ p["W"]) @ p["one"])),
        "stays random|along a finite axis only",
    ),
    "one parameter with and without groups": (
        lambda p, x: _readout(p, _joined(_normalised(_groups(jax.nn.relu(x @ p["W"]) @ p["V"])))),
        "reshaped in different ways",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_followed_is_refused(name):
    network, message = REFUSED[name]
    with pytest.raises(wl.UnknownLimitError, match=message):
        _kernels(network)
