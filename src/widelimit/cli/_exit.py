"""Exit codes, and the one kind of error that commands raise for bad input."""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """What the shell is told."""

    OK = 0
    SHORT = 1  # a claim falls short (verify), or an experiment failed (all commands that compute)
    BAD_INPUT = 2
    INTERRUPTED = 130


class InputError(ValueError):
    """Something the user can put right: the message is one line and says how."""
