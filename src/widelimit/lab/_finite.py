"""Finite fully connected networks, their gradient descent and their NTK, in two compiled programs per
width: one looks, one takes steps.
"""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from widelimit.diagnostics import operator_norm
from widelimit.lab._activations import activation_function

Params = tuple[tuple[jax.Array, jax.Array], ...]


# A jax.Array inside a compiled program, float64 NumPy (or a number) outside.
Values = Any


class Rule(NamedTuple):
    """How a network is read out and trained; every field is a traced scalar, so that all variants share a
    program.

    The output is ``alpha * (f - centre * f_0)``, one step is
    ``theta <- theta - eta * (J^T dloss/df + gamma * (theta - anchor * theta_0))`` with
    ``eta = rate / (alpha^2 lambda_max(K_0))`` and ``gamma = decay * alpha^2 lambda_max(K_0)``, where ``K_0``
    is the network's own NTK at initialisation; with ``fixed > 0`` instead ``eta = fixed`` (and ``gamma =
    decay / eta``). The loss is ``1/2 sum (f - y)^2`` (``logistic = 0``) or ``sum log(1 + exp(-y f))``
    (``logistic = 1``).
    """

    rate: Values = 1.0
    fixed: Values = 0.0
    alpha: Values = 1.0
    centre: Values = 0.0
    logistic: Values = 0.0
    decay: Values = 0.0
    anchor: Values = 0.0


class Record(NamedTuple):
    """What is measured at each checkpoint of a training run."""

    f: Values  # (T, P) outputs at every point
    f_linear: Values  # (T, P) outputs of the network linearised at theta_0
    K: Values  # (T, n, n) empirical NTK on the training points
    change: Values  # (T, L) ||W_l - W_l,0||_F
    features: Values  # (T, L - 1) rms(z_l - z_l,0) / rms(z_l,0) of the hidden preactivations

    @property
    def drift(self) -> np.ndarray:
        """``||K_t - K_0||_F / ||K_0||_F`` (T,); the first checkpoint is at the start."""
        return np.linalg.norm(self.K - self.K[0], axis=(1, 2)) / np.linalg.norm(self.K[0])

    @property
    def lambda_max(self) -> np.ndarray:
        """Largest eigenvalue of K_t (T,), 0 where the run has overflowed."""
        finite = np.isfinite(self.K).all((1, 2), keepdims=True)
        return np.linalg.eigvalsh(np.where(finite, self.K, 0.0))[:, -1]


class Trained(NamedTuple):
    """A training run: its checkpoints and a few things measured at the ends only."""

    record: Record
    size: Values  # (L,) ||W_l,0||_F
    learning_rate: Values  # eta
    f0: Values  # (P,) outputs at initialisation, before alpha and centre
    K0: Values  # (P, n)
    change_operator: Values = None  # (L,) ||W_l,T - W_l,0||_op, if asked for
    size_operator: Values = None  # (L,) ||W_l,0||_op, if asked for


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


def draw(shape: Shape, seed: int, dtype: type = np.float32) -> Params:
    """Raw weights and biases from N(0, 1) (NTK parameterisation), one ``(W, b)`` per layer, drawn by NumPy.

    JAX's generator would be compiled anew for every shape, which takes longer than the training of small
    networks.
    """
    rng = np.random.default_rng(seed)
    layers = []
    for fan_in, fan_out in itertools.pairwise(shape.sizes):
        W = rng.standard_normal((fan_in, fan_out), np.float32)
        b = rng.standard_normal(fan_out if shape.b_std else 0, np.float32)
        layers.append((W.astype(dtype, copy=False), b.astype(dtype, copy=False)))
    return tuple(layers)


def forward(shape: Shape, params: Params, X: jax.Array, nudges: Any = None) -> tuple[list, list]:
    """Inputs ``a_{l-1}`` and preactivations ``z_l = W_std/sqrt(N_{l-1}) a_{l-1} W_l + b_std b_l`` of every
    layer.
    """
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


