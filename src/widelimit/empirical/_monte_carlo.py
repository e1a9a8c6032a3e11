"""Kernels of finite networks averaged over random initialisations, with standard errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from widelimit._examples import as_example
from widelimit.empirical._ntk import empirical_ntk

if TYPE_CHECKING:
    from jaxtyping import Float

__all__ = ["MonteCarlo", "monte_carlo"]


class MonteCarlo(NamedTuple):
    """Estimates at one width: means over seeds of both kernels (n, n), and the standard errors of these means."""

    width: int
    seeds: int
    nngp: Float[np.ndarray, "n n"]
    nngp_error: Float[np.ndarray, "n n"]
    ntk: Float[np.ndarray, "n n"]
    ntk_error: Float[np.ndarray, "n n"]


def monte_carlo(
    f: Callable, init: Callable, widths: Sequence[int], x: Any, *, key: jax.Array, seeds: int = 64, lr: Any = None
) -> list[MonteCarlo]:
    """Kernels of real networks of growing width, averaged over their random parameters.

    With ``theta_s`` the s-th draw of ``init(width, key)`` and means over s and over outputs,

        nngp = mean_s f(theta_s, x) f(theta_s, x'),    ntk = mean_s lr df(theta_s, x)/dtheta . df(theta_s, x')/dtheta,

    which tend to the analytic kernels as the width grows, with fluctuations ``width^-1/2`` per draw.  An estimate for
    any network, those whose limit is not known in closed form included.

    f: ``f(params, x)`` of one example.  init: ``init(width, key)``, the parameters.  x: (n, ...) examples.  seeds:
    draws per width, at least 2.  lr: as in `empirical_ntk`.
    Returns one `MonteCarlo` a width.  Raises ValueError for widths that are not positive integers or fewer than 2
    seeds, TypeError for an f or init that cannot be called.  Source: Novak et al. 2019, section 3.2.
    """
    for name, value in (("f", f), ("init", init)):
        if not callable(value):
            raise TypeError(f"monte_carlo: {name} must be a function, not {value!r}.")
    wrong = [n for n in widths if not isinstance(n, int | np.integer) or isinstance(n, bool) or n < 1]
    if wrong or len(widths) == 0:
        raise ValueError(f"monte_carlo: widths must be positive integers, not {wrong[0] if wrong else widths!r}.")
    if not isinstance(seeds, int) or seeds < 2:
        raise ValueError(f"monte_carlo: seeds must be an integer of at least 2, not {seeds!r}.")
    x = jax.tree.map(jnp.asarray, as_example(x))
    if any(a.ndim == 0 for a in jax.tree.leaves(x)):
        raise ValueError("monte_carlo: x must have a leading axis over examples, and is a scalar.")
    return [
        _at_width(f, init, int(n), x, k, seeds, lr)
        for n, k in zip(widths, jax.random.split(key, len(widths)), strict=True)
    ]


def _at_width(f, init, width, x, key, seeds, lr) -> MonteCarlo:
    @jax.jit
    def one(key):
        params = init(width, key)
        outputs = jax.vmap(lambda a: jnp.ravel(f(params, a)))(x)
        return outputs @ outputs.T / outputs.shape[1], empirical_ntk(f, params, lr=lr).all_pairs(x)

    draws = [jax.tree.map(lambda a: np.asarray(a, np.float64), one(k)) for k in jax.random.split(key, seeds)]
    out = []
    for values in zip(*draws, strict=True):
        stacked = np.stack(values)
        out += [stacked.mean(0), stacked.std(0, ddof=1) / seeds**0.5]
    return MonteCarlo(width, seeds, *out)
