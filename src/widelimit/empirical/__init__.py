"""Finite networks: their empirical NTK, its random projections, and expansions."""

from widelimit.empirical._features import ntk_features, projection_bound, projection_standard_error
from widelimit.empirical._monte_carlo import MonteCarlo, monte_carlo
from widelimit.empirical._ntk import EmpiricalKernel, empirical_ntk
from widelimit.empirical._taylor import linearize, taylor

__all__ = [
    "EmpiricalKernel", "MonteCarlo", "empirical_ntk", "linearize", "monte_carlo", "ntk_features", "projection_bound",
    "projection_standard_error", "taylor",
]  # fmt: skip