def backward(shape: Shape, params: Params, X: jax.Array) -> tuple[list, list, list]:
    """Inputs, preactivations and ``delta_l = df/dz_l`` of every layer, one output."""
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
    inputs, _, deltas = backward(shape, params, X)
    K = jnp.zeros((X.shape[0], n or X.shape[0]), X.dtype)
    for a, delta in zip(inputs, deltas, strict=True):
        forward_part = shape.W_std**2 / a.shape[1] * (a @ a[:n].T) + shape.b_std**2
        K = K + (delta @ delta[:n].T) * forward_part
    return K


def _slope(f: jax.Array, y: jax.Array, rule: Rule) -> jax.Array:
    """Derivative of the loss with respect to the outputs."""
    return jnp.where(rule.logistic > 0.5, -y * jax.nn.sigmoid(-y * f), f - y)


def _weights(start: Params, kept: jax.Array, moved: Params) -> Params:
    """``theta = kept theta_0 + moved``: added to weights of size 1 at each step, small changes would drown in
    float32; and decay is a number, not one more pass over the weights.
    """
    return jax.tree.map(lambda a, b: kept * a + b, start, moved)


class State(NamedTuple):
    """A network in training: its weights (see :func:`_weights`), and the outputs of its linearisation."""

    kept: Values
    moved: Values
    f_linear: Values  # (P,)


@lru_cache(maxsize=64)
def _advancer(shape: Shape, n: int):
    """Compiled ``(state, params, f0, K0, X, y, steps, rule, eta, shrink) -> state``: full-batch gradient descent.

    X (P, d): the first ``n`` rows are trained on; f0 (P,) and K0 (P, n) are those of the parameters given.
    ``shrink`` is ``eta gamma``.  Networks are trained one after the other: a batch of small matrix products
    is slower.
    """

    def run(state: State, start, f0, K0, X, y, steps, rule: Rule, eta, shrink) -> State:
        def step(_, state: State) -> State:
            kept, moved, f_linear = state
            f, pull = jax.vjp(lambda p: output(shape, p, X[:n]), _weights(start, kept, moved))
            read = rule.alpha * (f - rule.centre * f0[:n])
            (pulled,) = pull(-eta * rule.alpha * _slope(read, y, rule))
            moved = jax.tree.map(lambda b, g: (1.0 - shrink) * b + g, moved, pulled)
            f_linear = f_linear - eta * rule.alpha**2 * (K0 @ _slope(f_linear[:n], y, rule))
            return State(kept - shrink * (1.0 - rule.anchor) * kept, moved, f_linear)

        return jax.lax.fori_loop(0, steps, step, state)

    return jax.jit(run)


class Look(NamedTuple):
    """A network at one moment: outputs (P,); covariance given the hidden layers, NTK, and NTK of the standard
    parameterisation, each (P, P); hidden preactivations (P, N) by layer.
    """

    f: Values
    nngp: Values
    ntk: Values
    standard: Values
    hidden: Values


@lru_cache(maxsize=64)
def _observer(shape: Shape):
    """Compiled ``(params, kept, moved, X) -> Look``."""

    def run(start, kept, moved, X) -> Look:
        """The standard kernel differentiates in W' = W_std/sqrt(N_{l-1}) W and b' = b_std b instead of W and
        b.
        """
        inputs, z, deltas = backward(shape, _weights(start, kept, moved), X)
        last = inputs[-1]
        nngp = shape.W_std**2 / last.shape[1] * (last @ last.T) + shape.b_std**2
        ntk = standard = jnp.zeros((X.shape[0],) * 2, X.dtype)
        for a, delta in zip(inputs, deltas, strict=True):
            outer, inner = delta @ delta.T, a @ a.T
            ntk = ntk + outer * (shape.W_std**2 / a.shape[1] * inner + shape.b_std**2)
            standard = standard + outer * (inner + (1.0 if shape.b_std else 0.0))
        return Look(z[-1][:, 0], nngp, ntk, standard, z[:-1])

    return jax.jit(run)


