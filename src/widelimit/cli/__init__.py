"""The command line: ``widelimit lab``, ``claims``, ``fig``, ``verify``."""

from widelimit.cli._main import ExitCode, main

__all__ = ["ExitCode", "main"]
