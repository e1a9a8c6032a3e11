"""Where JAX's versions differ: 64-bit types without the global flag, and the type of a value being traced."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
import jax.core

__all__ = ["at_once", "enable_x64", "exact_products", "is_traced"]


def enable_x64(enabled: bool = True) -> AbstractContextManager[None]:
    """Trace and run JAX code with 64-bit types on (or off) inside a `with` block.

    The user's `jax_enable_x64` flag is left as it is outside the block.
    """
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(enabled)
    # Older JAX spells the same public context manager under `jax.experimental`.
    experimental: Any = __import__("jax.experimental", fromlist=["enable_x64"])
    return experimental.enable_x64(enabled)


def exact_products() -> AbstractContextManager[None]:
    """Multiply float32 matrices in float32 in a `with` block; accelerators would otherwise round to 10 or 7 bits."""
    return jax.default_matmul_precision("highest")


def is_traced(x: Any) -> bool:
    """Whether x stands for a value that is not known yet (inside `jit`, `grad`, `vmap`, ...)."""
    return isinstance(x, jax.core.Tracer)


def at_once(*values: Any) -> AbstractContextManager[None]:
    """Compute in a `with` block now, also while JAX traces, where all the values are known.

    A number that came to be traced would no longer tell which function it is part of, and hide its closed form.
    """
    return nullcontext() if any(map(is_traced, values)) else jax.ensure_compile_time_eval()