class _Beginning(NamedTuple):
    """A random network: theta_0 as it is and as weights that have not moved, and what it looks like."""

    start: Params
    kept: Values
    moved: Params
    look: Look


# The last few: the same network is trained several times, at other rates.
@lru_cache(maxsize=8)
def _begin(shape: Shape, seed: int, X: bytes) -> _Beginning:
    start = draw(shape, seed)
    # Put where they are used once, and not at each call.
    kept, moved = np.ones((), np.float32), jax.device_put(jax.tree.map(np.zeros_like, start))
    start = jax.device_put(start)
    points = np.frombuffer(X, np.float32).reshape(-1, shape.d)
    return _Beginning(start, kept, moved, _observer(shape)(start, kept, moved, points))


def at_start(shape: Shape, seed: int, X) -> Look:
    """The random network of one seed, untrained; float64 NumPy."""
    look = _begin.__wrapped__(shape, seed, np.float32(X).tobytes()).look
    return jax.tree.map(lambda a: np.asarray(a, np.float64), look)


def train(shape: Shape, n: int, seed: int, X, y, lengths, rule: Rule, *, operators: bool = False) -> Trained:
    """Train the network of one seed; arrays come back as float64 NumPy.

    ``lengths`` are the numbers of steps between checkpoints, the first of them 0.
    """
    X, y = np.float32(X), np.float32(y)
    observe, advance = _observer(shape), _advancer(shape, n)
    start, kept, moved, first = _begin(shape, seed, X.tobytes())
    f0, K0 = np.asarray(first.f), np.asarray(first.ntk)[:, :n]
    top = float(np.linalg.eigvalsh(np.float64(K0[:n]))[-1])
    eta = np.float32(rule.fixed if rule.fixed > 0 else rule.rate / (rule.alpha**2 * top))
    shrink = np.float32(rule.decay if rule.fixed > 0 else rule.rate * rule.decay)
    rule = Rule(*(np.float32(v) for v in rule))
    state: Any = State(kept, moved, rule.alpha * (f0 - rule.centre * f0))
    looks, linear, change = [], [], []
    for steps in lengths:
        if steps:
            state = advance(state, start, f0, K0, X, y, np.int32(steps), rule, eta, shrink)
        looks.append(observe(start, state.kept, state.moved, X) if steps else first)
        linear.append(state.f_linear)
        change.append([np.linalg.norm(W) for W in _moves(start, state)])
    return Trained(
        record=_record(looks, np.array(linear, np.float64), np.array(change, np.float64), n, rule),
        size=np.array([np.linalg.norm(np.asarray(W)) for W, _ in start], np.float64),
        learning_rate=np.float64(eta),
        f0=np.float64(f0),
        K0=np.float64(K0),
        change_operator=np.array([operator_norm(W) for W in _moves(start, state)]) if operators else None,
        size_operator=np.array([operator_norm(W) for W, _ in start]) if operators else None,
    )


def _record(looks: list[Look], linear: np.ndarray, change: np.ndarray, n: int, rule: Rule) -> Record:
    f = np.array([look.f for look in looks], np.float64)
    hidden = [[np.asarray(z)[:n] for z in look.hidden] for look in looks]
    norm = np.linalg.norm
    return Record(
        f=rule.alpha * (f - rule.centre * f[0]),
        f_linear=linear,
        K=np.array([np.asarray(look.ntk)[:n, :n] for look in looks], np.float64),
        change=change,
        features=np.array(
            [[norm(z - z0) / norm(z0) for z, z0 in zip(row, hidden[0], strict=True)] for row in hidden], np.float64
        ),
    )


def _moves(start: Params, state: State) -> list[np.ndarray]:
    """W_l - W_l,0."""
    kept = np.float32(state.kept) - np.float32(1)
    moves = [np.asarray(V) for V, _ in state.moved]
    return [V + kept * np.asarray(W) for V, (W, _) in zip(moves, start, strict=True)] if kept else moves
