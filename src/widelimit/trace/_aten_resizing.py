"""ATen operations that resize images and sample them: interpolation, adaptive maxima, `grid_sample`."""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from widelimit.trace._aten import ATEN, aten
from widelimit.trace._aten_indices import places
from widelimit.trace._aten_networks import each, padded_pool
from widelimit.trace._aten_order import largest

__all__: list[str] = []

# Interpolation: a matrix along each axis


def _triangle(t):
    return np.maximum(1 - np.abs(t), 0)


def _cubic(a: float):
    """Keys' (1981) kernel."""

    def kernel(t):
        t = np.abs(t)
        near, far = ((a + 2) * t - (a + 3)) * t * t + 1, (((t - 5) * t + 8) * t - 4) * a
        return np.where(t <= 1, near, np.where(t < 2, far, 0.0))

    return kernel


def _matrix(n: int, size: int, kernel, reach: int, aligned: bool, scale: float | None) -> np.ndarray:
    """Weights (size, n) of the entries at each new place; what lies beyond an edge is the entry at the edge."""
    step = (n - 1) / max(size - 1, 1) if aligned else n / size if scale is None else 1 / scale
    at = places(size) * step if aligned else (places(size) + 0.5) * step - 0.5
    at = np.maximum(at, 0) if reach == 1 and not aligned else at
    out = np.zeros((size, n))
    for offset in range(1 - reach, reach + 1):
        tap = np.floor(at).astype(int) + offset
        np.add.at(out, (np.arange(size), np.clip(tap, 0, n - 1)), kernel(at - tap))
    return out


def _smooth_matrix(n: int, size: int, kernel, reach: int, aligned: bool, scale: float | None) -> np.ndarray:
    """The same with a kernel as wide as a new place where the image shrinks, cut off at the edges and normalised."""
    step = (n - 1) / max(size - 1, 1) if aligned else n / size if scale is None else 1 / scale
    width = max(step, 1.0)
    centre = step * (places(size) + 0.5)
    tap = places(n)
    low, high = np.trunc(centre - reach * width + 0.5), np.trunc(centre + reach * width + 0.5)
    seen = (tap >= np.maximum(low, 0)[:, None]) & (tap < np.minimum(high, n)[:, None])
    out = kernel((tap - centre[:, None] + 0.5) / width) * seen
    return out / out.sum(1, keepdims=True)


def _resized(x, sizes, aligned: bool, scales, kernel, reach: int, matrix):
    for axis, size, scale in zip(range(x.ndim - len(sizes), x.ndim), sizes, scales, strict=True):
        n = x.shape[axis]
        places(max(n, size))
        weights = matrix(n, size, kernel, reach, aligned, scale)
        if size != n or not np.array_equal(weights, np.eye(n)):
            x = jnp.moveaxis(jnp.tensordot(x, jnp.asarray(weights, x.dtype), ((axis,), (1,))), -1, axis)
    return x


def _interpolation(rank: int, *how):
    def by_sizes(x, sizes, aligned, *scales):
        return _resized(x, sizes, aligned, scales or (None,) * rank, *how)

    def by_factors(x, sizes, aligned, factors=None):
        scales = (None,) * rank if factors is None else factors
        if sizes is None:
            sizes = [int(n * s) for n, s in zip(x.shape[-rank:], scales, strict=True)]
        return _resized(x, sizes, aligned, scales, *how)

    return by_sizes, by_factors


for _name, _rank, *_how in [
    ("upsample_linear1d", 1, _triangle, 1, _matrix),
    ("upsample_bilinear2d", 2, _triangle, 1, _matrix),
    ("upsample_trilinear3d", 3, _triangle, 1, _matrix),
    ("upsample_bicubic2d", 2, _cubic(-0.75), 2, _matrix),
    ("_upsample_bilinear2d_aa", 2, _triangle, 1, _smooth_matrix),
    ("_upsample_bicubic2d_aa", 2, _cubic(-0.5), 2, _smooth_matrix),
]:
    # under the name of the operation, so that PyTorch does not take it apart
    ATEN[_name], ATEN[f"{_name}.vec"] = _interpolation(_rank, *_how)


# Maxima


