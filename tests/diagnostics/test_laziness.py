"""Every quantity of the report against dense algebra on a tiny network, and the verdicts."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import widelimit as wl
from widelimit import nn

RNG = np.random.default_rng(0)
X = RNG.normal(size=(7, 3))
X_TEST = RNG.normal(size=(4, 3))
Y = np.stack([np.sin(X[:, 0]), X[:, 1] * X[:, 2]], 1)
Y_TEST = np.stack([np.sin(X_TEST[:, 0]), X_TEST[:, 1] * X_TEST[:, 2]], 1)
PARAMS = {
    "W": RNG.normal(size=(3, 5)), "b": 0.3 * RNG.normal(size=5), "V": RNG.normal(size=(5, 2)) / 5**0.5,
}  # fmt: skip


def f(params, x):
    return jnp.tanh(x @ params["W"] / 3**0.5 + params["b"]) @ params["V"]


def dense(params=PARAMS, X=X):
    """Outputs and Jacobian (n O, P) by differentiating by the flat parameters, these, and what brings them back."""
    with jax.enable_x64(True):
        flat, back = ravel_pytree(jax.tree.map(jnp.asarray, params))

        def out(theta):
            return jax.vmap(lambda x: f(back(theta), x))(jnp.asarray(X))

        J = np.asarray(jax.jacobian(out)(flat)).reshape(len(X) * 2, -1)
        return np.asarray(out(flat)), J, np.asarray(flat), back


def hessian():
    """Of every output, (n, O, P, P)."""
    with jax.enable_x64(True):
        flat, back = ravel_pytree(jax.tree.map(jnp.asarray, PARAMS))
        return np.asarray(jax.hessian(lambda t: jax.vmap(lambda x: f(back(t), x))(jnp.asarray(X)))(flat))


STEPS, RATE = 60, 0.03


@pytest.fixture(scope="module")
def found():
    return wl.laziness(f, X, Y, params=PARAMS, steps=STEPS, learning_rate=RATE, X_test=X_TEST, Y_test=Y_TEST)


@pytest.fixture(scope="module")
def trained():
    """theta_t of plain gradient descent on 1/2 sum of squares, at every step."""
    with jax.enable_x64(True):
        flat, back = ravel_pytree(jax.tree.map(jnp.asarray, PARAMS))
        loss = lambda t: 0.5 * jnp.sum((jax.vmap(lambda x: f(back(t), x))(jnp.asarray(X)) - Y) ** 2)  # noqa: E731
        slope, path = jax.jit(jax.grad(loss)), [flat]
        for _ in range(STEPS):
            path.append(path[-1] - RATE * slope(path[-1]))
        return [back(t) for t in path]


def close(a, b, rtol=1e-9):
    np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-13)


def test_times_are_1_2_5_of_each_decade_and_the_last(found):
    assert found.times.tolist() == [0, 1, 2, 5, 10, 20, 50, 60]


def test_loss_and_accuracy(found, trained):
    outs = [dense(trained[int(t)])[0] for t in found.times]
    close(found.loss, [0.5 * np.sum((o - Y) ** 2) / len(X) for o in outs])
    test = [dense(trained[int(t)], X_TEST)[0] for t in found.times]
    close(found.loss_test, [0.5 * np.sum((o - Y_TEST) ** 2) / len(X_TEST) for o in test])
    close(found.change, [np.sqrt(np.mean((o - outs[0]) ** 2)) for o in outs])
    assert found.accuracy is None, "targets that are no classes have no accuracy"


def test_kernel_drift_alignment_and_effective_rank(found, trained):
    def kernel(params, X=X):
        J = dense(params, X)[1].reshape(len(X), 2, -1)
        return np.einsum("iop,jop->ij", J, J) / 2

    Ks = [kernel(trained[int(t)]) for t in found.times]
    close(found.drift, [np.linalg.norm(K - Ks[0]) / np.linalg.norm(Ks[0]) for K in Ks])
    YY = Y @ Y.T
    close(found.alignment, [np.sum(K * YY) / np.linalg.norm(K) / np.linalg.norm(YY) for K in Ks])
    C = np.eye(len(X)) - 1 / len(X)
    Kc, Yc = [C @ K @ C for K in Ks], C @ YY @ C
    close(found.alignment_centred, [np.sum(K * Yc) / np.linalg.norm(K) / np.linalg.norm(Yc) for K in Kc])
    for K, rank in zip(Ks, found.effective_rank, strict=True):
        p = np.linalg.eigvalsh(K) / np.trace(K)
        close(rank, np.exp(-np.sum(p * np.log(p))), rtol=1e-7)


def test_parts_of_the_kernel_by_parameter(found, trained):
    sizes = {"V": 10, "W": 15, "b": 5}  # in the order of the flat parameters
    ends = np.cumsum([0, *sizes.values()])
    Js = [dense(trained[int(t)])[1].reshape(len(X), 2, -1) for t in (0, STEPS)]
    for (name, _), a, b in zip(sizes.items(), ends, ends[1:], strict=False):
        first, last = (np.einsum("iop,jop->ij", J[..., a:b], J[..., a:b]) / 2 for J in Js)
        close(found.drift_by_parameter[name][-1], np.linalg.norm(last - first) / np.linalg.norm(first))
        close(found.trace_by_parameter[name][0], np.trace(first) / (np.sum(Js[0] ** 2) / 2))
        close(
            found.alignment_by_parameter[name][-1],
            np.sum(last * (Y @ Y.T)) / np.linalg.norm(last) / np.linalg.norm(Y @ Y.T),
        )


def test_movement_of_parameters(found, trained):
    moves = {k: np.asarray(trained[-1][k]) - PARAMS[k] for k in PARAMS}
    size = np.sqrt(sum(np.sum(a**2) for a in PARAMS.values()))
    total = np.sqrt(sum(np.sum(a**2) for a in moves.values()))
    close(found.movement[-1], total)
    close(found.movement_relative[-1], total / size)
    for name, move in moves.items():
        close(found.movement_by_parameter[name][-1], np.linalg.norm(move))
        close(found.movement_relative_by_parameter[name][-1], np.linalg.norm(move) / np.linalg.norm(PARAMS[name]))
    close(found.movement_operator_by_parameter["W"][-1], np.linalg.norm(moves["W"], 2), rtol=1e-3)
    assert np.isnan(found.movement_operator_by_parameter["b"]).all()


def test_features_are_what_layers_are_given(found, trained):
    hidden = [np.tanh(X @ np.asarray(p["W"]) / 3**0.5 + np.asarray(p["b"])) for p in (trained[0], trained[-1])]
    close(found.features["V"][-1], np.linalg.norm(hidden[1] - hidden[0]) / np.linalg.norm(hidden[0]))
    assert found.features["W"].tolist() == [0] * len(found.times), "the data do not move"


@pytest.mark.parametrize("loss", ["sum", "mean", "cross_entropy"])
def test_the_linearisation_is_trained_by_the_same_steps(loss):
    out, J = dense()[:2]
    test, J_test = dense(X=X_TEST)[:2]
    labels = np.argmax(Y, 1)

    def slope(g):
        if loss != "cross_entropy":
            return (g - Y) / (Y.size if loss == "mean" else 1)
        p = np.exp(g) / np.exp(g).sum(1, keepdims=True)
        return p - np.eye(2)[labels]

    rate = RATE * (Y.size if loss == "mean" else 1)
    moved = np.zeros(J.shape[1])
    for _ in range(20):
        moved -= rate * J.T @ slope(out + (J @ moved).reshape(out.shape)).ravel()
    found = wl.laziness(
        f, X, labels if loss == "cross_entropy" else Y, params=PARAMS, loss=loss, steps=20, learning_rate=rate,
        X_test=X_TEST, Y_test=np.argmax(Y_TEST, 1) if loss == "cross_entropy" else Y_TEST, hessian=False,
    )  # fmt: skip
    linear, linear_test = out + (J @ moved).reshape(out.shape), test + (J_test @ moved).reshape(test.shape)
    if loss == "cross_entropy":
        logs = np.log(np.exp(linear).sum(1)) - linear[np.arange(len(X)), labels]
        close(found.loss_linear[-1], logs.mean())
        close(found.accuracy_linear[-1], np.mean(linear.argmax(1) == labels))
    else:
        close(found.loss_linear[-1], 0.5 * np.sum((linear - Y) ** 2) / (Y.size if loss == "mean" else len(X)))
        close(found.loss_test_linear[-1], 0.5 * np.sum((linear_test - Y_TEST) ** 2) / (8 if loss == "mean" else 4))


def test_distance_to_the_linearisation(found, trained):
    out, J = dense()[:2]
    test, J_test = dense(X=X_TEST)[:2]
    moved = np.zeros(J.shape[1])
    for _ in range(STEPS):
        moved -= RATE * J.T @ (out + (J @ moved).reshape(out.shape) - Y).ravel()
    last, last_test = dense(trained[-1])[0], dense(trained[-1], X_TEST)[0]
    close(found.gap[-1], np.sqrt(np.mean((last - out - (J @ moved).reshape(out.shape)) ** 2)), rtol=1e-7)
    close(
        found.gap_test[-1], np.sqrt(np.mean((last_test - test - (J_test @ moved).reshape(test.shape)) ** 2)), rtol=1e-7
    )


def test_curvature(found, trained):
    (out, J), H = dense()[:2], hessian()
    close(found.lambda_max[0], np.linalg.eigvalsh(J @ J.T)[-1], rtol=1e-6)
    last = dense(trained[-1])[1]
    close(found.sharpness[-1], np.linalg.eigvalsh(last @ last.T)[-1], rtol=1e-6)
    rows = np.arange(7)[:: 7 // 4][:4]
    norms = [np.abs(np.linalg.eigvalsh(H[row, i % 2])).max() for i, row in enumerate(rows)]
    close(found.hessian, norms, rtol=1e-3)
    residual = np.einsum("no,nopq->pq", out - Y, H)
    close(found.kappa, np.abs(np.linalg.eigvalsh(residual)).max() / np.linalg.eigvalsh(J.T @ J)[-1], rtol=1e-3)


def test_sharpness_of_cross_entropy_is_that_of_the_gauss_newton_matrix():
    labels = np.argmax(Y, 1)
    found = wl.laziness(f, X, labels, params=PARAMS, loss="cross_entropy", steps=2)
    out, J = dense()[:2]
    p = np.exp(out) / np.exp(out).sum(1, keepdims=True)
    H = np.zeros((14, 14))
    for i in range(7):
        H[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = np.diag(p[i]) - np.outer(p[i], p[i])
    close(found.sharpness[0], np.linalg.eigvalsh(J.T @ H @ J)[-1], rtol=1e-5)
    close(found.learning_rate, 2 / np.linalg.eigvalsh(J @ J.T)[-1], rtol=1e-5)
    assert found.learning_rate == pytest.approx(found.stable_rate / 2)


def test_output_scale_is_that_of_chizat_et_al():
    alpha, rate = 3.0, 0.02
    found = wl.laziness(f, X, Y, params=PARAMS, steps=2, learning_rate=rate, alpha=alpha)
    first = dense()[0]
    params = PARAMS
    for _ in range(2):
        out, J, flat, back = dense(params)
        flat = flat - rate / alpha**2 * alpha * J.T @ (alpha * (out - first) - Y).ravel()
        params = jax.tree.map(np.asarray, back(jnp.asarray(flat)))
    close(found.loss[-1], 0.5 * np.sum((alpha * (dense(params)[0] - first) - Y) ** 2) / 7, rtol=1e-5)
    close(found.loss[0], 0.5 * np.sum(Y**2) / 7)


def test_a_model_linear_in_its_parameters_is_lazy_and_does_not_drift():
    def linear(params, x):
        return jnp.sin(3 * x) @ params

    found = wl.laziness(linear, X, Y, params=RNG.normal(size=(3, 2)), steps=50)
    assert found.verdict == "lazy"
    assert (found.drift == 0).all() and (found.hessian == 0).all() and found.kappa == 0
    assert found.gap.max() < 1e-14
    assert "linear in its parameters" in str(found)


def mlp(width, **options):
    return nn.Sequential(
        nn.Dense(width, W_std=1.5), nn.Erf(), nn.Dense(width, W_std=1.5), nn.Erf(), nn.Dense(2, W_std=1.5)
    )


def test_a_small_output_scale_is_rich_and_a_large_one_lazy():
    rich = wl.laziness(mlp(24), X, Y, alpha=0.05, steps=300, hessian=False)
    lazy = wl.laziness(mlp(24), X, Y, alpha=50.0, steps=300, hessian=False)
    assert (rich.verdict, lazy.verdict) == ("rich", "lazy")
    assert rich.drift[-1] > 0.5 > 0.02 > lazy.drift[-1]


def test_beyond_the_stable_rate_it_catapults_or_diverges():
    start = wl.laziness(mlp(24), X, Y, steps=1, hessian=False)
    found = wl.laziness(mlp(24), X, Y, steps=200, learning_rate=2 * start.stable_rate, hessian=False)
    assert found.verdict == "catapult"
    assert found.instability[0] == pytest.approx(4, rel=1e-3) and found.instability[-1] < 2
    assert found.loss_rise > 1.5 and found.loss[0] > found.loss[-1]
    calm = wl.laziness(mlp(24), X, Y, steps=200, learning_rate=1.3 * start.stable_rate, hessian=False)
    assert calm.verdict == "rich" and calm.loss_rise == 1 and "linearised network diverged" in calm.sentence
    assert any("beyond 2" in line for line in calm.advice), "the loss did not rise: no catapult, but said"
    lost = wl.laziness(lambda p, x: x @ p, X, Y, params=np.zeros((3, 2)), steps=2000, learning_rate=2.0, hessian=False)
    assert lost.verdict == "diverged"
    assert "stable" in lost.sentence


def test_a_network_that_has_hardly_moved_is_not_called_lazy():
    found = wl.laziness(mlp(24), X, Y, steps=1, learning_rate=1e-6, hessian=False)
    assert found.verdict == "not trained" and any("Train longer" in line for line in found.advice)


def test_advice_of_the_output_scale_comes_true():
    """Extrapolated as 1/alpha from a network that is in between: a run at that scale is lazy, or nearly so."""
    found = wl.laziness(mlp(24), X, Y, alpha=1.0, steps=200, hessian=False)
    assert found.verdict == "in between"
    alpha = max(found.drift.max(), found.gap_relative) / 0.05
    assert any(f"alpha = {alpha:.2g} " in line for line in found.advice)
    then = wl.laziness(mlp(24), X, Y, alpha=alpha, steps=200, hessian=False)
    assert 0.04 < max(then.drift.max(), then.gap_relative) < 0.06


def test_fewer_examples_for_the_kernel_are_told():
    found = wl.laziness(f, X, Y, params=PARAMS, steps=2, examples=4, hessian=False)
    assert found.settings["examples"] == 4 and "4 of the 7" in str(found)
    whole = wl.laziness(f, X, Y, params=PARAMS, steps=2, hessian=False)
    close(found.lambda_max, whole.lambda_max)  # of all examples in either case
    assert not whole.notes


def test_the_page_and_the_json(found):
    text = str(found)
    assert max(map(len, text.splitlines())) <= 120 and len(text.splitlines()) < 70
    for words in ("kernel drift", "λ_max", "What would change it", "Hessian", found.sentence[:40]):
        assert words in text
    kept = json.loads(found.to_json())
    close(kept["drift"], found.drift)
    assert kept["verdict"] == found.verdict and kept["movement_operator_by_parameter"]["b"][0] is None
    with pytest.raises(AttributeError):
        found.verdict = "lazy"


def test_progress_is_told():
    told = []
    wl.laziness(f, X, Y, params=PARAMS, steps=50, hessian=False, progress=lambda *event: told.append(event))
    steps = [done for done, total, what in told if what == "training"]
    assert steps == sorted(steps) and steps[-1] == 50


BAD = [
    ({"params": None}, TypeError, "params=params"),
    ({"steps": 0}, ValueError, "steps must be an integer"),
    ({"learning_rate": -1.0}, ValueError, "learning_rate must be a positive"),
    ({"alpha": 0.0}, ValueError, "alpha must be a positive"),
    ({"loss": "hinge"}, ValueError, "loss must be"),
    ({"Y": Y[:5]}, ValueError, "Y must have shape"),
    ({"Y": Y[:, :1]}, ValueError, "2 outputs and Y 1"),
    ({"X": np.where(X[2, 1] == X, np.nan, X)}, ValueError, "X holds NaN or infinity, first in example 2"),
    ({"X": X[:, :2]}, ValueError, "failed for one example"),
    ({"X_test": X_TEST}, ValueError, "go together"),
    ({"X_test": X_TEST[:, :2], "Y_test": Y_TEST}, ValueError, "X_test"),
    ({"params": {**PARAMS, "b": np.full(5, np.inf)}}, ValueError, "parameter b holds NaN"),
    ({"params": {**PARAMS, "b": np.arange(5)}}, TypeError, "parameter b holds int"),
    ({"checkpoints": []}, ValueError, "checkpoints is empty"),
    ({"times": [1]}, ValueError, "times are those of checkpoints"),
    ({"loss": lambda out, y: out - y}, ValueError, "one number"),
    ({"loss": "cross_entropy", "Y": np.arange(7)}, ValueError, "class 6"),
]


@pytest.mark.parametrize(("change", "kind", "words"), BAD, ids=[words for _, _, words in BAD])
def test_bad_input_is_named_before_anything_is_trained(change, kind, words):
    given = {"X": X, "Y": Y, "params": PARAMS, "steps": 10**9, **change}
    with pytest.raises(kind, match=words):
        wl.laziness(f, given.pop("X"), given.pop("Y"), **given)
