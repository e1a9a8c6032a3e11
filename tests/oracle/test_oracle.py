"""The oracle against plain quadrature, plain Monte Carlo and stored 60-digit values."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import scipy.special
from mpmath import mp, mpf

import oracle

# name -> (moments, phi, phi'): the functions written once more, in NumPy.
CASES = {
    "relu": (oracle.relu(), lambda z: np.maximum(z, 0), lambda z: 1.0 * (z > 0)),
    "leaky": (oracle.leaky_relu(0.25), lambda z: np.where(z > 0, z, z / 4), lambda z: np.where(z > 0, 1, 0.25)),
    "abs": (oracle.abs_(), np.abs, np.sign),
    "sign": (oracle.sign(), np.sign, np.zeros_like),
    "step": (oracle.step(), lambda z: 1.0 * (z > 0), np.zeros_like),
    "erf": (
        oracle.erf(0.5, 1.25, 0.75),
        lambda z: 0.5 * scipy.special.erf(1.25 * z) + 0.75,
        lambda z: 1.25 / np.sqrt(np.pi) * np.exp(-((1.25 * z) ** 2)),
    ),
    "gelu": (
        oracle.gelu(),
        lambda z: z * scipy.special.ndtr(z),
        lambda z: scipy.special.ndtr(z) + z * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi),
    ),
    "sin": (oracle.sin(1.5, 0.75, 0.5), lambda z: 1.5 * np.sin(0.75 * z + 0.5), lambda z: 1.125 * np.cos(0.75 * z + 0.5)),
    "cos": (oracle.cos(1.5, 0.75, 0.5), lambda z: 1.5 * np.cos(0.75 * z + 0.5), lambda z: -1.125 * np.sin(0.75 * z + 0.5)),
    "rbf": (
        oracle.rbf(0.375),
        lambda z: np.sqrt(2) * np.sin(np.sqrt(0.75) * z + np.pi / 4),
        lambda z: np.sqrt(1.5) * np.cos(np.sqrt(0.75) * z + np.pi / 4),
    ),
    "exp": (oracle.exp(0.5, 0.75), lambda z: 0.5 * np.exp(0.75 * z), lambda z: 0.375 * np.exp(0.75 * z)),
    "gaussian": (oracle.gaussian(2.0, 0.5), lambda z: 2 * np.exp(-(z**2) / 2), lambda z: -2 * z * np.exp(-(z**2) / 2)),
    "polynomial": (oracle.polynomial([1, -0.5, 0.25, 2]), lambda z: 1 - z / 2 + z**2 / 4 + 2 * z**3, lambda z: -0.5 + z / 2 + 6 * z**2),
    "hermite": (oracle.hermite(3), lambda z: (z**3 - 3 * z) / np.sqrt(6), lambda z: (3 * z**2 - 3) / np.sqrt(6)),
    "rectified": (oracle.rectified_monomial(3), lambda z: np.maximum(z, 0) ** 3, lambda z: 3 * np.maximum(z, 0) ** 2),
    "tanh": (oracle.tanh(20), np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    "sigmoid": (oracle.sigmoid(20), scipy.special.expit, lambda z: scipy.special.expit(z) * scipy.special.expit(-z)),
    "softplus": (oracle.softplus(20), lambda z: np.logaddexp(0, z), scipy.special.expit),
    "silu": (
        oracle.silu(20),
        lambda z: z * scipy.special.expit(z),
        lambda z: scipy.special.expit(z) * (1 + z * scipy.special.expit(-z)),
    ),
    "elu": (oracle.elu(0.75), lambda z: np.where(z > 0, z, 0.75 * np.expm1(z)), lambda z: np.where(z > 0, 1, 0.75 * np.exp(z))),
    "selu": (
        oracle.selu(),
        lambda z: 1.0507009873554805 * np.where(z > 0, z, 1.6732632423543772 * np.expm1(z)),
        lambda z: 1.0507009873554805 * np.where(z > 0, 1, 1.6732632423543772 * np.exp(z)),
    ),
}  # fmt: skip
SELU = ("1.0507009873554804934193349852946", "1.6732632423543772848170429916717")
COVARIANCES = [(1.25, 0.5, 0.375), (0.75, 2.0, -1.0), (1.0, 1.0, 0.0)]


def panels(cuts: list[np.ndarray], order: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes and weights (last axis) on each interval between neighbouring cuts."""
    t, w = np.polynomial.legendre.leggauss(order)
    middle = [(a + b) / 2 for a, b in itertools.pairwise(cuts)]
    half = [(b - a) / 2 for a, b in itertools.pairwise(cuts)]
    nodes = np.concatenate(
        [np.asarray(m)[..., None] + np.asarray(h)[..., None] * t for m, h in zip(middle, half, strict=True)],
        -1,
    )
    weights = np.concatenate([np.asarray(h)[..., None] * w for h in half], -1)
    return nodes, weights * np.exp(-(nodes**2) / 2) / np.sqrt(2 * np.pi)


