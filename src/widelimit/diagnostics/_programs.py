"""The compiled programs of a network in training; networks of one function and several parameters share them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from widelimit._extrema import by_place
from widelimit.empirical import EmpiricalKernel, empirical_ntk, layer_inputs

__all__ = ["Outputs", "Programs", "kernel_of", "programs", "raveled", "raveled_module"]

_BATCH = 16  # examples whose hidden features are held at once


@functools.lru_cache(maxsize=32)
def raveled(f: Callable) -> Callable:
    """f with its outputs in one axis, the same function each time."""
    return lambda params, x: jnp.ravel(jax.tree.leaves(f(params, x))[0])


@functools.lru_cache(maxsize=32)
def raveled_module(module: Any) -> Callable:
    """The same of a module of `nn`, which is equal to others of its hyperparameters."""
    return lambda params, x: jnp.ravel(jax.tree.leaves(module.apply(params, x))[0])


@functools.lru_cache(maxsize=16)
def _kernel(f: Callable, structure: Any, shapes: tuple) -> EmpiricalKernel:
    zeros = jax.tree.unflatten(structure, [jnp.zeros(shape) for shape in shapes])
    return empirical_ntk(f, zeros, by_parameter=True)


def kernel_of(f: Callable, params: Any) -> EmpiricalKernel:
    """The empirical NTK by parameter, of which `at` gives that at any parameters without compiling again."""
    leaves, structure = jax.tree.flatten(params)
    return _kernel(f, structure, tuple(jnp.shape(a) for a in leaves))


class Outputs(NamedTuple):
    """What is read out at one moment, (n, O) and (m, O): the network's and its linearisation's, training and test."""

    train: Any
    test: Any
    train_linear: Any
    test_linear: Any


class Programs:
    """Of f, loss(output, target) and the number of outputs; all else are arguments.

    alpha: the output scale; centre: 1 to subtract the outputs at the start, 0 to leave them; scale: of the gradient.
    """

    def __init__(self, f: Callable, loss_of: Callable, outputs: int):
        self._f, self._loss_of, self._outputs = by_place(f), by_place(loss_of), outputs
        self._looped, self._stepped = jax.jit(self._many_steps), jax.jit(self._one_step)
        self.observe = jax.jit(self._observed)
        self.total, self.slopes = jax.jit(self._total), jax.jit(self._slopes)
        self.curved, self.root, self.residual = jax.jit(self._curved), jax.jit(self._root), jax.jit(self._residual)
        self.single, self.features = jax.jit(self._single), jax.jit(self._features)

    def raw(self, params, X):
        """The network's own outputs of examples, (n, O)."""
        return jax.vmap(lambda x: self._f(params, x).astype(jnp.float64))(X)

    def one_loss(self, f, y):
        """Of one example, whose output is a number where the target is one."""
        return self._loss_of(f[0] if self._outputs == 1 and jnp.ndim(y) == 0 else f, y)

    def _total(self, f, Y):
        return jax.vmap(self.one_loss)(f, Y).sum()

    def _slopes(self, f, Y, scale):
        return jax.vmap(jax.grad(self.one_loss))(f, Y) * scale

    def advance(self, params, moved, extremes, start, X, Y, steps: int, *numbers):
        """`steps` steps of both; moved: parameters of the linearisation less start; extremes: the largest and smallest
        loss so far, and by what factor it has been above the smallest before; numbers: rate, alpha, centre, scale.
        """
        state = params, moved, extremes
        # in a loop XLA compiles the derivatives of convolutions to code that is up to 100 times slower on a CPU
        if jax.default_backend() != "cpu" or "conv_general_dilated" not in str(jax.make_jaxpr(self.raw)(params, X)):
            return self._looped(state, start, X, Y, steps, numbers)
        for _ in range(steps):
            state = self._stepped(state, start, X, Y, numbers)
        return state

    def _many_steps(self, state, start, X, Y, steps, numbers):
        step = self._step(start, X, Y, *numbers)
        return jax.lax.fori_loop(0, steps, lambda _, state: step(state), state)

    def _one_step(self, state, start, X, Y, numbers):
        return self._step(start, X, Y, *numbers)(state)

    def _step(self, start, X, Y, rate, alpha, centre, scale):
        f0, push = jax.linearize(lambda p: self.raw(p, X), start)
        pull = jax.linear_transpose(push, start)

        def step(state):
            params, moved, (peak, low, rise) = state
            f, back = jax.vjp(lambda p: self.raw(p, X), params)
            read, linear = alpha * (f - centre * f0), alpha * (f0 + push(moved) - centre * f0)
            loss = self._total(read, Y)
            extremes = jnp.maximum(peak, loss), jnp.minimum(low, loss), jnp.maximum(rise, loss / jnp.minimum(low, loss))
            down = -rate / alpha
            params = jax.tree.map(jnp.add, params, back(down * self._slopes(read, Y, scale))[0])
            moved = jax.tree.map(jnp.add, moved, pull(down * self._slopes(linear, Y, scale))[0])
            return params, moved, extremes

        return step

    def _observed(self, params, moved, start, X, X_test, alpha, centre) -> Outputs:
        found = []
        for x in (X, X_test):
            f0, change = jax.jvp(lambda p, x=x: self.raw(p, x), (start,), (moved,))
            f = self.raw(params, x)
            found.append((alpha * (f - centre * f0), alpha * (f0 + change - centre * f0)))
        (train, linear), (test, test_linear) = found
        return Outputs(train, test, linear, test_linear)

    def _root(self, f, Y, scale):
        """``H^(1/2)`` of the Hessian blocks of the loss by the outputs, (n, O, O), without negative curvature."""
        H = jax.vmap(jax.hessian(self.one_loss))(f, Y) * scale
        lam, V = jnp.linalg.eigh((H + jnp.swapaxes(H, 1, 2)) / 2)
        return jnp.einsum("nij,nj,nkj->nik", V, jnp.sqrt(jnp.maximum(lam, 0)), V)

    def _curved(self, params, root, v, X):
        """``H^(1/2) J J^T H^(1/2) v``."""
        v = jnp.einsum("nij,nj->ni", root, v.reshape(root.shape[:2]))
        _, back = jax.vjp(lambda p: self.raw(p, X), params)
        _, w = jax.jvp(lambda p: self.raw(p, X), (params,), (back(v)[0],))
        return jnp.einsum("nij,nj->ni", root, w).ravel()

    def _residual(self, params, v, slopes, X):
        """``sum_i r_i d^2 f_i v``."""
        return jax.jvp(jax.grad(lambda p: jnp.sum(slopes * self.raw(p, X))), (params,), (v,))[1]

    def _single(self, params, v, x, output):
        """``d^2 f_o(x) v``."""
        return jax.jvp(jax.grad(lambda p: jnp.take(self._f(p, x), output).astype(jnp.float64)), (params,), (v,))[1]

    def _features(self, params, start, X):
        """By layer ``sum |h - h_0|^2`` and ``sum |h_0|^2`` over the examples."""
        features = layer_inputs(self._f, start)

        def one(x):
            now, first = features(params, x), features(start, x)
            return {name: (jnp.sum((now[name] - first[name]) ** 2), jnp.sum(first[name] ** 2)) for name in first}

        return jax.tree.map(jnp.sum, jax.lax.map(one, X, batch_size=_BATCH))


@functools.lru_cache(maxsize=8)
def programs(f: Callable, loss_of: Callable, outputs: int) -> Programs:
    """The programs, found again for the same function and loss."""
    return Programs(f, loss_of, outputs)
