"""The output directory: one file per finished experiment, written whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from widelimit.diagnostics import plain
from widelimit.lab._errors import OutputError

MARKER = "lab.json"
TEMPORARY = ".widelimit-"


def fingerprint(document: Mapping[str, Any]) -> str:
    """A short name of a document: equal documents, equal fingerprints."""
    text = json.dumps(plain(document), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_json(path: pathlib.Path, document: Mapping[str, Any]) -> None:
    """Write to a temporary file beside it, then rename; raises OutputError."""
    temporary = path.with_name(f"{TEMPORARY}{path.name}.{os.getpid()}")
    text = json.dumps(plain(document), ensure_ascii=False, indent=1, allow_nan=False)
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise OutputError(
            f"cannot write {str(path)!r}: {error.strerror or error}. Free space or give another --out."
        ) from error


def _read_json(path: pathlib.Path) -> dict[str, Any] | None:
    """The document, or None if there is none or it is damaged."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        return None
    return document if isinstance(document, dict) else None


def _contents(path: pathlib.Path) -> list[str]:
    return [p.name for p in path.iterdir() if not p.name.startswith(TEMPORARY)]


def check_place(path: pathlib.Path) -> None:
    """Raise OutputError if there is a file, or a directory with things that the lab did not write."""
    path = path.expanduser()
    try:
        if path.exists() and not path.is_dir():
            raise OutputError(f"{str(path)!r} is a file; --out must be a directory.")
        present = _contents(path) if path.exists() else []
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"cannot use {str(path)!r} as --out: {error.strerror or error}.") from error
    if present and MARKER not in present:
        raise OutputError(
            f"{str(path)!r} is not empty and was not made by widelimit lab (it holds {min(present)!r}); "
            "give a new or empty directory."
        )


class Store:
    """Finished experiments of one run, in memory or in a directory.

    identity: whatever decides the results (settings, data, version).  A directory that belongs to a run with
    another identity, that was not written by the lab, or that cannot be written raises OutputError before any
    work.
    """

    def __init__(self, out: pathlib.Path | str | None, identity: Mapping[str, Any]) -> None:
        self.identity = plain(identity)
        self.path = None if out is None else pathlib.Path(out).expanduser()
        self._memory: dict[str, dict[str, Any]] = {}
        if self.path is not None:
            self._open(self.path)

    def _open(self, path: pathlib.Path) -> None:
        check_place(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            present = _contents(path)
        except OSError as error:
            raise OutputError(f"cannot use {str(path)!r} as --out: {error.strerror or error}.") from error
        if present:
            self._check_marker(path)
        else:
            write_json(path / MARKER, {"made_by": "widelimit lab", "identity": self.identity})
        try:
            (path / "experiments").mkdir(exist_ok=True)
            for folder in (path, path / "experiments"):
                for leftover in folder.glob(f"{TEMPORARY}*"):
                    leftover.unlink(missing_ok=True)
            probe = path / "experiments" / f"{TEMPORARY}probe.{os.getpid()}"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise OutputError(f"cannot write in {str(path)!r}: {error.strerror or error}.") from error

    def _check_marker(self, path: pathlib.Path) -> None:
        marker = _read_json(path / MARKER)
        if marker is None or marker.get("made_by") != "widelimit lab":
            raise OutputError(f"{str(path / MARKER)!r} was not written by widelimit lab; give another --out.")
        theirs = marker.get("identity", {})
        different = sorted(k for k in self.identity.keys() | theirs.keys() if self.identity.get(k) != theirs.get(k))
        if different:
            k = different[0]
            raise OutputError(
                f"{str(path)!r} holds a run with another {', '.join(different)} ({k}: "
                f"{_short(theirs.get(k))} there, "
                f"{_short(self.identity.get(k))} now); give another --out, or delete that directory."
            )

    def _file(self, name: str) -> pathlib.Path:
        assert self.path is not None
        return self.path / "experiments" / f"{name}.json"

    def load(self, name: str, revision: int) -> dict[str, Any] | None:
        """The record of a finished experiment: ``{"result", "seconds", "cpu_seconds"}``; None if not
        there.
        """
        if self.path is None:
            return self._memory.get(name)
        record = _read_json(self._file(name))
        key = fingerprint({"identity": self.identity, "experiment": name, "revision": revision})
        return record if record is not None and record.get("fingerprint") == key else None

    def save(self, name: str, revision: int, record: Mapping[str, Any]) -> dict[str, Any]:
        """Keep a record; returns it as it will be loaded."""
        key = fingerprint({"identity": self.identity, "experiment": name, "revision": revision})
        document = plain({"experiment": name, "fingerprint": key, **record})
        if self.path is None:
            self._memory[name] = document
        else:
            write_json(self._file(name), document)
        return document

    def write_results(self, document: Mapping[str, Any], name: str = "results.json") -> None:
        """Write the final document, if there is a directory."""
        if self.path is not None:
            write_json(self.path / name, document)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:37] + "…"
