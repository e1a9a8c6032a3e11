"""The error for programs whose infinite-width limit is not known."""

from __future__ import annotations

__all__ = ["UnknownLimitError"]


class UnknownLimitError(NotImplementedError):
    """No rule gives the limit of this construction; the message names it and what can be done."""
