"""Random projections of the Jacobian: features whose inner products estimate the empirical NTK, with error bounds."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from widelimit._examples import as_example, holds_jax, in_double, in_one_precision
from widelimit._precision import enable_x64, exact_products, is_traced
from widelimit.empirical._applied import batches, examples_at_once, scaled
from widelimit.empirical._convolutions import by_products
from widelimit.empirical._ntk import flat_function
from widelimit.empirical._parameters import check_parameters, leaves_of, weights_of

if TYPE_CHECKING:
    from jaxtyping import Float

__all__ = ["ntk_features", "projection_bound", "projection_standard_error"]

_OUTPUTS = ("mean", "sum", "diag", "full")
_KINDS = ("gaussian", "rademacher")
_MEMORY = 2**29
_DIRECTIONS = 8  # at once, where they fit


def ntk_features(
    f: Callable,
    params: Any,
    x: Any,
    *,
    features: int,
    key: Any,
    output: Any = "mean",
    lr: Any = None,
    parameters: Callable[[str], bool] | None = None,
    kind: str = "gaussian",
    memory: float | None = None,
) -> Float[Any, "n ..."]:
    """Random projection of the Jacobian: features of examples whose inner products estimate the empirical NTK.

    ``Phi(x)_r = features^(-1/2) sum_p lr_p^(1/2) df(x)/dtheta_p t_pr,    E Phi(x) . Phi(x') = K(x, x')``

    with independent t of mean 0 and variance 1, one direction r after the other, each a derivative of the network along
    it: neither Jacobian nor t is held.  The same key gives the same directions for other examples (so that features of
    training and test examples fit together), in either precision, and more of them the same first ones.

    f, params, output, lr, parameters: as in `empirical_ntk`; x: (n, ...) examples; features: number of directions;
    key: of `jax.random`.  kind: "gaussian" or "rademacher" (signs), of t.  memory: bytes at most, beside the result
    (default 512 MB).
    Returns (n, features) for a network with one output or an `output` to one number; (n, O, features) for "full", where
    ``K_ab = Phi_a . Phi_b``, and "diag"; (n, O features) for "sum" and "mean", a direction's O outputs apart.
    NumPy in: NumPy float64 out; JAX in: JAX, in its precision.
    With Gaussian t an entry of ``Phi Phi^T`` has standard error ``sqrt((K_ii K_jj + K_ij^2) / features)`` for one
    output, of which `projection_standard_error` gives an estimate for all; `projection_bound` bounds the matrix.
    f is compiled once: where what it reads elsewhere has changed, give a new function.
    Raises ValueError for unknown kinds and outputs, a negative lr, or too few features, TypeError for complex outputs,
    MemoryError where one example does not fit.  Source: Johnson & Lindenstrauss 1984; Park et al. 2023 (TRAK).
    """
    if not callable(f):
        raise TypeError(f"ntk_features: f must be a function f(params, x), not {type(f).__name__}.")
    check_parameters("ntk_features", params)
    if not callable(output) and output not in _OUTPUTS:
        raise ValueError(f"ntk_features: output must be one of {', '.join(_OUTPUTS)} or a function, not {output!r}.")
    if kind not in _KINDS:
        raise ValueError(f"ntk_features: kind must be gaussian or rademacher, not {kind!r}.")
    if not isinstance(features, int | np.integer) or isinstance(features, bool) or features < 1:
        raise ValueError(f"ntk_features: features must be a positive integer, not {features!r}.")
    rates = weights_of("ntk_features", params, lr, parameters)
    if any(not is_traced(r) and np.any(np.asarray(r) < 0) for r in rates if r is not None):
        raise ValueError("ntk_features: lr must not be negative: the kernel is that of gradients times its root.")
    x = as_example(x)
    counts = {len(a) if np.ndim(a) else 0 for a in jax.tree.leaves(x)}
    if len(counts) != 1 or counts == {0}:
        raise ValueError("ntk_features: x must have a leading axis over at least one example.")
    to_numpy = not holds_jax(x)
    with enable_x64() if to_numpy else contextlib.nullcontext():
        x = in_double(x) if to_numpy else in_one_precision(x)[0]
        leaves = leaves_of(params)
        flat = flat_function(f, jax.tree.structure(params), output)
        one = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), x)
        if jnp.issubdtype(jax.eval_shape(flat.plain, leaves, one).dtype, jnp.complexfloating):
            raise TypeError(
                "ntk_features: f has complex outputs. Remedy: wl.gram, or real and imaginary parts as outputs of f."
            )
        found = _projected(flat, leaves, rates, x, int(features), key, kind, _MEMORY if memory is None else memory)
        found = _shaped(found, output)
        return np.asarray(found) if to_numpy and not is_traced(found) else found


def _projected(flat, leaves, rates, x, features: int, key, kind: str, memory: float):
    """(n, O, features)."""
    single, _ = examples_at_once("ntk_features", [flat], leaves, [x], memory)
    together = min(_DIRECTIONS, features)
    try:
        batch, _ = examples_at_once("ntk_features", [flat], leaves, [x], memory / together)
        together = together if 2 * batch >= min(single, 32) else 1
    except MemoryError:
        together = 1
    batch = batch if together > 1 else single
    roots = [None if r is None else jnp.sqrt(jnp.asarray(r, a.dtype)) for r, a in zip(rates, leaves, strict=True)]
    return _along_all(flat, batch, together, features, kind, leaves, roots, x, key)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _along_all(flat, batch: int, together: int, features: int, kind: str, leaves, roots, x, key):
    counted = [i for i, r in enumerate(roots) if r is not None]
    whole = batches(x, batch)

    def of_chosen(chosen, example):
        given = list(leaves)
        for i, a in zip(counted, chosen, strict=True):
            given[i] = a
        return flat(given, example)

    plain = by_products(of_chosen)

    def along(r):
        drawn = [_direction(jax.random.fold_in(jax.random.fold_in(key, r), i), leaves[i], kind) for i in counted]
        tangent = scaled(drawn, roots)

        def of_batch(part):
            outputs = lambda chosen: jax.vmap(plain, (None, 0))(chosen, part)  # noqa: E731
            return jax.jvp(outputs, ([leaves[i] for i in counted],), (tangent,))[1]

        return jax.lax.map(of_batch, whole)

    with exact_products():
        found = jax.lax.map(along, jnp.arange(features), batch_size=together)  # (features, batches, batch, O)
    found = found.reshape(features, -1, found.shape[-1])[:, : len(jax.tree.leaves(x)[0])]
    return jnp.transpose(found, (1, 2, 0)) / features**0.5


def _direction(key, leaf, kind: str):
    # in 32 bits whatever the precision, so that the directions are the same in both
    if kind == "gaussian":
        return jax.random.normal(key, leaf.shape, jnp.float32).astype(leaf.dtype)
    bits = jax.random.bits(key, leaf.shape, jnp.uint32)
    return jnp.where(bits >> 31 == 0, 1.0, -1.0).astype(leaf.dtype)


def _shaped(found, output):
    n, outputs, features = found.shape
    if output in ("full", "diag"):
        return found
    if callable(output):
        return found[:, 0] if outputs == 1 else found
    return found.reshape(n, outputs * features) / (outputs**0.5 if output == "mean" else 1)


def projection_standard_error(Phi: Any, Phi2: Any = None, *, outputs: int = 1) -> Float[np.ndarray, "n m"]:
    """Standard error of each entry of ``Phi Phi2^T`` as an estimate of the kernel, from the spread over directions.

    ``s_ij^2 = var_r(a_r) / features,    a_r = features Phi_ir Phi2_jr``

    whose expectation is ``(K_ii K_jj + K_ij^2) / features`` for Gaussian directions and one output.
    Phi: (n, features), Phi2: (m, features), None: Phi; outputs: O for the (n, O features) of "sum" and "mean".
    Raises ValueError for shapes that do not fit or fewer than two directions.
    """
    a = np.asarray(Phi, np.float64)
    b = a if Phi2 is None else np.asarray(Phi2, np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or outputs < 1 or a.shape[1] % outputs:
        raise ValueError(
            f"projection_standard_error: Phi and Phi2 must be (n, columns) and (m, columns), columns a multiple of "
            f"outputs = {outputs}, not {a.shape} and {b.shape}."
        )
    features = a.shape[1] // outputs
    if features < 2:
        raise ValueError("projection_standard_error: one direction has no spread. Remedy: more features.")
    a, b = (v.reshape(len(v), outputs, features) for v in (a, b))
    if outputs == 1:
        squares = features * (a[:, 0] ** 2 @ (b[:, 0] ** 2).T)
    else:
        squares = features * sum((a[:, :, r] @ b[:, :, r].T) ** 2 for r in range(features))
    mean = np.einsum("ior,jor->ij", a, b)
    return np.sqrt(np.maximum(squares - mean**2, 0) / (features - 1))


def projection_bound(dimension: float, features: int, *, probability: float = 0.95) -> float:
    """Bound of the relative error of the whole matrix, ``||Phi Phi^T - K||_op <= bound ||K||_op``, with Gaussian t.

    ``bound = 2 e + e^2,    e = (sqrt(dimension) + 1 + sqrt(2 log(2 / (1 - probability)))) / sqrt(features)``

    with at least the given probability.  dimension: the intrinsic dimension ``tr K / ||K||_op`` (the effective rank of
    Koltchinskii and Lounici), at most n.  For one output, or "full", whose K is (n O, n O).  It falls as
    ``features^(-1/2)``, which is the true order (Koltchinskii & Lounici 2017, theorem 4); constants as follow from
    Gordon's comparison and Gaussian concentration.  Raises ValueError for values out of range.
    Source: Gordon 1985; Vershynin 2018, theorem 9.2.4; Koltchinskii & Lounici 2017.
    """
    if not (np.isfinite(dimension) and dimension >= 1) or features < 1 or not 0 < probability < 1:
        raise ValueError(
            "projection_bound: dimension must be a number >= 1, features positive and probability between 0 and 1, not "
            f"{dimension!r}, {features!r} and {probability!r}."
        )
    e = (math.sqrt(dimension) + 1 + math.sqrt(2 * math.log(2 / (1 - probability)))) / math.sqrt(features)
    return 2 * e + e * e
