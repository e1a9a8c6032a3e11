"""Finite fully connected networks, their gradient descent and their NTK, in one compiled program per width."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from widelimit.lab._activations import activation_function

Params = tuple[tuple[jax.Array, jax.Array], ...]


class Rule(NamedTuple):
    """How a network is read out and trained; every field is a traced scalar, so that all variants share a program.

    The output is ``alpha * (f - centre * f_0)``, one step is
    ``theta <- theta - learning_rate * (J^T dloss/df + decay * (theta - anchor * theta_0))``, and the loss is
    ``1/2 sum (f - y)^2`` (``logistic = 0``) or ``sum log(1 + exp(-y f))`` (``logistic = 1``).
    """

    learning_rate: jax.Array | float
    alpha: jax.Array | float = 1.0
    centre: jax.Array | float = 0.0
    logistic: jax.Array | float = 0.0
    decay: jax.Array | float = 0.0
    anchor: jax.Array | float = 0.0


class Record(NamedTuple):
    """What is measured at each checkpoint of a training run."""

    f: jax.Array  # (T, P) outputs at every point
    f_linear: jax.Array  # (T, P) outputs of the network linearised at theta_0
    drift: jax.Array  # (T,) ||K_t - K_0||_F / ||K_0||_F on the training points
    lambda_max: jax.Array  # (T,) largest eigenvalue of K_t
    change: jax.Array  # (T, L) ||W_l - W_l,0||_F
    features: jax.Array  # (T, L - 1) rms(z_l - z_l,0) / rms(z_l,0) of the hidden preactivations


class Trained(NamedTuple):
    """A training run: its checkpoints and a few things measured at the ends only."""

    record: Record
    size: jax.Array  # (L,) ||W_l,0||_F
    change_operator: jax.Array  # (L,) ||W_l,T - W_l,0||_op
    size_operator: jax.Array  # (L,) ||W_l,0||_op
    K0: jax.Array  # (n, n)
    KT: jax.Array  # (n, n)


class Shape(NamedTuple):
    """The static shape of a network: hashable, the key of its compiled programs."""

    d: int
    width: int
    depth: int
    activation: str
    W_std: float
    b_std: float
    outputs: int = 1

    @property
    def sizes(self) -> tuple[int, ...]:
        return (self.d, *([self.width] * self.depth), self.outputs)


def init(shape: Shape, key: jax.Array) -> Params:
    """Draw raw weights and biases from N(0, 1) (NTK parameterisation): one ``(W, b)`` per layer."""
    layers = []
    for fan_in, fan_out in zip(shape.sizes[:-1], shape.sizes[1:], strict=True):
        key, kw, kb = jax.random.split(key, 3)
        W = jax.random.normal(kw, (fan_in, fan_out), jnp.result_type(float))
        b = jax.random.normal(kb, (fan_out if shape.b_std else 0,), W.dtype)
        layers.append((W, b))
    return tuple(layers)


def forward(shape: Shape, params: Params, X: jax.Array, nudges: Any = None) -> tuple[list, list]:
    """Inputs ``a_{l-1}`` and preactivations ``z_l = W_std/sqrt(N_{l-1}) a_{l-1} W_l + b_std b_l`` of every layer."""
    phi = activation_function(shape.activation)
    inputs, preactivations = [X], []
    for i, (W, b) in enumerate(params):
        z = (shape.W_std / W.shape[0] ** 0.5) * (inputs[-1] @ W)
        if shape.b_std:
            z = z + shape.b_std * b
        if nudges is not None:
            z = z + nudges[i]
        preactivations.append(z)
        if i + 1 < len(params):
            inputs.append(phi(z))
    return inputs, preactivations


def output(shape: Shape, params: Params, X: jax.Array) -> jax.Array:
    """Outputs ``(n,)`` of a network with one output, ``(n, outputs)`` otherwise."""
    f = forward(shape, params, X)[1][-1]
    return f[:, 0] if shape.outputs == 1 else f


def _backward(shape: Shape, params: Params, X: jax.Array) -> tuple[list, list, list]:
    zeros = [jnp.zeros((X.shape[0], size), X.dtype) for size in shape.sizes[1:]]
    inputs, z = forward(shape, params, X)

    def total(nudges):
        return forward(shape, params, X, nudges)[1][-1].sum()

    return inputs, z, jax.grad(total)(zeros)


def kernel(shape: Shape, params: Params, X: jax.Array, n: int | None = None) -> jax.Array:
    """Empirical NTK ``(P, n)`` of a one-output network between all points and the first ``n``.

    ``K = sum_l (delta_l delta_l^T) * (W_std^2/N_{l-1} a_{l-1} a_{l-1}^T + b_std^2)``, with
    ``delta_l = df/dz_l``: the contraction of the two Jacobians, layer by layer.
    """
    inputs, _, deltas = _backward(shape, params, X)
    K = jnp.zeros((X.shape[0], n or X.shape[0]), X.dtype)
    for a, delta in zip(inputs, deltas, strict=True):
        forward_part = shape.W_std**2 / a.shape[1] * (a @ a[:n].T) + shape.b_std**2
        K = K + (delta @ delta[:n].T) * forward_part
    return K


def frobenius(A: jax.Array) -> jax.Array:
    """Frobenius norm."""
    return jnp.sqrt(jnp.sum(A * A))


def _operator(A: jax.Array, iterations: int = 60) -> jax.Array:
    """Largest singular value by power iteration on ``A^T A``."""
    v = jnp.cos(jnp.arange(A.shape[1], dtype=A.dtype) * 1.7 + 0.3)

    def step(_, v):
        w = A.T @ (A @ v)
        return w / jnp.maximum(frobenius(w), 1e-30)

    v = jax.lax.fori_loop(0, iterations, step, v)
    return frobenius(A @ v) / jnp.maximum(frobenius(v), 1e-30)


def _slope(f: jax.Array, y: jax.Array, rule: Rule) -> jax.Array:
    """Derivative of the loss with respect to the outputs."""
    return jnp.where(rule.logistic > 0.5, -y * jax.nn.sigmoid(-y * f), f - y)


def _train(
    shape: Shape, n: int, key: jax.Array, X: jax.Array, y: jax.Array, lengths: jax.Array, rule: Rule
) -> Trained:
    start = init(shape, key)
    f0 = output(shape, start, X)
    z0 = forward(shape, start, X[:n])[1][:-1]
    K0 = kernel(shape, start, X, n)
    lr = rule.learning_rate

    def read(f):
        return rule.alpha * (f - rule.centre * f0[: f.shape[0]])

    def step(_, carry):
        params, f_linear = carry
        f, pull = jax.vjp(lambda p: output(shape, p, X[:n]), params)
        (grads,) = pull(rule.alpha * _slope(read(f), y, rule))
        params = jax.tree.map(
            lambda p, g, p0: p - lr * (g + rule.decay * (p - rule.anchor * p0)), params, grads, start
        )
        gradient = rule.alpha**2 * _slope(f_linear[:n], y, rule)
        return params, f_linear - lr * (K0 @ gradient)

    def measure(params, f_linear):
        K = kernel(shape, params, X[:n])
        z = forward(shape, params, X[:n])[1][:-1]
        return Record(
            f=read(output(shape, params, X)),
            f_linear=f_linear,
            drift=frobenius(K - K0[:n]) / frobenius(K0[:n]),
            lambda_max=jnp.linalg.eigvalsh(jnp.where(jnp.isfinite(K), K, 0.0))[-1],
            change=jnp.stack(
                [frobenius(W - W0) for (W, _), (W0, _) in zip(params, start, strict=True)]
            ),
            features=jnp.stack([frobenius(a - b) / frobenius(b) for a, b in zip(z, z0, strict=True)]),
        )

    def segment(carry, length):
        carry = jax.lax.fori_loop(0, length, step, carry)
        return carry, measure(*carry)

    (params, _), record = jax.lax.scan(segment, (start, read(f0)), lengths)
    return Trained(
        record=record,
        size=jnp.stack([frobenius(W) for W, _ in start]),
        change_operator=jnp.stack(
            [_operator(W - W0) for (W, _), (W0, _) in zip(params, start, strict=True)]
        ),
        size_operator=jnp.stack([_operator(W) for W, _ in start]),
        K0=K0[:n],
        KT=kernel(shape, params, X[:n]),
    )


@lru_cache(maxsize=64)
def trainer(shape: Shape, n: int):
    """Compiled ``(keys, X, y, lengths, rule) -> Trained`` with a leading axis over keys.

    ``lengths`` (T,) are the numbers of steps between checkpoints (the first may be 0); rules have one entry per
    key.  The networks are run one after the other: a batched small matrix product is slower on a CPU.
    """

    def run(keys, X, y, lengths, rule):
        return jax.lax.map(
            lambda kr: _train(shape, n, kr[0], X, y, lengths, kr[1]), (keys, rule)
        )

    return jax.jit(run)
