"""Exponents: a weighted straight line in log-log coordinates, with a confidence interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

PRIOR_DOF = 4.0


def log_statistics(samples: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean of log samples at each abscissa, and its standard error.

    A width with two or three seeds says little about its own scatter, so each variance is shrunk towards the
    pooled one with the weight of ``PRIOR_DOF`` further observations.
    """
    logs = [np.log(np.asarray(s, np.float64)) for s in samples]
    dof = np.array([max(x.size - 1, 0) for x in logs], np.float64)
    own = np.array([x.var(ddof=1) if x.size > 1 else 0.0 for x in logs])
    pooled = float((dof * own).sum() / dof.sum()) if dof.sum() else 0.0
    variance = (PRIOR_DOF * pooled + dof * own) / (PRIOR_DOF + dof)
    sizes = np.array([x.size for x in logs])
    return np.array([x.mean() for x in logs]), np.sqrt(variance / sizes)


def upper_part(x: np.ndarray) -> slice:
    """Abscissae from an eighth of the largest on (128 to 1024 of 64 to 1024), at least three: where 1/N laws
    hold.
    """
    return slice(min(int(np.searchsorted(x, x[-1] / 8)), max(len(x) - 3, 0)), None)


def fit_samples(x: Sequence[float], samples: Sequence[Any], *, upper: bool = False) -> dict[str, Any]:
    """Fit ``log y = intercept + slope log x`` to positive samples (one array over seeds for each x).

    ``upper``: only the wide networks are used, see :func:`upper_part`.  Samples that are not finite and
    positive are an error: see :func:`usable`.
    """
    arrays = [np.asarray(s, np.float64).ravel() for s in samples]
    if any(a.size == 0 or not np.all(np.isfinite(a) & (a > 0)) for a in arrays):
        raise ValueError("samples must be positive and finite, at least one at each abscissa.")
    y, se = log_statistics(arrays)
    return fit_points(x, np.exp(y), se, upper=upper)


def fit_points(
    x: Sequence[float] | np.ndarray,
    y: Sequence[float] | np.ndarray,
    se: Sequence[float] | np.ndarray | None = None,
    *,
    upper: bool = False,
    level: float = 0.95,
) -> dict[str, Any]:
    """Weighted least squares of log y on log x; ``se`` are standard errors of log y (None: equal weights).

    The standard error of the slope is that of the weights, enlarged by the root of chi^2/dof where the points
    scatter more than their errors say (curvature included).  The interval is normal where errors are given
    (they rest on many seeds), Student's t where they come from the scatter of the points alone.
    """  # fmt: skip
    from scipy import special  # here: figures are named, and settings refused, without loading it

    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    keep = upper_part(x) if upper else slice(None)
    x, y = x[keep], y[keep]
    u, v = np.log(x), np.log(y)
    known = se is not None and bool(np.all(np.asarray(se)[keep] > 0))
    s = np.asarray(se, np.float64)[keep] if known and se is not None else np.ones_like(u)
    w = 1.0 / s**2
    u0, v0 = (w * u).sum() / w.sum(), (w * v).sum() / w.sum()
    spread = (w * (u - u0) ** 2).sum()
    slope = float((w * (u - u0) * (v - v0)).sum() / spread)
    intercept = float(v0 - slope * u0)
    dof = len(u) - 2
    chi2 = float((w * (v - intercept - slope * u) ** 2).sum())
    scale = chi2 / dof if dof > 0 else 1.0
    inflate = scale if not known else max(1.0, scale)
    error = float(np.sqrt(inflate / spread))
    tail = 0.5 + level / 2
    quantile = float(special.ndtri(tail) if known or dof < 1 else special.stdtrit(dof, tail))
    return {
        "slope": slope,
        "se": error,
        "ci": [slope - quantile * error, slope + quantile * error],
        "level": level,
        "intercept": intercept,
        "x": x.tolist(),
        "y": y.tolist(),
        "local": (np.diff(v) / np.diff(u)).tolist(),
    }
