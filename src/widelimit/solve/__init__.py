"""Linear algebra on Gram matrices, held or not."""

from widelimit.solve._estimate import Estimate
from widelimit.solve._krylov import ConditionNumber, Eigenpairs, condition_number, top_eigenpairs
from widelimit.solve._norms import effective_rank, frobenius_norm, operator_trace
from widelimit.solve._operator import operator
from widelimit.solve._quadrature import Quadrature, SpectralDensity, log_determinant, spectral_density
from widelimit.solve._spectrum import SingularGramWarning, Spectrum, checked_gram, spectrum

__all__ = [
    "ConditionNumber", "Eigenpairs", "Estimate", "Quadrature", "SingularGramWarning", "SpectralDensity", "Spectrum",
    "checked_gram", "condition_number", "effective_rank", "frobenius_norm", "log_determinant", "operator",
    "operator_trace", "spectral_density", "spectrum", "top_eigenpairs",
]  # fmt: skip
