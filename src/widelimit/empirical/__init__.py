"""Finite networks: their empirical NTK and expansions."""

from widelimit.empirical._monte_carlo import MonteCarlo, monte_carlo
from widelimit.empirical._ntk import EmpiricalKernel, empirical_ntk
from widelimit.empirical._taylor import linearize, taylor

__all__ = ["EmpiricalKernel", "MonteCarlo", "empirical_ntk", "linearize", "monte_carlo", "taylor"]
