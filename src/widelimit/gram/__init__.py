"""From a kernel function to Gram matrices, and their products with vectors."""

from widelimit.gram._gram import check_kernel, check_limits, checked_examples, gram, gram_diag
from widelimit.gram._product import diagonals, gram_product, tile_of

__all__ = [
    "check_kernel", "check_limits", "checked_examples", "diagonals", "gram", "gram_diag", "gram_product", "tile_of",
]  # fmt: skip
