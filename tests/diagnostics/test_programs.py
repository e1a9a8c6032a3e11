"""Steps one by one, as convolutions are trained on a CPU, are those of the loop."""

import jax
import jax.numpy as jnp
import numpy as np

from widelimit import nn
from widelimit.diagnostics._programs import Programs


def test_convolutions_take_the_steps_of_the_loop(float64):
    net = nn.Sequential(nn.Conv(4, (3, 3)), nn.Relu(), nn.GlobalAvgPool(), nn.Dense(1))
    rng = np.random.default_rng(0)
    X, Y = jnp.asarray(rng.normal(size=(5, 4, 4, 2))), jnp.asarray(rng.normal(size=5))
    start = jax.tree.map(lambda a: a.astype(jnp.float64), net.init(jax.random.key(0), (4, 4, 2)))
    found = Programs(net.apply, lambda f, y: (f - y) ** 2 / 2, 1)
    extremes = jnp.asarray(0.0), jnp.asarray(jnp.inf), jnp.asarray(1.0)
    state, numbers = (start, jax.tree.map(jnp.zeros_like, start), extremes), (0.1, 2.0, 1.0, 0.2)
    one_by_one = found.advance(*state, start, X, Y, 3, *numbers)
    looped = found._looped(state, start, X, Y, 3, numbers)
    assert jax.tree.leaves(one_by_one[1])[0].any()
    for a, b in zip(jax.tree.leaves(one_by_one), jax.tree.leaves(looped), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-13)
