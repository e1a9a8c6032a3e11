"""Empirical NTK of a finite network."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from widelimit._examples import as_example, signature
from widelimit._extrema import by_place
from widelimit.empirical._applied import Applied
from widelimit.empirical._parameters import check_like, check_parameters, leaves_of, names_of, weights_of
from widelimit.empirical._plan import METHODS, Design, Plan

if TYPE_CHECKING:  # shapes in signatures, for readers and type checkers: nothing is loaded
    from jaxtyping import Float

__all__ = ["EmpiricalKernel", "empirical_ntk", "flat_function"]

_OUTPUTS = ("mean", "sum", "diag", "full")
_GRADIENTS = {"plain": ("plain", "plain"), "sign": ("sign", "sign"), "asymmetric": ("plain", "sign")}
_MEMORY = 2**29


class EmpiricalKernel:
    """``k(x, x')`` of a finite network; made by `empirical_ntk`."""

    keeps_integers = True

    def __init__(self, design: Design, params: Any, output: Any, weights: list):
        self._design, self._params, self._output, self._weights = design, params, output, weights

    @property
    def symmetric(self) -> bool:
        """Whether ``k(x', x) = k(x, x')^T``."""
        return self._design.symmetric

    @property
    def positive_semidefinite(self) -> bool:
        """Whether its Gram matrices are: those of one set of gradients."""
        return self.symmetric

    def __call__(self, x1: Float[jax.Array, "*input"], x2: Float[jax.Array, "*input"]) -> Float[jax.Array, "*outputs"]:
        """Kernel of the pair: a scalar, (O,) or (O, O) by `output`."""
        one, two = (jax.tree.map(lambda a: jnp.asarray(a)[None], as_example(x)) for x in (x1, x2))
        return jax.tree.map(lambda a: a[0, 0], self.all_pairs(one, two))

    def diag(self, x: Float[jax.Array, "*input"]) -> Float[jax.Array, "*outputs"]:
        """Kernel of x with itself."""
        return self(x, x)

    def at(self, params: Any) -> EmpiricalKernel:
        """The kernel of the same network at other parameters, for which nothing is traced or compiled again.

        params: of the structure, shapes and types of those of this kernel; ValueError otherwise.
        """
        check_like(params, self._params)
        return EmpiricalKernel(self._design, params, self._output, self._weights)

    def all_pairs(self, x1: Any, x2: Any = None) -> Any:
        """Kernels of all pairs of two batches at once, however much memory that takes; in a `jit`, say."""
        plan = self._planned(x1, x1 if x2 is None else x2, len(jax.tree.leaves(x1)[0]))
        a = self.factors(plan, x1)
        b = a if x2 is None and self.symmetric else self.factors(plan, x1 if x2 is None else x2, 1)
        return self.pairs(plan, a, b)

    def plan(self, x: Any, x2: Any = None, *, memory: float | None = None, largest: int | None = None) -> Plan:
        """How the kernel of the examples x (n, ...), with x2 or with themselves, is computed; printing it tells.

        memory: bytes that may be held at once beside the result (default 512 MiB); largest: examples at once.
        The programs are compiled, and their memory is read from them, before anything runs.  Raises MemoryError where
        one pair does not fit.
        """
        x = jax.tree.map(jnp.asarray, as_example(x))
        x2 = x if x2 is None else jax.tree.map(jnp.asarray, as_example(x2))
        count = max(len(jax.tree.leaves(a)[0]) for a in (x, x2))
        plan = self._planned(x, x2, count)
        memory = _MEMORY if memory is None else memory
        return plan.fitted(self._leaves(), self._weights, memory, count if largest is None else min(largest, count))

    def applied(self) -> tuple[Applied, tuple[list, list]] | None:
        """What multiplies the kernel with vectors, and its arrays: leaves of the parameters and learning rates.

        None for signs of gradients, which do not come from products with the Jacobian.  Raises ValueError for
        by_parameter, whose kernels are several.
        """
        if self._design.by_parameter:
            raise ValueError("empirical_ntk: by_parameter gives several kernels. Remedy: parameters= for one of them.")
        if self._design.gradients != ("plain", "plain"):
            return None
        output = self._output if isinstance(self._output, str) else "full"
        return Applied(self._design.f, self._design.other, output), (self._leaves(), list(self._weights))

    def _leaves(self) -> list:
        """In double precision where that is on, as the examples then are."""
        return leaves_of(self._params)

    def _planned(self, x1, x2, n: int) -> Plan:
        one, two = (signature(jax.tree.map(lambda a: a[0], x)) for x in (x1, x2))
        chosen = tuple((i, jnp.ndim(w) == 0) for i, w in enumerate(self._weights) if w is not None)
        double = jnp.result_type(float) == jnp.float64
        leaves = signature(self._leaves())
        return _planned(self._design, leaves, tuple(names_of(self._params)), chosen, one, two, n, double)

    def factors(self, plan: Plan, x: Any, side: int = 0) -> Any:
        """What the kernels of a batch x (n, ...) with others are made of; side 1: of the second argument."""
        return plan.factors(self._leaves(), x, side)

    def pairs(self, plan: Plan, a: Any, b: Any) -> Any:
        """Kernels of every pair of two batches, from their `factors`: (n, m), (n, m, O) or (n, m, O, O)."""
        found = plan.pairs(self._leaves(), self._weights, a, b)
        values = {name: self._shaped(value, plan) for name, value in found.items()}
        return values if self._design.by_parameter else values["all"]

    def _shaped(self, value, plan: Plan):
        if any(plan.is_complex):
            return self._of_complex(value, plan.is_complex)
        if plan.design.output == "full":
            value = jnp.transpose(value, (0, 2, 1, 3))
            return value[:, :, 0, 0] if callable(self._output) and value.shape[2:] == (1, 1) else value
        if plan.design.output == "diag":
            return jnp.moveaxis(value, 0, 2)
        return value / plan.outputs if self._output == "mean" else value

    def _of_complex(self, value, sides):
        """``J J'^H`` from the kernel of the real and imaginary parts of the complex sides, (N, 2 O, M, 2 O)."""

        def parts(is_complex, size):
            return [(1, slice(0, size // 2)), (1j, slice(size // 2, None))] if is_complex else [(1, slice(None))]

        one, two = (parts(c, n) for c, n in zip(sides, value.shape[1::2], strict=True))
        full: Any = sum(a * b.conjugate() * value[:, rows, :, columns] for a, rows in one for b, columns in two)
        full = jnp.transpose(full, (0, 2, 1, 3))
        if self._output == "full" or callable(self._output):
            return full[:, :, 0, 0] if callable(self._output) and full.shape[2:] == (1, 1) else full
        diagonal = jnp.diagonal(full, axis1=2, axis2=3)
        return {"diag": diagonal, "sum": diagonal.sum(-1), "mean": diagonal.mean(-1)}[self._output]


@functools.lru_cache(maxsize=64)
def _planned(design: Design, leaves, names, chosen, one, two, n: int, double: bool) -> Plan:
    """The plan for arrays of these shapes, so that a network that moves is traced and compiled once."""
    leaves, one, two = map(_of_signature, (leaves, one, two))
    is_complex = tuple(
        jnp.issubdtype(_output_of(f, leaves, x).dtype, jnp.complexfloating)
        for f, x in ((design.f, one), (design.other, two))
    )
    design = design._replace(output="full") if any(is_complex) else design
    return Plan(design, leaves, names, chosen, one, two, n, is_complex)


def _output_of(f, leaves, x):
    """Shape and type of the outputs of one example."""
    try:
        return jax.eval_shape(f.plain, leaves, x)
    except (TypeError, ValueError) as error:
        if re.match(r"[a-z_]+: ", str(error)):  # said by us
            raise
        shapes = " and ".join(str(tuple(a.shape)) for a in jax.tree.leaves(x))
        raise ValueError(
            f"empirical_ntk: the network cannot be applied to one example of shape {shapes}: {error} Remedy: examples "
            "are (n, ...), each as the network takes it, without a batch axis."
        ) from error


def _of_signature(form):
    structure, arrays = form
    return jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in arrays])


class _Flat:
    """f of the parameters' leaves, with outputs in one axis; complex ones as their real, then imaginary parts."""

    def __init__(self, f: Callable, structure: Any, output: Any):
        self._f, self._structure, self._output = f, structure, output
        self._read = by_place(self._outputs)

    def _outputs(self, leaves, x):
        out = self._f(jax.tree.unflatten(self._structure, leaves), x)
        return self._output(out) if callable(self._output) else out

    def plain(self, leaves, x):
        arrays = jax.tree.leaves(self._read(leaves, x))
        if len(arrays) != 1:
            raise TypeError(
                f"empirical_ntk: f must return one array, and returns {len(arrays)}. Remedy: output=lambda out: "
                "out[0], or jnp.concatenate of what is wanted."
            )
        return jnp.ravel(arrays[0])

    def __call__(self, leaves, x):
        out = self.plain(leaves, x)
        if jnp.issubdtype(out.dtype, jnp.complexfloating):
            return jnp.concatenate([out.real, out.imag])
        if not jnp.issubdtype(out.dtype, jnp.floating):
            raise TypeError(f"empirical_ntk: f must return floating-point numbers, not {out.dtype}.")
        return out


@functools.lru_cache(maxsize=64)
def _kept_flat(f, structure, output) -> _Flat:
    return _Flat(f, structure, output)


def flat_function(f: Callable, structure: Any, output: Any) -> _Flat:
    """f of the leaves of parameters of this structure, real (O,); the same object for the same f where it can be."""
    wanted = output if callable(output) else None
    try:
        return _kept_flat(f, structure, wanted)
    except TypeError:  # not hashable
        return _Flat(f, structure, wanted)


def empirical_ntk(
    f: Callable,
    params: Any,
    *,
    output: Any = "mean",
    lr: Any = None,
    parameters: Callable[[str], bool] | None = None,
    by_parameter: bool = False,
    other: Callable | None = None,
    gradients: str = "plain",
    method: str = "auto",
) -> EmpiricalKernel:
    """Neural Tangent Kernel of a finite network at given parameters.

    ``K(x, x')_ij = sum_p lr_p df_i(x)/dtheta_p df_j(x')/dtheta_p``.

    f: ``f(params, x)`` for one example; params: any pytree; or as f alone a model that `wl.functional` takes (Flax
    Linen: the module and its variables).  output: "mean" the trace over outputs divided by their number (comparable
    with `wl.ntk`), "sum" the trace, "diag" each output with itself (O,), "full" (O, O), or a
    function that maps the output to the scalar whose kernel is wanted (``jnp.sum`` is not the trace: it has the
    products of different outputs).  lr: learning-rate factors, a number or a pytree like params; None: 1.
    parameters: which count, a function of their path such as ``"[0]['W']"``; by_parameter: a dict from path to the part
    that each adds.  other: another function of the same parameters, for ``<df(x)/dtheta, dother(x')/dtheta>`` with
    output "full" (blocks of a PINN).  Complex outputs: ``J(x) J(x')^H``.
    gradients: "plain"; "sign", those of SignGD, ``<sign df(x), sign df(x')>``; "asymmetric", ``<df(x), sign df(x')>``.
    method: "auto" chooses from shapes between "structured", each layer by the cheaper of products of factors and of
    gradients, and "products", Jacobians times vectors; "factorised" never forms a gradient of a layer, "jacobian"
    always.  All give the same numbers; ``kernel.plan(x)`` tells the choice.

    Use it with `wl.gram`; at other parameters, as those in training are, take ``kernel.at(params)``.  Layers that are
    applied twice, tied and bare parameters are exact.  Raises ValueError for an unknown output, method or gradients or
    an lr of another structure, TypeError for an f that is no function or params that are not floating-point.
    Source: Jacot et al. 2018, section 4; Novak et al. 2022; Malladi et al. 2023 (SignGD); Wang et al. 2022 (PINNs).
    """
    for name, value in (("f", f), ("other", other)):
        if not callable(value) and (name == "f" or value is not None):
            raise TypeError(f"empirical_ntk: {name} must be a function {name}(params, x), not {type(value).__name__}.")
    check_parameters("empirical_ntk", params)
    if not callable(output) and output not in _OUTPUTS:
        raise ValueError(f"empirical_ntk: output must be one of {', '.join(_OUTPUTS)} or a function, not {output!r}.")
    for name, value, known in (("method", method, METHODS), ("gradients", gradients, tuple(_GRADIENTS))):
        if value not in known:
            raise ValueError(f"empirical_ntk: {name} must be one of {', '.join(known)}, not {value!r}.")
    if method == "products" and (by_parameter or gradients != "plain"):
        raise ValueError("empirical_ntk: method 'products' has neither by_parameter nor signs. Remedy: method='auto'.")
    if other is not None and not (output == "full" or callable(output)):
        raise ValueError("empirical_ntk: with other, output must be 'full' or a function to one number.")
    if parameters is not None and not callable(parameters):
        raise TypeError("empirical_ntk: parameters must be a function of a parameter's path, giving True or False.")
    weights = weights_of("empirical_ntk", params, lr, parameters)
    structure = jax.tree.structure(params)
    wanted = output if callable(output) else None
    first = _Flat(f, structure, wanted)
    second = first if other is None or other is f else _Flat(other, structure, wanted)
    if by_parameter or gradients != "plain":
        method = "structured" if method == "auto" else method
    how = "full" if callable(output) else "sum" if output == "mean" else output
    design = Design(first, second, how, method, _GRADIENTS[gradients], by_parameter)
    return EmpiricalKernel(design, params, output, weights)
