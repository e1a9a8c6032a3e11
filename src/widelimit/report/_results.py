"""Reading a results document, and saying plainly when it is not one."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

__all__ = ["SCHEMA", "ResultsError", "check_results", "read_results"]

SCHEMA = 1
_PARTS = {
    "settings": dict, "data": dict, "network": dict, "versions": dict, "conventions": list, "experiments": list,
    "claims": list, "figures": dict,
}  # fmt: skip


class ResultsError(ValueError):
    """What was given is not a results document of the lab; the message says what is wrong."""


def read_results(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The results in a ``results.json``, or in the output directory that holds one; raises ResultsError."""
    file = pathlib.Path(path).expanduser()
    if file.is_dir():
        file = file / "results.json"
    if not file.exists():
        raise ResultsError(f"no such file: {str(file)!r}; give the --out directory of a finished 'widelimit lab'.")
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ResultsError(f"cannot read {str(file)!r}: {error}") from error
    except json.JSONDecodeError as error:
        raise ResultsError(f"{str(file)!r} is not JSON (line {error.lineno}): {error.msg}.") from error
    return check_results(document, str(file))


def check_results(document: Any, where: str = "results") -> dict[str, Any]:
    """The document itself if it has the parts every results document has; raises ResultsError."""
    if not isinstance(document, dict) or "schema" not in document:
        raise ResultsError(f"{where} is not a results document of widelimit: it has no schema number.")
    if document["schema"] != SCHEMA:
        raise ResultsError(
            f"{where} has schema {document['schema']!r}, and this version reads {SCHEMA}; run the lab again."
        )
    wrong = [name for name, kind in _PARTS.items() if not isinstance(document.get(name), kind)]
    if wrong:
        raise ResultsError(f"{where} lacks {', '.join(wrong)}; run the lab again.")
    return document
