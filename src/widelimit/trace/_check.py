"""The same code, finite: Monte Carlo of a limit's network beside its analytic kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from widelimit._examples import as_example, described, floating, in_double
from widelimit._precision import enable_x64
from widelimit._segments import segmented
from widelimit.trace._frameworks import trained
from widelimit.trace._prior import Normal, prior_of_draw
from widelimit.trace._program import program_of_module, with_width

__all__ = ["Check", "check_limit"]


class Row(NamedTuple):
    """One width: rms relative error of the NTK of one draw; largest ``|mean - limit|`` in standard errors.

    One draw says nothing of the NNGP, which is a mean over draws, so that has a z-score only; its standard error is
    the limit's own, ``E[(f f')^2] - E[f f']^2 = K K' + E[f f']^2``.
    """

    width: int
    seeds: int
    nngp_z: float
    ntk_error: float
    ntk_z: float


class Check(NamedTuple):
    """Result of `Limit.check`; printing it gives a table.  slope: of log ntk_error in log width, theory -1/2."""

    rows: list[Row]
    slope: float

    def __str__(self) -> str:
        lines = [" width  seeds   NNGP max |z|   NTK error of one draw   NTK max |z|"]
        for r in self.rows:
            lines.append(f"{r.width:6d} {r.seeds:6d} {r.nngp_z:14.1f} {r.ntk_error:23.2e} {r.ntk_z:13.1f}")
        if len(self.rows) > 1:
            lines.append(f"slope of log error in log width: {self.slope:.2f} (theory -0.5)")
        return "\n".join(lines)


def check_limit(limit, x: Any, key: jax.Array, widths: Sequence[int], seeds: int) -> Check:
    """See `Limit.check`."""
    from widelimit.empirical import monte_carlo

    x = floating(as_example(x)) if limit._module else as_example(x)
    if any(jnp.ndim(a) == 0 for a in jax.tree.leaves(x)):
        raise ValueError("check: x must have a leading axis over examples, and is a scalar.")
    for n in widths:
        if not isinstance(n, int | np.integer) or isinstance(n, bool) or n < 1:
            raise ValueError(f"check: widths must be positive integers, not {n!r}.")
    rows = []
    exact = None if limit._module else _exact(limit._mean_kernels, x)
    for n, k in zip(widths, jax.random.split(key, len(widths)), strict=True):
        f, init, lr = _finite(limit, n, jax.tree.map(lambda a: a[0], x))
        with enable_x64():
            estimate = monte_carlo(f, init, [n], in_double(x), key=k, seeds=seeds, lr=lr)[0]
        # the standard parameterisation's kernel is that of the width
        nngp, ntk = exact or _exact(kernels_of(with_width(limit._f, n)), x)
        # mean square of one draw's distance from the limit
        spread = (estimate.ntk - ntk) ** 2 + (seeds - 1) * estimate.ntk_error**2
        error = float(np.sqrt(np.sum(spread) / np.sum(ntk**2)))
        variance = np.outer(np.diag(nngp), np.diag(nngp)) + nngp**2
        nngp_z = _z(estimate.nngp, np.sqrt(variance / seeds), nngp)
        rows.append(Row(n, seeds, nngp_z, error, _z(estimate.ntk, estimate.ntk_error, ntk)))
    return Check(rows, _slope(rows))


def _exact(kernels, x):
    pairs, diagonals = jax.vmap(jax.vmap(kernels, (None, 0)), (0, None)), jax.vmap(kernels.diag)
    with enable_x64():
        x = in_double(x)
        found = [np.array(a) for a in segmented(pairs, x, x)(x, x)]
        for whole, diagonal in zip(found, segmented(diagonals, x)(x), strict=True):
            np.fill_diagonal(whole, np.asarray(diagonal))  # where the noise of dropout is shared
        return found


def kernels_of(net):
    """Both kernels of an `nn` module."""
    from widelimit.trace._kernel import Kernel

    return Kernel(lambda example: program_of_module(net, example), ("nngp", "ntk"), "mean", False)


def _z(mean, error, truth) -> float:
    rounding = 1e-10 * np.abs(truth).max()
    return float(np.max(np.abs(mean - truth) / np.maximum(error, rounding)))


def _slope(rows) -> float:
    errors = [r.ntk_error for r in rows]
    if len(rows) < 2 or min(errors) <= 0:
        return float("nan")
    return float(np.polyfit(np.log([r.width for r in rows]), np.log(errors), 1)[0])


def _with_noise(net) -> Callable:
    """The network as a function, each example of each draw with masks of its own: their key is made of the numbers."""

    def f(params, x):
        numbers = [jnp.sum(jnp.sin(1e3 * lax.stop_gradient(a))) for a in jax.tree.leaves((params, x))]
        bits = lax.bitcast_convert_type(jnp.float32(sum(numbers)), jnp.uint32)
        return net.apply(params, x, key=jax.random.key(bits))

    return f


def _finite(limit, n: int, x: Any) -> tuple[Callable, Callable, Any]:
    """``f(params, x)``, ``init(n, key)`` and the learning rates of the network of width n for inputs like x."""
    if limit._module:
        net, shape = with_width(limit._f, n), jax.tree.map(lambda a: tuple(a.shape), x)
        return _with_noise(net), lambda n, key: net.init(key, shape), None
    if limit._torch is not None:
        return limit._torch.network(n), limit._torch.init, limit._torch.rates(n)
    if limit._prior is not None:
        rates = jax.tree.map(
            lambda a: float(a.std) ** 2 if limit._lr == "ntk" else float(a.lr),
            limit._prior(n),
            is_leaf=lambda a: isinstance(a, Normal),
        )
        return limit._f, lambda n, key: limit.draw(n, key), rates
    builder = limit._builder(described(x))
    leaves, structure = jax.tree.flatten(builder(n, jax.random.key(0)))
    arrays = [hasattr(a, "dtype") and jnp.issubdtype(a.dtype, jnp.inexact) for a in leaves]

    def init(n, key):
        drawn = jax.tree.leaves(builder(n, key))
        return [a for a, is_array in zip(drawn, arrays, strict=True) if is_array]

    def f(params, x):
        values = iter(params)
        merged = [next(values) if is_array else a for a, is_array in zip(leaves, arrays, strict=True)]
        return jax.tree.unflatten(structure, merged)(x)

    if limit._lr not in (None, "ntk"):
        trains = trained(builder(n, jax.random.key(0)))
        return f, init, [float(limit._lr) * train for train, is_array in zip(trains, arrays, strict=True) if is_array]
    key = jax.random.key(0)
    laws = prior_of_draw(jax.make_jaxpr(lambda k: init(n, k))(key), [key])
    return f, init, [float(std) ** 2 for _, std, _ in laws]
