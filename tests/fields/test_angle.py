"""The gap of two vectors against multiple precision; all pairs at once and one by one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mpmath import mp, mpf

from widelimit.fields import _angle


def exact(x, y):
    x, y = ([mpf(float(v)) for v in z] for z in (x, y))
    xx, yy, k = mp.fdot(x, x), mp.fdot(y, y), mp.fdot(x, y)
    s = mp.sqrt(xx * yy)
    return s - k, s + k, mp.sqrt(xx) - mp.sqrt(yy)


def directions(x, z, dtype):
    """Multiples of x, exact and rounded, and neighbours of multiples at angles from rounding to 1."""
    near = [c * x + a * z for a in (1e-14, 1e-10, 1e-6, 1e-3, 1e-1, 1) for c in (1, -1, 1 + 1e-9, 0.7)]
    return np.stack([x, -x, 2 * x, 3 * x, -3 * x, x * dtype(0.1), *near, 0 * x]).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("d", [3, 784])
@pytest.mark.usefixtures("float64")
def test_every_angle(d, dtype):
    rng = np.random.default_rng(0)
    x, z = rng.normal(size=d).astype(dtype), rng.normal(size=d)
    Y = directions(x, z, dtype)
    X = np.stack([x, *rng.normal(size=(59, d)).astype(dtype)])
    each = jax.vmap(jax.vmap(_angle.vector_gap, (None, 0)), (0, None))
    tables = [each(X, Y), jax.jit(each)(X, Y), _angle._singled_out(jnp.asarray(X), jnp.asarray(Y))]
    with mp.workdps(80):
        for j, y in enumerate(Y):
            m, p, r = exact(x, y)
            for below, above, root in tables:
                for got, truth, size in (
                    (below, m, m),
                    (above, p, p),
                    (root, r, max(abs(r), mp.sqrt(min(m, p)))),  # R matters beside the angle
                ):
                    assert abs(mpf(float(got[0, j])) - truth) <= 64 * np.finfo(dtype).eps * size, (j, got[0, j], truth)


@pytest.mark.usefixtures("float64")
def test_batches_of_tables_and_no_tangent():
    rng = np.random.default_rng(1)
    X, Y = rng.normal(size=(2, 4, 3)), rng.normal(size=(2, 5, 3))
    table = jax.vmap(jax.vmap(_angle.vector_gap, (None, 0)), (0, None))
    one_by_one = [table(x, y)[0] for x, y in zip(X, Y, strict=True)]
    np.testing.assert_allclose(jax.vmap(table)(X, Y)[0], one_by_one, rtol=1e-12)
    np.testing.assert_allclose(jax.vmap(table, (0, None))(X, Y[0])[0][1], table(X[1], Y[0])[0], rtol=1e-12)
    np.testing.assert_allclose(jax.vmap(table, (None, 0))(X[0], Y)[0][1], table(X[0], Y[1])[0], rtol=1e-12)
    assert not np.any(jax.jacobian(lambda x: table(x, Y[0])[0])(X[0]))
