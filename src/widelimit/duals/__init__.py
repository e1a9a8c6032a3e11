"""Gaussian expectations of scalar functions: ``E[phi(u) phi(v)]`` and its derivatives (duals)."""

from widelimit.duals._dual import Dual, Pair, derivative, moment
from widelimit.duals._elu import Elu
from widelimit.duals._erf import Erf, Gelu, erf_cross
from widelimit.duals._exponential import Exponential, Gaussian, Sine
from widelimit.duals._kinked import Kinked, as_kinked, kinked_cross
from widelimit.duals._piecewise_linear import PiecewiseLinear, piecewise_linear_cross
from widelimit.duals._polynomial import Polynomial
from widelimit.duals._quasi_monte_carlo import DEFAULT_POINTS, gaussian_average
from widelimit.duals._recognise import recognise
from widelimit.duals._rectified import RectifiedMonomial, Step
from widelimit.duals._series import Series, jumps, series_cross, series_cross_error

__all__ = [
    "DEFAULT_POINTS", "Dual", "Elu", "Erf", "Exponential", "Gaussian", "Gelu", "Kinked", "Pair", "PiecewiseLinear",
    "Polynomial", "RectifiedMonomial", "Series", "Sine", "Step", "as_kinked", "derivative", "erf_cross",
    "gaussian_average", "jumps", "kinked_cross", "moment", "piecewise_linear_cross", "recognise", "series_cross",
    "series_cross_error",
]  # fmt: skip
