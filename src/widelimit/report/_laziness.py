"""The page of the laziness report: a verdict, tables, figures, and what would change it."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from widelimit.report._background import Drawings
from widelimit.report._page import Told, colours, drawn_figures, environment, write_whole
from widelimit.report._results import ResultsError

__all__ = ["laziness_page", "write_laziness"]

_PARTS = ("title", "verdict", "sentence", "advice", "tables", "figures", "conventions", "versions", "result")


def _checked(document: Any) -> dict[str, Any]:
    if not isinstance(document, dict) or document.get("kind") != "laziness" or any(p not in document for p in _PARTS):
        raise ResultsError("this is not the document of a laziness report; 'widelimit lazy' writes one.")
    return document


def laziness_page(document: Mapping[str, Any], *, told: Told | None = None) -> str:
    """The report as one self-contained HTML document; ResultsError for what is not one."""
    return _page(_checked(document), told, None)


def _page(document: Mapping[str, Any], told: Told | None, files: pathlib.Path | None) -> str:
    figures = drawn_figures(document["figures"], told, Drawings(), files)
    return environment().get_template("laziness.html.j2").render(r=document, figures=figures, **colours())


def write_laziness(
    document: Mapping[str, Any], directory: str | os.PathLike[str], *, told: Told | None = None
) -> pathlib.Path:
    """Write ``index.html``, ``figures/`` and ``laziness.json`` into the directory; returns the path of the page."""
    document, folder = _checked(document), pathlib.Path(directory)
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    kept = {k: v for k, v in document.items() if k != "figures"}
    write_whole(folder / "laziness.json", json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    return write_whole(folder / "index.html", _page(document, told, folder / "figures"))