def plane(f, p: float, q: float, k: float) -> float:
    """E[f(u) f(v)] by Gauss-Legendre quadrature of the plane, cut where u or v is 0."""
    reach = 12.0
    a, along = np.sqrt(p), k / np.sqrt(p)
    across = np.sqrt(q - along**2)
    z1, w1 = panels([np.array(c) for c in (-reach, -reach / 2, 0.0, reach / 2, reach)])
    kink = np.clip(-along * z1 / across, -reach, reach)
    z2, w2 = panels([np.full_like(z1, -reach), (kink - reach) / 2, kink, (kink + reach) / 2, np.full_like(z1, reach)])
    return float(np.sum(w1 * f(a * z1) * np.sum(w2 * f(along * z1[:, None] + across * z2), -1)))


@pytest.mark.parametrize("name", CASES)
def test_moments_agree_with_quadrature_of_the_plane(name):
    moments, phi, slope = CASES[name]
    for p, q, k in COVARIANCES:
        with mp.workdps(40):
            value, value_of_slopes = moments(mpf(p), mpf(q), mpf(k))
        scale = np.sqrt(plane(phi, p, p, 0.99 * p) * plane(phi, q, q, 0.99 * q))
        assert abs(plane(phi, p, q, k) - float(value)) < 1e-11 * scale
        assert abs(plane(slope, p, q, k) - float(value_of_slopes)) < 1e-11 * max(1, float(value_of_slopes))


@pytest.mark.parametrize("name", sorted(set(CASES) - {"sign", "step"}))
def test_the_second_moment_is_the_derivative_of_the_first(name):
    """Price's theorem, d E[phi phi] / dk = E[phi' phi'], for functions without jumps."""
    moments, _, _ = CASES[name]
    p, q, k = map(mpf, COVARIANCES[0])
    digits = 15 if name in {"tanh", "sigmoid", "softplus", "silu"} else 40
    with mp.workdps(80):
        h = mpf(10) ** (-4 if digits == 15 else -14)
        f = [moments(p, q, k + j * h)[0] for j in (-3, -2, -1, 1, 2, 3)]
        stencil = (-f[0] + 9 * f[1] - 45 * f[2] + 45 * f[3] - 9 * f[4] + f[5]) / (60 * h)
        assert abs(stencil - moments(p, q, k)[1]) < mpf(10) ** -digits


@pytest.mark.parametrize("name", ["relu", "leaky", "abs", "sign", "elu", "tanh", "rectified", "gelu"])
def test_equal_and_opposite_arguments(name):
    """At correlation 1 and -1 the plane becomes a line."""
    moments, phi, slope = CASES[name]
    z, w = panels([np.array(c) for c in (-12.0, -6.0, 0.0, 6.0, 12.0)])
    p = 1.25
    for sign in (1, -1):
        with mp.workdps(40):
            value, value_of_slopes = moments(mpf(p), mpf(p), sign * mpf(p))
        u = np.sqrt(p) * z
        assert abs(np.sum(w * phi(u) * phi(sign * u)) - float(value)) < 1e-12
        assert abs(np.sum(w * slope(u) * slope(sign * u)) - float(value_of_slopes)) < 1e-12


