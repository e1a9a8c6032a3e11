"""Figures as SVG and PDF files, and as SVG that can stand inside a page, in light and in dark."""

from __future__ import annotations

import html
import io
import pathlib
import re
from collections.abc import Sequence
from typing import IO

import matplotlib
from matplotlib.figure import Figure

from widelimit.report._style import (
    GRID,
    INK,
    PALETTE,
    PALETTE_DARK,
    PAPER,
    QUIET,
    SHADES,
    SHADES_DARK,
    house_style,
)  # fmt: skip

__all__ = ["colour_variables", "figure_svg", "inline_svg", "save_figure", "write_figure"]

# name: (colour in the light scheme, which is the one of the files; colour in the dark scheme)
_COLOURS: dict[str, tuple[str, str]] = (
    {
        "ink": (INK, "#e6e9ed"),
        "quiet": (QUIET, "#9aa4af"),
        "grid": (GRID, "#30363d"),
        "paper": (PAPER, "#14181d"),
    }
    | {f"c{i}": pair for i, pair in enumerate(zip(PALETTE, PALETTE_DARK, strict=True))}
    | {f"s{i}": pair for i, pair in enumerate(zip(SHADES, SHADES_DARK, strict=True))}
)


def colour_variables(*, dark: bool) -> str:
    """The CSS declarations of the figures' colours in one scheme."""
    return " ".join(f"--f-{name}:{pair[dark]};" for name, pair in _COLOURS.items())


def figure_svg(figure: Figure, *, salt: str = "widelimit") -> str:
    """The figure as an SVG document: the same text, byte for byte, each time the same figure is drawn."""
    out = io.StringIO()
    with house_style():
        # Text stays text: small, selectable, read aloud by screen readers; the salt makes the ids repeatable.
        matplotlib.rcParams["svg.hashsalt"] = salt
        figure.savefig(out, format="svg", dpi=150, metadata={"Date": None, "Creator": None, "Title": salt})
    return out.getvalue()


def inline_svg(svg: str, *, prefix: str, description: str) -> str:
    """An SVG document made fit to stand inside an HTML page.

    Ids get the ``prefix``, so that several figures live on one page; colours of the house style become CSS variables
    with the colour as fallback; the fixed size gives way to the view box; ``description`` is for screen readers.
    """
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<(metadata|title|style)\b.*?</\1>\s*|<!--.*?-->\s*", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", body)
    body = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', body)
    body = re.sub(r' (?:d|x|y|transform|points)="[^"]*"', _short_numbers, body)
    for name, (colour, _) in _COLOURS.items():
        body = body.replace(colour, f"var(--f-{name},{colour})")
    body = re.sub(r"px 'DejaVu Sans'[^;\"]*", "px var(--f-font,sans-serif)", body)
    body = re.sub(r"\n\s*", "\n", body)
    end = body.index(">")
    head = re.sub(r'\s(?:width|height|version|xmlns:xlink|xmlns)="[^"]*"', "", body[:end])
    text = html.escape(description, quote=True)
    return f'{head} role="img" aria-label="{text}"{body[end:]}'.replace("xlink:href", "href").strip()


def _short_numbers(attribute: re.Match[str]) -> str:
    """Coordinates to a hundredth of a point: invisible, and a third of the size."""

    def shorten(match: re.Match[str]) -> str:
        return f"{float(match.group()):.2f}".rstrip("0").rstrip(".")

    return re.sub(r"-?\d+\.\d{3,}(?!\d*e)", shorten, attribute.group())


def write_figure(figure: Figure, to: pathlib.Path | IO[bytes], kind: str, *, title: str) -> None:
    """Write the figure as a PDF or PNG file, the same bytes each time."""
    metadata = {"CreationDate": None, "Title": title} if kind == "pdf" else {}
    with house_style():
        figure.savefig(to, format=kind, dpi=200, metadata=metadata)


def save_figure(
    figure: Figure, directory: pathlib.Path, stem: str, kinds: Sequence[str] = ("svg", "pdf")
) -> list[pathlib.Path]:
    """Write ``stem.svg``, ``stem.pdf`` or ``stem.png`` (as ``kinds`` say) into the directory; returns their paths."""
    written = []
    for kind in kinds:
        path = directory / f"{stem}.{kind}"
        if kind == "svg":
            path.write_text(figure_svg(figure, salt=stem), encoding="utf-8")
        else:
            write_figure(figure, path, kind, title=stem)
        written.append(path)
    return written
