"""Claim 12, the other sign: a target on which networks that learn features beat their own infinite-width
kernel.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from widelimit import dynamics
from widelimit.lab import _limit
from widelimit.lab._context import Context
from widelimit.lab._finite import Rule, Shape
from widelimit.lab.experiments._base import Experiment
from widelimit.lab.experiments._prediction import fit_networks, mse

# y = sign(x_1 x_2) in DIMENSION dimensions, which a kernel has to learn in all its directions.
DIMENSION, TRAINING, HELD_OUT = 16, 300, 1000
WIDTH, STEPS = 256, 400
# Outputs multiplied by a small number make the network move far: the rich regime.
SCALE = 0.02


def run(context: Context) -> dict[str, Any]:
    """A target of two coordinates only: networks that learn features against their own infinite-width
    kernel.
    """
    rng = np.random.default_rng(context.seed("rich"))
    n, m = TRAINING, HELD_OUT
    X = rng.standard_normal((n + m, DIMENSION))
    X *= np.sqrt(DIMENSION) / np.linalg.norm(X, axis=1, keepdims=True)
    Y = np.sign(X[:, :1] * X[:, 1:2])
    shape = Shape(DIMENSION, WIDTH, 2, "relu", 2.0**0.5, 0.0)
    _, ntk = _limit.limit_kernels(shape, X, X[:n])
    kernel = np.asarray(dynamics.flow(ntk[:n], Y[:n])(np.inf, ntk[n:]))
    context.tick(1, 3)
    seeds = [context.seed("rich", i) for i in range(context.sizes.prediction_networks)]
    out: dict[str, Any] = {"n": n, "d": DIMENSION, "width": WIDTH, "steps": STEPS}
    out["kernel"] = float(np.mean(np.sign(kernel) == Y[n:]))
    top = 2.0 / float(dynamics.max_learning_rate(ntk[:n]))
    for k, (name, alpha) in enumerate((("lazy", 1.0), ("rich", SCALE))):
        eta = (1.0 if alpha == 1.0 else 0.2) / (alpha**2 * top)
        runs = fit_networks(shape, seeds, X[:n], Y[:n], X[n:], STEPS, Rule(fixed=eta, alpha=alpha, centre=1.0))
        right = np.array([np.mean(np.sign(f) == Y[n:]) for f, _, _ in runs])
        out[name] = {"alpha": alpha, "accuracy": right, "train_mse": [mse(f, Y[:n]) for _, f, _ in runs]}
        context.tick(2 + k, 3)
    return out


EXPERIMENT = Experiment("rich", "A target that rewards features", run, (5, 5, 5))
