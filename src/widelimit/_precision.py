"""Float64 without the global flag: one context manager, on every supported JAX."""

from __future__ import annotations

from contextlib import AbstractContextManager

import jax

__all__ = ["enable_x64"]


def enable_x64(enabled: bool = True) -> AbstractContextManager[None]:
    """Trace and run JAX code with 64-bit types on (or off) inside a `with` block.

    The user's `jax_enable_x64` flag is left as it is outside the block.
    """
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(enabled)
    # Older JAX spells the same public context manager under `jax.experimental`.
    from jax.experimental import enable_x64 as experimental_enable_x64

    return experimental_enable_x64(enabled)
