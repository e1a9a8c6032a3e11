"""Claims 4, 9 and 10: statements that hold exactly at any width, checked in float64."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.integrate import solve_ivp

from widelimit import dynamics, nn
from widelimit._precision import enable_x64
from widelimit.lab._context import Context
from widelimit.lab._finite import Shape, draw, kernel, output
from widelimit.lab.experiments._base import Experiment

FLOW_WIDTHS = (4, 32, 256)
FLOW_STEPS = tuple(2.0**-k for k in range(4, 13))
LINEAR_OUTPUTS = 3


def run_flow(context: Context) -> dict[str, Any]:
    """Relative error of ``(f(theta - eta grad L) - f(theta))/eta = K_t (y - f)`` against eta, halfway through
    training.

    The points are training and held-out ones; eta is in units of 1/lambda_max(K_t).
    """
    out: dict[str, Any] = {"widths": list(FLOW_WIDTHS), "steps": list(FLOW_STEPS), "error": []}
    n = context.task.n
    with enable_x64():
        X = jnp.asarray(context.task.X[: context.task.test.stop])
        y = jnp.asarray(context.task.y)
        for k, width in enumerate(FLOW_WIDTHS):
            shape = context.shape(width)
            params = draw(shape, context.seed("flow", width), np.float64)
            out["error"].append(_velocity_errors(shape, params, X, y, n))
            context.tick(k + 1, len(FLOW_WIDTHS))
    return out


def _velocity_errors(shape: Shape, params, X, y, n: int) -> list[float]:
    def loss(p):
        return 0.5 * jnp.sum((output(shape, p, X[:n]) - y) ** 2)

    @jax.jit
    def step(p, eta):
        moved = jax.tree.map(lambda a, g: a - eta * g, p, jax.grad(loss)(p))
        return moved, output(shape, moved, X)

    @jax.jit
    def look(p):
        K = kernel(shape, p, X, n)
        return output(shape, p, X), K, jnp.linalg.eigvalsh(K[:n])[-1]

    top = float(look(params)[2])
    for _ in range(10):
        params, _ = step(params, 0.2 / top)
    f, K, top = (np.asarray(a) for a in look(params))
    velocity = K @ (np.asarray(y) - f[:n])
    errors = []
    for eta in FLOW_STEPS:
        difference = (np.asarray(step(params, eta / float(top))[1]) - f) / (eta / top)
        errors.append(float(np.linalg.norm(difference - velocity) / np.linalg.norm(velocity)))
    return errors


def run_closed_form(context: Context) -> dict[str, Any]:
    """Closed forms against an ODE solver (flow) and against gradient descent on a linearised network
    (steps).
    """
    task, n = context.task, context.task.n
    seen = slice(0, task.test.stop)
    K = context.ntk[seen, :n]
    top = context.lambda_max
    f0 = np.random.default_rng(context.seed("closed form")).standard_normal(K.shape[0])
    times = np.array([0.0, 0.3, 1.0, 3.0, 10.0, 30.0]) / top
    flow = dynamics.flow(K[:n], task.y, f0=f0[:n])
    ours = np.asarray(flow(times, K, f0))
    solved = solve_ivp(
        lambda _, f: K @ (task.y - f[:n]), (0.0, times[-1]), f0, method="DOP853", t_eval=times, rtol=1e-12,
        atol=1e-13
    ).y.T  # fmt: skip
    context.tick(1, 2)
    steps, gap = np.array([0, 1, 2, 5, 20, 100, 300]), 0.0
    with enable_x64():
        trained, K_hat, start = _linearised_descent(context, steps)
    eta = 1.0 / float(np.linalg.eigvalsh(K_hat[:n])[-1])
    predict = dynamics.steps(K_hat[:n], task.y, learning_rate=eta, f0=start[:n])
    gap = float(np.abs(np.asarray(predict(steps, K_hat, start)) - trained).max())
    context.tick(2, 2)
    return {"flow_error": float(np.abs(ours - solved).max()), "steps_error": gap}


def _linearised_descent(context: Context, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outputs of ``f_0 + J (theta - theta_0)`` under gradient descent on theta; its kernel and initial
    outputs.
    """
    task, n = context.task, context.task.n
    shape = context.shape(64)
    X, y = jnp.asarray(task.X[: task.test.stop]), jnp.asarray(task.y)
    start = draw(shape, context.seed("linearised"), np.float64)
    # Compiled: one by one, the operations of a first run take longer to compile than to do.
    K = jax.jit(lambda p: kernel(shape, p, X, n))(start)
    eta = 1.0 / float(np.linalg.eigvalsh(np.asarray(K[:n]))[-1])

    def linearised(delta):
        f0, change = jax.jvp(lambda p: output(shape, p, X), (start,), (delta,))
        return f0 + change

    @jax.jit
    def step(delta):
        loss, pull = jax.vjp(lambda c: 0.5 * jnp.sum((linearised(c)[:n] - y) ** 2), delta)
        return jax.tree.map(lambda a, g: a - eta * g, delta, pull(jnp.ones_like(loss))[0])

    look = jax.jit(linearised)
    outputs, delta = [], jax.tree.map(np.zeros_like, start)
    f0 = np.asarray(look(delta))
    for k in range(int(steps[-1]) + 1):
        if k in steps:
            outputs.append(np.asarray(look(delta)))
        delta = step(delta)
    return np.array(outputs), np.asarray(K), f0


def run_linear(context: Context) -> dict[str, Any]:
    """The full NTK of ``f(x) = x W / sqrt(d)`` with several outputs, before and after training."""
    X = context.task.train
    d = X.shape[1]
    net = nn.Dense(LINEAR_OUTPUTS)
    with enable_x64():
        rng = np.random.default_rng(context.seed("linear"))
        params = {"W": jnp.asarray(rng.standard_normal((d, LINEAR_OUTPUTS)))}
        points = jnp.asarray(X)
        Y = jnp.asarray(rng.standard_normal((len(X), LINEAR_OUTPUTS)))

        def outputs(p):
            return jax.vmap(net.apply, (None, 0))(p, points)

        @jax.jit
        def jacobian(p):
            return jax.jacobian(outputs)(p)["W"].reshape(len(X) * LINEAR_OUTPUTS, -1)

        def full(p):
            J = np.asarray(jacobian(p))
            return J @ J.T

        K0 = full(params)
        eta = 1.0 / float(np.linalg.eigvalsh(K0)[-1])
        step = jax.jit(
            lambda p: jax.tree.map(
                lambda a, g: a - eta * g, p, jax.grad(lambda q: 0.5 * jnp.sum((outputs(q) - Y) ** 2))(p)
            )
        )
        moved, drift = params, 0.0
        for k in range(100):
            moved = step(moved)
            if k in (0, 9, 99):
                drift = max(drift, float(np.linalg.norm(full(moved) - K0) / np.linalg.norm(K0)))
        start, end = (np.asarray(p["W"]) for p in (params, moved))
        change = float(np.linalg.norm(end - start) / np.linalg.norm(start))
    gram = np.kron(X @ X.T / d, np.eye(LINEAR_OUTPUTS))
    return {
        "drift": drift,
        "gram_error": float(np.linalg.norm(K0 - gram) / np.linalg.norm(gram)),
        "change": change,
        "outputs": LINEAR_OUTPUTS,
    }


FLOW = Experiment("flow", "Velocity of the outputs", run_flow, (3, 3, 3))
CLOSED_FORM = Experiment("closed_form", "Closed forms against solvers", run_closed_form, (3, 3, 3))
LINEAR = Experiment("linear", "The linear model", run_linear, (1.5, 1.5, 1.5))
