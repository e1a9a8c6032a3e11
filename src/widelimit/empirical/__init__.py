"""Finite networks: their empirical NTK and expansions."""

from widelimit.empirical._ntk import EmpiricalKernel, empirical_ntk, linearize, taylor

__all__ = ["EmpiricalKernel", "empirical_ntk", "linearize", "taylor"]
