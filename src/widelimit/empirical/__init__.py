"""Finite networks: their empirical NTK, its random projections, and expansions."""

from widelimit.empirical._features import layer_inputs
from widelimit.empirical._monte_carlo import MonteCarlo, monte_carlo
from widelimit.empirical._ntk import EmpiricalKernel, empirical_ntk
from widelimit.empirical._parameters import check_like, names_of
from widelimit.empirical._projection import ntk_features, projection_bound, projection_standard_error
from widelimit.empirical._taylor import linearize, taylor

__all__ = [
    "EmpiricalKernel", "MonteCarlo", "check_like", "empirical_ntk", "layer_inputs", "linearize", "monte_carlo",
    "names_of", "ntk_features", "projection_bound", "projection_standard_error", "taylor",
]  # fmt: skip
