"""Claim 1: the excess kurtosis of a random ReLU network with one hidden layer is 15/N."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats

from widelimit.lab._context import Context
from widelimit.lab.experiments._base import Experiment

WIDTHS = (8, 32, 128)
BATCHES = 40


def _outputs(rng: np.random.Generator, width: int, draws: int) -> np.ndarray:
    """f(x) = sqrt(2/N) sum_i v_i relu(u_i) for draws of one network with |x|^2 = d, W_std = sqrt(2), no bias.

    For one input only the preactivations ``u = sqrt(2/d) W x ~ N(0, 2)`` matter, so the rows of W are not
    drawn.
    """
    u = rng.standard_normal((draws, width), np.float32)
    v = rng.standard_normal((draws, width), np.float32)
    np.maximum(u, 0, out=u)
    return np.sqrt(2.0) * np.sqrt(2.0 / width) * np.einsum("ij,ij->i", u, v).astype(np.float64)


def run(context: Context) -> dict[str, Any]:
    """Excess kurtosis with its standard error over batches, and the Kolmogorov distance to N(0, 2)."""
    rows = context.map(lambda width: _one_width(context, width), WIDTHS)
    return {"widths": list(WIDTHS), **{name: [row[name] for row in rows] for name in rows[0]}}


def _one_width(context: Context, width: int) -> dict[str, Any]:
    # Narrow networks are cheap and heavy-tailed: they get more draws, never fewer than the 4e5 of the claim.
    draws = context.sizes.draws * min(4, WIDTHS[-1] // width)
    rng = np.random.default_rng(context.seed("gaussian", width))
    f = np.concatenate([_outputs(rng, width, draws // BATCHES) for _ in range(BATCHES)])
    moments = np.stack([(f**p).reshape(BATCHES, -1).mean(1) for p in (2, 4)])
    m2, m4 = moments.mean(1)
    # Delta method for m4 / m2^2, with the covariance of the two moments over batches.
    gradient = np.array([-2 * m4 / m2**3, 1 / m2**2])
    return {
        "kurtosis": m4 / m2**2 - 3,
        "se": float(np.sqrt(gradient @ np.cov(moments) @ gradient / BATCHES)),
        "draws": len(f),
        "distance": stats.kstest(f[: context.sizes.draws], stats.norm(scale=np.sqrt(2.0)).cdf).statistic,
    }


EXPERIMENT = Experiment("gaussian", "Kurtosis of random outputs", run, (4, 4, 40))
