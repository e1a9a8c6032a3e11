"""Finite models of any framework as functions of their parameters, and their empirical kernels."""

from widelimit.models._functional import empirical_ntk, functional, ntk_features

__all__ = ["empirical_ntk", "functional", "ntk_features"]