def _adaptive_largest(rank: int):
    def rule(x, sizes):
        """The last axis first: the first maximum of a window, in order, takes the gradient."""
        sizes = each(sizes, rank)
        for axis, size in reversed([*zip(range(x.ndim - rank, x.ndim), sizes, strict=True)]):
            n = x.shape[axis]
            parts = [(i * n // size, -(-(i + 1) * n // size)) for i in range(size)]
            maxima = [largest(lax.slice_in_dim(x, a, b, axis=axis), axis, True)[0] for a, b in parts]
            x = jnp.concatenate(maxima, axis)
        return x, None

    return rule


for _rank in (2, 3):
    ATEN[f"adaptive_max_pool{_rank}d"] = _adaptive_largest(_rank)


def _largest_with_places(rank: int):
    """Maxima of windows, and their places in the image (for `nn.MaxUnpool2d`), the first one at ties."""

    def rule(x, kernel, stride=None, padding=0, dilation=1, ceil=False):
        pool = ATEN[f"max_pool{rank}d"]
        values = pool(x, kernel, stride, padding, dilation, ceil)

        def found():
            windows, strides, pairs = padded_pool(x, rank, kernel, stride, padding, ceil)
            shape = x.shape[-rank:]
            own = jnp.broadcast_to(jnp.arange(math.prod(shape)).reshape(shape), x.shape)
            start = np.asarray(-np.inf, x.dtype), np.asarray(np.iinfo(own.dtype).max, own.dtype)

            def first(a, b):
                wins = (b[0] > a[0]) | ((b[0] == a[0]) & (b[1] < a[1]))
                return jnp.where(wins, b[0], a[0]), jnp.where(wins, b[1], a[1])

            return lax.reduce_window((lax.stop_gradient(x), own), start, first, windows, strides, pairs)[1]

        return values, found

    return rule


for _rank in (2, 3):
    ATEN[f"max_pool{_rank}d_with_indices"] = _largest_with_places(_rank)


# Sampling at points


def _kept_inside(at, n: int):
    """Moved to the edge; without gradient there."""
    return jnp.where(at <= 0, 0.0, jnp.where(at >= n - 1, n - 1.0, at))


def _reflected(at, n: int, aligned: bool):
    low, span = (0.0, n - 1.0) if aligned else (-0.5, float(n))
    if span == 0:
        return jnp.zeros_like(at)
    distance = jnp.where(at >= low, at - low, low - at)
    turns = lax.stop_gradient(jnp.floor(distance / span))
    rest = distance - turns * span
    return _kept_inside(jnp.where(turns % 2 == 0, rest + low, span - rest + low), n)


def _moved(at, n: int, beyond: int, aligned: bool):
    """Points beyond the edge: 0 as they are, 1 at the edge, 2 reflected."""
    return at if beyond == 0 else _kept_inside(at, n) if beyond == 1 else _reflected(at, n, aligned)


def _tap_weights(t, how: int):
    """Offsets from the place before a point, and their weights as functions of the rest t."""
    if how == 0:
        return [(0, 1 - t), (1, t)]
    if how == 1:
        return [(0, jnp.ones_like(t))]
    a, far, near = -0.75, (1 + t, 2 - t), (t, 1 - t)
    outer = [(((d - 5) * d + 8) * d - 4) * a for d in far]
    inner = [((a + 2) * d - (a + 3)) * d * d + 1 for d in near]
    return [(-1, outer[0]), (0, inner[0]), (1, inner[1]), (2, outer[1])]


@aten("grid_sampler_2d", "grid_sampler_3d")
def _sampled(x, grid, how=0, beyond=0, aligned=False):
    """The image at points in [-1, 1], of which the last axis comes first; how: 0 linear, 1 nearest, 2 cubic."""
    sizes = x.shape[2:]
    along = []
    for axis, n in enumerate(sizes):
        at = grid[..., len(sizes) - 1 - axis]
        at = (at + 1) / 2 * (n - 1) if aligned else ((at + 1) * n - 1) / 2
        at = _moved(at, n, beyond, aligned) if how != 2 else at
        base = lax.stop_gradient(jnp.floor(at) if how != 1 else jnp.round(at))
        taps = []
        for offset, weight in _tap_weights(at - base, how):
            place = _moved(base + offset, n, beyond, aligned) if how == 2 else base + offset
            inside = (place >= 0) & (place <= n - 1)
            taps.append((jnp.clip(place, 0, n - 1).astype(int), jnp.where(inside, weight, 0)))
        along.append(taps)
    flat = x.reshape(*x.shape[:2], -1)
    total = jnp.zeros((), x.dtype)
    for corner in itertools.product(*along):
        place, weight = jnp.zeros((), int), jnp.ones((), x.dtype)
        for n, (own, part) in zip(sizes, corner, strict=True):
            place, weight = place * n + own, weight * part
        picked = jax.vmap(lambda image, at: jnp.take(image, at, axis=-1, mode="clip"))(flat, place)
        total = total + picked * weight[:, None]
    return total
