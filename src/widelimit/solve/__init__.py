"""Linear algebra on Gram matrices."""

from widelimit.solve._spectrum import SingularGramWarning, Spectrum, checked_gram, spectrum

__all__ = ["SingularGramWarning", "Spectrum", "checked_gram", "spectrum"]
