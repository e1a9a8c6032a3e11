"""Estimates without the matrix, against the dense matrix: within their errors, and the errors right."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

import widelimit as wl
from widelimit._precision import enable_x64

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 5))
PARAMS = {"W": RNG.normal(size=(5, 30)) / 5**0.5, "v": RNG.normal(size=(30, 2)) / 30**0.5}
KEY = jax.random.key(0)
RIDGE = 0.05


def network(params, x):
    return jnp.tanh(x @ params["W"]) @ params["v"]


def kernel(x1, x2):
    return jnp.exp(-jnp.sum((x1 - x2) ** 2) / 5)


@functools.cache
def case(name):
    """Operator and dense matrix."""
    if name == "matrix":
        K = np.asarray(wl.gram(kernel, X))
        return K, K
    k = {"tiles": kernel, "Jacobian": wl.empirical_ntk(network, PARAMS, output="full")}[name]
    A = wl.operator(k, X, positive_semidefinite=True)
    return A, A.as_matrix()


@functools.cache
def eigenvalues(name):
    return np.linalg.eigvalsh(case(name)[1])


def entropy_rank(lam):
    p = np.maximum(lam, 0) / lam.sum()
    return np.exp(-np.sum(p * np.log(np.where(p > 0, p, 1.0))))


ESTIMATES = {
    "trace": (wl.operator_trace, lambda lam: lam.sum()),
    "norm": (wl.frobenius_norm, lambda lam: np.sum(lam**2) ** 0.5),
    "participation": (wl.effective_rank, lambda lam: lam.sum() ** 2 / np.sum(lam**2)),
    "entropy": (functools.partial(wl.effective_rank, kind="entropy"), entropy_rank),
    "determinant": (functools.partial(wl.log_determinant, ridge=RIDGE), lambda lam: np.sum(np.log(lam + RIDGE))),
    "sum": (lambda A, **o: wl.spectral_density(A, **o).sum(np.sqrt), lambda lam: np.sum(np.maximum(lam, 0) ** 0.5)),
}  # fmt: skip
every_case = pytest.mark.parametrize("name", ["tiles", "Jacobian", "matrix"])


@every_case
@pytest.mark.parametrize("what", ESTIMATES)
def test_within_four_standard_errors(name, what):
    estimate, exact = ESTIMATES[what]
    A = case(name)[0]
    if what == "sum":  # rounding makes the smallest eigenvalues negative
        A = wl.operator(A.products.k, X, ridge=1e-6) if name == "tiles" else case("matrix")[0]
    found = estimate(A, key=KEY, probes=64)
    wanted = exact(eigenvalues("matrix" if what == "sum" else name))
    assert 0 < found.standard_error < 0.3 * abs(wanted)
    assert abs(found.value - wanted) < 4 * found.standard_error + found.truncation + 1e-3 * abs(wanted)
    assert float(found) == found.value


@pytest.mark.parametrize("what", ESTIMATES)
def test_the_standard_error_is_the_spread_over_keys(what):
    """Over 40 keys: the spread agrees with the errors told, and the mean with the truth within 4 of its own."""
    estimate, exact = ESTIMATES[what]
    found = [estimate(case("matrix")[0], key=key, probes=32) for key in jax.random.split(KEY, 40)]
    values, errors = (np.array([getattr(f, name) for f in found]) for name in ("value", "standard_error"))
    told = np.mean(errors**2) ** 0.5
    # the standard deviation of 40 normal numbers is known to 11 %
    assert 0.6 < values.std(ddof=1) / told < 1.45
    bias = told**2 / abs(values.mean())  # of a ratio or a root, to second order
    assert abs(values.mean() - exact(eigenvalues("matrix"))) < 4 * told / 40**0.5 + 2 * bias + 1e-6


@pytest.mark.parametrize("name", ["tiles", "matrix"])
def test_exact_without_a_key(name):
    A, K = case(name)
    assert wl.operator_trace(A) == pytest.approx((np.trace(K), 0.0, 0.0), rel=1e-12)
    assert wl.frobenius_norm(A) == pytest.approx((np.linalg.norm(K), 0.0, 0.0), rel=1e-12)
    rank = np.trace(K) ** 2 / np.sum(K**2)
    assert wl.effective_rank(A) == pytest.approx((rank, 0.0, 0.0), rel=1e-12)


def test_exact_with_a_ridge_and_without_symmetry():
    K = case("matrix")[1]
    A = wl.operator(kernel, X, ridge=RIDGE)
    assert wl.frobenius_norm(A).value == pytest.approx(np.linalg.norm(K + RIDGE * np.eye(60)), rel=1e-12)
    assert wl.operator_trace(A).value == pytest.approx(np.trace(K) + 60 * RIDGE, rel=1e-12)
    assert wl.frobenius_norm(wl.operator(kernel, X, X[:7])).value == pytest.approx(np.linalg.norm(K[:, :7]), rel=1e-12)
    A, K = case("Jacobian")
    assert wl.operator_trace(A) == pytest.approx((np.trace(K), 0.0, 0.0), rel=1e-12)


@every_case
def test_top_eigenpairs(name):
    A, K = case(name)
    found = wl.top_eigenpairs(A, 6)
    assert found.converged and found.products < 2 * len(K)
    lam = eigenvalues(name)[::-1]
    assert np.all(np.min(np.abs(lam[:, None] - found.values), axis=0) <= found.residuals + 1e-12)
    np.testing.assert_allclose(found.values, lam[:6], rtol=1e-8)
    np.testing.assert_allclose(found.vectors.T @ found.vectors, np.eye(6), atol=1e-10)
    residuals = np.linalg.norm(K @ found.vectors - found.vectors * found.values, axis=0)
    np.testing.assert_allclose(residuals, found.residuals, atol=1e-10 * lam[0])


def test_repeated_eigenvalues_are_all_found():
    lam = np.array([5.0] * 4 + [3.0] * 3 + [1.0] * 43)
    V = np.linalg.qr(RNG.normal(size=(50, 50)))[0]
    K = V * lam @ V.T
    np.testing.assert_allclose(wl.top_eigenpairs(K, 9, block=5).values, lam[:9], rtol=1e-10)
    # where the Krylov space is exhausted at once
    np.testing.assert_allclose(wl.top_eigenpairs(np.eye(20), 12, block=2).values, np.ones(12), rtol=1e-12)
    assert wl.top_eigenpairs(np.zeros((4, 4)), 2).converged


def test_what_did_not_converge_is_told():
    K = np.diag(np.linspace(1, 1.1, 200))
    found = wl.top_eigenpairs(K, 3, steps=2)
    assert not found.converged and found.residuals.max() > 1e-4
    assert np.all(found.values <= np.diagonal(K)[::-1][:3] + 1e-12)
    number = wl.condition_number(np.diag(np.geomspace(1e-8, 1, 300)), steps=3, ridge=1e-6)
    assert not number.converged and number.value < (1 + 1e-6) / (1e-8 + 1e-6) and number.upper == np.inf


@every_case
def test_condition_number(name):
    lam = eigenvalues(name)
    found = wl.condition_number(case(name)[0], ridge=RIDGE, tolerance=1e-4)
    wanted = (lam[-1] + RIDGE) / (lam[0] + RIDGE)
    assert found.converged and found.value == pytest.approx(wanted, rel=1e-3) and found.value <= wanted * (1 + 1e-9)
    if name != "matrix":  # of which it is not known that it is positive semidefinite
        assert wanted <= found.upper <= (lam[-1] + RIDGE) / RIDGE * 1.001


@pytest.mark.parametrize("log", [False, True])
def test_spectral_density(log):
    """Every point within 4 standard errors of the smoothed spectrum, for most within 2; the integral is the count."""
    lam = eigenvalues("tiles") if not log else eigenvalues("tiles") + 0.01
    A = wl.operator(kernel, X, ridge=0.01) if log else case("tiles")[0]
    place = np.log if log else np.asarray
    found = wl.spectral_density(A, key=KEY, probes=64, log=log, bandwidth=0.3, steps=60)
    points = place(found.grid)
    exact = np.exp(-((points[:, None] - place(lam)) ** 2) / (2 * 0.3**2)).mean(1) / (0.3 * (2 * np.pi) ** 0.5)
    error = np.abs(found.density - exact)
    assert np.all(error < 4 * found.standard_error + 1e-6) and found.standard_error.max() < 0.3 * exact.max()
    assert found.sum(lambda lam: lam**0).value == pytest.approx(60, rel=1e-9)


def test_exhausted_krylov_spaces():
    """Two distinct eigenvalues: Lanczos ends after two steps, and what follows is not a number."""
    K = np.diag([2.0] * 10 + [1.0] * 10)
    assert wl.log_determinant(K, key=KEY, steps=10).value == pytest.approx(10 * np.log(2), rel=1e-12)
    found = wl.log_determinant(np.eye(7), key=KEY, ridge=1.0)
    assert found.value == pytest.approx(7 * np.log(2), rel=1e-12) and found.standard_error < 1e-12


def test_operators_of_lineax():
    K = case("matrix")[1]
    with enable_x64():
        M = jnp.asarray(K)
        A = lx.FunctionLinearOperator(
            lambda v: {"a": M @ v["a"], "b": 2 * v["b"]},
            {"a": jax.ShapeDtypeStruct((60,), jnp.float64), "b": jax.ShapeDtypeStruct((), jnp.float64)},
            lx.symmetric_tag,
        )
    found = wl.top_eigenpairs(A, 2)
    np.testing.assert_allclose(found.values, np.sort([*eigenvalues("matrix"), 2.0])[::-1][:2], rtol=1e-8)
    trace = wl.operator_trace(A, key=KEY, probes=64)
    assert abs(trace.value - np.trace(K) - 2) < 4 * trace.standard_error
    with pytest.raises(ValueError, match=r"operator_trace: of this operator only an estimate .* key=jax.random.key"):
        wl.operator_trace(A)


def test_float32():
    A = wl.operator(kernel, jnp.asarray(X, jnp.float32))
    found = wl.top_eigenpairs(A, 3, tolerance=1e-4)
    assert found.converged
    np.testing.assert_allclose(found.values, eigenvalues("matrix")[::-1][:3], rtol=1e-5)
    determinant = wl.log_determinant(A, key=KEY, ridge=RIDGE)
    wanted = ESTIMATES["determinant"][1](eigenvalues("matrix"))
    assert abs(determinant.value - wanted) < 4 * determinant.standard_error


def test_only_as_many_vectors_as_fit_go_through_a_network():
    """Probes of an empirical kernel go one after the other, those of tiles share the work."""
    assert case("tiles")[0].products.shares_work and not case("Jacobian")[0].products.shares_work


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: wl.operator_trace(np.ones((2, 3))), ValueError, "operator_trace: A must be square"),
        (lambda: wl.operator_trace("K"), TypeError, "operator_trace: A must be a matrix or an operator"),
        (lambda: wl.operator_trace(np.ones(3)), TypeError, "A must be a matrix or an operator"),
        (lambda: wl.operator_trace(np.eye(3) * np.nan), ValueError, "holds NaN or infinity"),
        (lambda: wl.operator_trace(np.eye(3), key=KEY, probes=1), ValueError, "probes must be an integer of at"),
        (lambda: wl.frobenius_norm(case("Jacobian")[0]), ValueError, "frobenius_norm: of this operator only"),
        (lambda: wl.effective_rank(np.eye(3), kind="x"), ValueError, "kind must be participation or entropy"),
        (lambda: wl.effective_rank(np.eye(3), kind="entropy"), ValueError, "effective_rank: of this operator only"),
        (lambda: wl.top_eigenpairs(np.triu(np.ones((3, 3)))), ValueError, "top_eigenpairs: A must be symmetric"),
        (lambda: wl.top_eigenpairs(np.eye(3), 4), ValueError, "count is 4, and A has 3 eigenvalues"),
        (lambda: wl.top_eigenpairs(np.eye(3), 0), ValueError, "count must be an integer of at least 1"),
        (lambda: wl.condition_number(np.eye(3), ridge=-1), ValueError, "ridge must be a finite number >= 0"),
        (lambda: wl.log_determinant(-np.eye(3), key=KEY), ValueError, "is not positive definite. Remedy: a larger"),
        (lambda: wl.spectral_density(np.eye(3), key=KEY, bandwidth=0), ValueError, "bandwidth must be a number > 0"),
        (lambda: wl.spectral_density(np.eye(3), key=KEY, grid=[2, 1]), ValueError, "grid must be increasing"),
    ],
)  # fmt: skip
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
