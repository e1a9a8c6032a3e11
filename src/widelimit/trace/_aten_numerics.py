"""ATen operations of numerical analysis: special functions, Fourier transforms, distances, decompositions."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.scipy import special

from widelimit.trace._aten import ATEN, RefusedOperation, aten
from widelimit.trace._aten_axes import power_norm, root

__all__: list[str] = []

# Entry by entry

ATEN |= {
    "erfinv": special.erfinv,
    "lgamma": special.gammaln,
    "digamma": special.digamma,
    "polygamma": special.polygamma,
    "igamma": special.gammainc,
    "igammac": special.gammaincc,
    "special_zeta": special.zeta,
    "special_log_ndtr": special.log_ndtr,
    "special_ndtri": special.ndtri,
    "i0": special.i0,
    "special_i0e": special.i0e,
    "special_i1": special.i1,
    "special_i1e": special.i1e,
    "hypot": jnp.hypot,
    "fmod": jnp.fmod,
    "fmin": lambda a, b: jnp.where((a <= b) | jnp.isnan(b), a, b),
    "fmax": lambda a, b: jnp.where((a >= b) | jnp.isnan(b), a, b),
    "ldexp": lambda x, n: x * jnp.exp2(n),
    "signbit": jnp.signbit,
    "bitwise_xor": jnp.bitwise_xor,
    "_local_scalar_dense": jax.lax.stop_gradient,  # x.item()
}

# Complex numbers and Fourier transforms


ATEN |= {
    "complex": jax.lax.complex,
    "polar": lambda r, angle: jax.lax.complex(r * jnp.cos(angle), r * jnp.sin(angle)),
    "view_as_real": lambda x: jnp.stack([jnp.real(x), jnp.imag(x)], -1),
    "view_as_complex": lambda x: jax.lax.complex(x[..., 0], x[..., 1]),
    "real": jnp.real,
    "imag": jnp.imag,
    "_conj": jnp.conj,
    "_conj_physical": jnp.conj,
    "conj_physical": jnp.conj,
    "resolve_conj": lambda x: x,
    "resolve_neg": lambda x: x,
    "_neg_view": lambda x: -x,
}


@aten("sgn")
def _sign(x):
    """``x / |x|``, whose derivative JAX takes for 0."""
    size = jnp.abs(x)
    return x / jnp.where(size == 0, 1, size) if jnp.iscomplexobj(x) else jnp.sign(x)


@aten("angle")
def _angle(x):
    """Its gradient at 0 is 0."""
    if not jnp.iscomplexobj(x):
        return jnp.where(x < 0, jnp.asarray(math.pi, x.dtype), jnp.where(jnp.isnan(x), x, 0))
    at_zero = x == 0
    return jnp.where(at_zero, 0.0, jnp.angle(jnp.where(at_zero, 1.0, x)))


def _scale(shape, axes, normalization: int) -> float:
    """0: none, 1: the root of the number of entries, 2: the number."""
    return math.prod(float(shape[a]) for a in axes) ** (-normalization / 2)


@aten("_fft_r2c")
def _fft_of_real(x, axes, normalization, onesided):
    y = jnp.fft.rfftn(x, axes=axes) if onesided else jnp.fft.fftn(x, axes=axes)
    return y * _scale(x.shape, axes, normalization)


@aten("_fft_c2c")
def _fft(x, axes, normalization, forward):
    if forward:
        return jnp.fft.fftn(x, axes=axes) * _scale(x.shape, axes, normalization)
    return jnp.fft.ifftn(x, axes=axes) / _scale(x.shape, axes, 2 - normalization)


@aten("_fft_c2r")
def _fft_to_real(x, axes, normalization, size):
    sizes = [x.shape[a] for a in axes[:-1]] + [size]
    y = jnp.fft.irfftn(x, sizes, axes=axes)
    return y / _scale(y.shape, axes, 2 - normalization)


# Distances


@aten("_cdist_forward")
def _cdist(a, b, p, mode=None):
    gap = a[..., :, None, :] - b[..., None, :, :]
    if p == 2:  # an infinite sum over equal entries may be rounded below 0
        return root(jnp.maximum(jnp.sum(jnp.square(gap), -1), 0))
    return power_norm(gap, p, (-1,), False)


@aten("_pdist_forward")
def _pdist(x, p=2.0):
    i, j = jnp.triu_indices(x.shape[0], 1)
    return power_norm(x[i] - x[j], p, (-1,), False)


# Matrices


def _symmetric(x, upper: bool):
    """What the decompositions of PyTorch read, one triangle, with their gradient, which is symmetric."""
    swapped = jnp.conj(jnp.swapaxes(x, -1, -2))
    half = (x + swapped) / 2
    one, other = (x, swapped) if upper else (swapped, x)
    read = jnp.triu(one) + jnp.tril(other, -1)
    return half + jax.lax.stop_gradient(read - half)


@aten("_linalg_solve_ex")
def _solve(a, b, *, left=True, check_errors=False):
    vector = b.ndim == 1 or (b.ndim == a.ndim - 1 and b.shape == a.shape[:-1])
    b = b[..., None] if vector else b
    batch = jnp.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = (jnp.broadcast_to(m, batch + m.shape[-2:]) for m in (a, b))
    if left:
        y = jnp.linalg.solve(a, b)
    else:
        y = jnp.swapaxes(jnp.linalg.solve(jnp.swapaxes(a, -1, -2), jnp.swapaxes(b, -1, -2)), -1, -2)
    return (y[..., 0] if vector else y,)


@aten("linalg_solve_triangular")
def _solve_triangular(a, b, *, upper, left=True, unitriangular=False):
    batch = jnp.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = (jnp.broadcast_to(m, batch + m.shape[-2:]) for m in (a, b))
    return jax.lax.linalg.triangular_solve(
        a, b, left_side=left, lower=not upper, unit_diagonal=unitriangular
    )  # fmt: skip


@aten("cholesky_solve")
def _cholesky_solve(b, factor, upper=False):
    return jax.scipy.linalg.cho_solve((factor, not upper), b)


@aten("linalg_cholesky_ex")
def _cholesky(x, *, upper=False, check_errors=False):
    y = jnp.linalg.cholesky(_symmetric(x, upper), symmetrize_input=False)
    return (jnp.conj(jnp.swapaxes(y, -1, -2)) if upper else y,)


@aten("_linalg_eigh")
def _eigh(x, triangle="L", compute_v=True):
    return tuple(jnp.linalg.eigh(_symmetric(x, triangle == "U"), symmetrize_input=False))


@aten("_linalg_svd")
def _svd(x, full_matrices=False, compute_uv=True, *, driver=None):
    if not compute_uv:
        return None, jnp.linalg.svd(x, compute_uv=False), None
    return tuple(jnp.linalg.svd(x, full_matrices=full_matrices and x.shape[-1] != x.shape[-2]))


@aten("linalg_qr")
def _qr(x, mode="reduced"):
    if mode == "r":
        return None, jnp.linalg.qr(x, "r")
    return tuple(jnp.linalg.qr(x, mode))


@aten("linalg_householder_product")
def _householder_product(a, tau):
    """The first columns of ``prod_i (I - tau_i v_i v_i^H)``, v_i the column i of a below a 1 on the diagonal."""
    rows, columns = a.shape[-2:]
    v = jnp.tril(a, -1) + jnp.eye(rows, columns, dtype=a.dtype)
    product = jnp.broadcast_to(jnp.eye(rows, columns, dtype=a.dtype), a.shape)
    for i in reversed(range(tau.shape[-1])):
        along = jnp.einsum("...r,...rc->...c", jnp.conj(v[..., i]), product)
        product = product - jnp.einsum("...,...r,...c->...rc", tau[..., i], v[..., i], along)
    return product


ATEN |= {
    "linalg_inv_ex": lambda x, *, check_errors=False: (jnp.linalg.inv(x),),
    "_linalg_det": lambda x: (jnp.linalg.det(x),),
    "_linalg_slogdet": lambda x: tuple(jnp.linalg.slogdet(x)),
    "linalg_matrix_exp": jax.scipy.linalg.expm,
}


# Refused


def _refused(why: str, remedy: str):
    def rule(*arguments, **named):
        raise RefusedOperation(why, remedy)

    return rule


_RANDOM = [
    "rand", "rand_like", "randn", "randn_like", "randint", "randint_like", "randperm", "bernoulli", "multinomial",
    "normal", "normal_functional", "uniform", "exponential", "poisson", "geometric", "cauchy", "log_normal",
    "rrelu_with_noise", "rrelu_with_noise_functional",
]  # fmt: skip
_OF_THE_DATA = [
    "nonzero",
    "nonzero_static",
    "masked_select",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "bincount",
]
for _name in _RANDOM:
    ATEN[_name] = _refused(
        "random numbers are drawn in forward.",
        "Remedy: draw them once in __init__ and register them with register_buffer, or module.eval().",
    )
for _name in _OF_THE_DATA:
    ATEN[_name] = _refused(
        "the size of the result depends on the values of the data.",
        "Remedy: torch.where(mask, a, b), or indices that are known beforehand.",
    )