@pytest.mark.parametrize(
    "make",
    [oracle.relu, oracle.abs_, oracle.sign, oracle.erf, oracle.gelu, pytest.param(oracle.elu, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("angle", [0.0, 1e-8, 1e-3, np.pi - 1e-3, np.pi])
def test_fifty_digits_survive_thirty_layers(make, angle):
    x1, x2 = [1.0, 0.0, 0.0], [float(np.cos(angle)), float(np.sin(angle)), 0.0]
    few, many = (oracle.fully_connected(make(), x1, x2, depth=30, W_std=1.5, digits=digits) for digits in (60, 120))
    with mp.workdps(200):
        for a, b in zip(few, many, strict=True):
            assert abs(a - b) <= mpf(10) ** -50 * abs(b)


@pytest.mark.parametrize("depth", [1, 3, 10, 30])
def test_relu_diagonal_is_known(depth):
    """``W_std^2 = 2`` without bias keeps ``K(x, x) = 2 |x|^2 / d``, and the NTK is ``(depth + 1) K``."""
    x = [0.5, -1.0, 2.0]
    with mp.workdps(200):
        K, T = oracle.fully_connected(oracle.relu(), x, x, depth=depth, W_std=mp.sqrt(2))
        assert abs(K - mpf(2) * mpf("5.25") / 3) < mpf(10) ** -60
        assert abs(T - (depth + 1) * K) < mpf(10) ** -58


def test_deep_linear_network():
    with mp.workdps(100):
        K, T = oracle.fully_connected(oracle.polynomial([0, 1]), [1.0, 2.0], [3.0, -0.5], depth=4, W_std=1.5)
        assert abs(K - mpf("1.5") ** 10) < mpf(10) ** -60
        assert abs(T - 5 * K) < mpf(10) ** -58


def test_zero_input_without_bias_gives_zero():
    for make in (oracle.relu, oracle.erf, oracle.gelu, oracle.sign):
        assert oracle.fully_connected(make(), [0.0, 0.0], [1.0, 2.0], depth=2, W_std=1.5) == (0, 0)


@pytest.mark.parametrize("name", ["relu", "erf", "gelu", "tanh", "sin"])
def test_one_hidden_layer_against_monte_carlo(name):
    """The mean of the empirical kernels over initialisations is the limit at any width, for one hidden layer."""
    moments, phi, slope = CASES[name]
    rng = np.random.default_rng(3)
    x1, x2 = np.array([1.0, -0.5, 0.25]), np.array([0.5, 0.75, 1.5])
    W_std, b_std, neurons = 1.5, 0.5, 1_000_000
    W, b = rng.normal(size=(3, neurons)), rng.normal(size=neurons)
    u, v = (W_std / np.sqrt(3) * x @ W + b_std * b for x in (x1, x2))
    readout = rng.normal(size=neurons)
    feature = W_std**2 * phi(u) * phi(v)  # also what training the readout adds to the NTK
    inner = W_std**2 * x1 @ x2 / 3 + b_std**2
    tangent = feature + W_std**2 * readout**2 * slope(u) * slope(v) * inner
    exact = oracle.fully_connected(moments, x1, x2, depth=1, W_std=W_std, b_std=b_std)
    for sample, limit in ((feature, exact.nngp), (tangent, exact.ntk)):
        error = sample.mean() + b_std**2 - float(limit)
        assert abs(error) < 4 * sample.std() / np.sqrt(neurons)


@pytest.mark.parametrize("make", [oracle.tanh, oracle.sigmoid, oracle.softplus, oracle.silu])
@pytest.mark.parametrize("std", [0.25, 1.0])
def test_arrays_of_31_digits_agree_with_single_numbers(make, std):
    """Up to 26 digits the sums are taken with arrays, beyond with mpmath's numbers."""
    with mp.workdps(60):
        covariance = [mpf(x) * mpf(std) ** 2 for x in (1, 0.75, -0.5)]
        for few, many in zip(make(26)(*covariance), make(27)(*covariance), strict=True):
            assert abs(few - many) <= mpf(10) ** -25 * abs(many)


def elu_by_quadrature(alpha, p, q, k) -> tuple[mpf, mpf]:
    """The mean over v given u is closed, the one over u is split at 0."""

    def given(mean, std):  # E[phi(v)], E[phi'(v)]
        t = mean / std
        below, tilted = mp.ncdf(-t), mp.exp(mean + std**2 / 2) * mp.ncdf(-t - std)
        return mean * (1 - below) + std * mp.npdf(t) + alpha * (tilted - below), 1 - below + alpha * tilted

    def integrand(z):  # both means at once, as the two parts of a complex number
        u, (value, slope) = a * z, given(along * z, across)
        phi, phi1 = (u, 1) if u > 0 else (alpha * mp.expm1(u), alpha * mp.exp(u))
        return mp.npdf(z) * mp.mpc(phi * value, phi1 * slope)

    a = mp.sqrt(p)
    along, across = k / a, mp.sqrt(q - k * k / p)
    reach = mp.sqrt(2 * mp.dps * mp.log(10))
    bend = across / abs(along)  # the mean given u changes there, and is bent no more where u is `reach` of these
    cuts = {sign * min(reach, x * bend) for sign in (-1, 1) for x in (0, 1, reach)} | {-reach, reach}
    both = mp.quad(integrand, sorted(cuts))
    return both.real, both.imag


@pytest.mark.parametrize(
    "p, q, angle",
    [
        (1.0, 1.0, 1e-8),
        (1e-6, 1e-4, 1.5),
        pytest.param(0.25, 2.5, 0.7, marks=pytest.mark.slow),
        pytest.param(4.0, 4.000000001, 2.2, marks=pytest.mark.slow),
        pytest.param(1.0, 1.0, "opposite", marks=pytest.mark.slow),
        pytest.param(0.25, 30.0, "opposite", marks=pytest.mark.slow),
        pytest.param(30.0, 30.0, 1e-3, marks=pytest.mark.slow),
    ],
)
def test_forty_digits_of_exponential_linear_units(p, q, angle):
    """At an angle of 1e-8, or pi less it, 16 digits of the angle's square are lost."""
    with mp.workdps(60):
        p, q = mpf(p), mpf(q)
        cosine = -mp.cos(mpf(1e-8)) if angle == "opposite" else mp.cos(mpf(angle))
        k = mp.sqrt(p * q) * cosine
        for moments, scale, alpha in ((oracle.elu(0.75), "1", "0.75"), (oracle.selu(), *SELU)):
            scale, alpha = mpf(scale), mpf(alpha)
            for found, truth in zip(moments(p, q, k), elu_by_quadrature(alpha, p, q, k), strict=True):
                assert abs(found - scale**2 * truth) <= mpf(10) ** -40 * abs(truth)


def test_derivative():
    with mp.workdps(100):
        assert abs(oracle.derivative(lambda t: mp.sin(3 * t), 0.5) - 3 * mp.cos(mpf(3) / 2)) < mpf(10) ** -50


OPS = {
    "relu": lambda op: oracle.relu(),
    "abs": lambda op: oracle.abs_(),
    "sign": lambda op: oracle.sign(),
    "gelu": lambda op: oracle.gelu(),
    "erf": lambda op: oracle.erf(op.get("a", 1.0), op.get("b", 1.0), op.get("c", 0.0)),
}


def test_stored_sixty_digit_values(shared):
    """`exact_*` of the reference set were computed by others; they are rounded to float64."""
    folder = shared / "reference"
    inputs, kernels = np.load(folder / "inputs.npz"), np.load(folder / "kernels.npz")
    checked = 0
    for net in json.loads((folder / "architectures.json").read_text())["architectures"]:
        name, spec = net["name"], net["spec"]
        if f"{name}/exact_ntk_12" not in kernels or not name.startswith(("fc_", "hard_")):
            continue
        dense, pointwise = spec[0::2], spec[1::2]
        kinds = {json.dumps(op) for op in pointwise}
        if len(kinds) != 1 or len({json.dumps(op) for op in dense}) != 1 or pointwise[0]["op"] not in OPS:
            continue
        phi = OPS[pointwise[0]["op"]](pointwise[0])
        x1, x2 = inputs[net["x1"]][:3], inputs[net["x2"]][:2]
        for i, a in enumerate(x1):
            for j, b in enumerate(x2):
                got = oracle.fully_connected(
                    phi, a, b, depth=len(pointwise), W_std=dense[0]["W_std"], b_std=dense[0]["b_std"] or 0.0
                )
                for kind, value in got._asdict().items():
                    stored = kernels[f"{name}/exact_{kind}_12"][i, j]
                    assert abs(float(value) - stored) <= 4e-16 * abs(stored), (name, kind, i, j)
        checked += 1
    assert checked >= 12
