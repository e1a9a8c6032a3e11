"""Errors of the lab: each message is meant for the terminal and names the remedy."""

from __future__ import annotations


class LabError(Exception):
    """Something the user can put right: the message says what and how."""


class SettingsError(LabError, ValueError):
    """A setting is not valid."""


class DataError(LabError, ValueError):
    """The data cannot be read or cannot be used."""


class OutputError(LabError, OSError):
    """The output directory cannot be used."""
