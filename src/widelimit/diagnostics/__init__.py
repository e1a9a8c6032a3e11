"""How lazy a network is: kernel drift, movement, linearisation, curvature, and what they scale like."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from widelimit.diagnostics._curvature import extreme_eigenvalues, largest_eigenvalue
    from widelimit.diagnostics._document import document, text_of
    from widelimit.diagnostics._fit import fit_points, fit_samples, log_statistics
    from widelimit.diagnostics._laziness import laziness
    from widelimit.diagnostics._measures import alignment, effective_rank, operator_norm
    from widelimit.diagnostics._plain import plain
    from widelimit.diagnostics._result import Laziness
    from widelimit.diagnostics._sweep import LazinessSweep, built, is_builder, laziness_sweep
else:
    # Fits and measures are plain NumPy, and are asked for before anything needs JAX.
    _FILE_OF = {
        "extreme_eigenvalues": "_curvature", "largest_eigenvalue": "_curvature", "fit_points": "_fit",
        "fit_samples": "_fit", "log_statistics": "_fit", "laziness": "_laziness", "alignment": "_measures",
        "effective_rank": "_measures", "operator_norm": "_measures", "Laziness": "_result", "LazinessSweep": "_sweep",
        "laziness_sweep": "_sweep", "built": "_sweep", "is_builder": "_sweep", "document": "_document",
        "text_of": "_document", "plain": "_plain",
    }  # fmt: skip

    def __getattr__(name):
        if name not in _FILE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.{_FILE_OF[name]}"), name)


__all__ = [
    "Laziness", "LazinessSweep", "alignment", "built", "document", "effective_rank", "extreme_eigenvalues",
    "fit_points", "fit_samples", "is_builder", "largest_eigenvalue", "laziness", "laziness_sweep", "log_statistics",
    "operator_norm", "plain", "text_of",
]  # fmt: skip
