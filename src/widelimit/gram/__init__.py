"""From a kernel function to Gram matrices."""

from widelimit.gram._gram import gram, gram_diag

__all__ = ["gram", "gram_diag"]
