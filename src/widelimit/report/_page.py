"""The page: one HTML file with everything in it, to be opened from disk without a network."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jinja2
from markupsafe import Markup

from widelimit.report import _words
from widelimit.report._background import Drawings
from widelimit.report._figure import draw
from widelimit.report._results import check_results
from widelimit.report._svg import colour_variables, inline_svg, save_figure

__all__ = ["colours", "drawn_figures", "environment", "page", "save_figures", "write_report", "write_whole"]

Told = Callable[[str, int, int], None]


def page(results: Mapping[str, Any], *, told: Told | None = None) -> str:
    """The results as one self-contained HTML document: no script, no request, light and dark, wide and narrow.

    told: called with (figure, done, total) as figures are drawn.  Raises ResultsError for what is not a results
    document.
    """
    return _page(check_results(results), told, Drawings(), None)


def _page(results: Mapping[str, Any], told: Told | None, drawings: Drawings, files: pathlib.Path | None) -> str:
    """The page; with ``files`` the figures are also written there."""
    return environment().get_template("page.html.j2").render(
        r=results, figures=drawn_figures(results["figures"], told, drawings, files), score=_words.score,
        headline=_words.headline(results["claims"]), shown=set(results["figures"]), **colours(),
    )  # fmt: skip


def drawn_figures(
    figures: Mapping[str, Any], told: Told | None, drawings: Drawings, files: pathlib.Path | None
) -> list[dict[str, Any]]:
    """The figures with their drawings, fit to stand in a page; with ``files`` they are also written there."""
    out = []
    for i, (name, figure) in enumerate(figures.items()):
        if told:
            told(name, i, len(figures))
        drawing = drawings.take(figure)
        if files is not None:
            (files / f"{name}.svg").write_text(drawing.wide, encoding="utf-8")
            (files / f"{name}.pdf").write_bytes(drawing.pdf)
        wide, narrow = _inline(figure, drawing.wide, "w"), _inline(figure, drawing.narrow, "n")
        out.append({**figure, "wide": wide, "narrow": narrow})
    return out


def environment() -> jinja2.Environment:
    """The templates of pages, with numbers and symbols in the house's words."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent / "templates"),
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.filters |= {
        "text": lambda s: Markup(_words.marked_up(s)),
        "number": _words.number,
        "duration": _words.duration,
        "measured": _words.measured,
        "theory": _words.theory,
    }
    return made


def colours() -> dict[str, str]:
    """The figures' colours in both schemes."""
    return {"light": colour_variables(dark=False), "dark": colour_variables(dark=True)}


def _inline(figure: Mapping[str, Any], svg: str, suffix: str) -> str:
    description = f"{figure['title']}. {figure['see']}"
    return inline_svg(svg, prefix=f"{figure['id']}{suffix}", description=description)


def save_figures(results: Mapping[str, Any], directory: str | os.PathLike[str]) -> list[pathlib.Path]:
    """Each figure of the results as an SVG and a PDF file in the directory, which is made if need be."""
    folder = pathlib.Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, figure in check_results(results)["figures"].items():
        written += save_figure(draw(figure), folder, name)
    return written


def write_report(
    results: Mapping[str, Any],
    directory: str | os.PathLike[str],
    *,
    told: Told | None = None,
    drawings: Drawings | None = None,
) -> pathlib.Path:
    """Write ``index.html`` and ``figures/`` into the directory; returns the path of the page.

    told: called with (figure, done, total) for each figure; drawings: where some may be drawn already.

    The page appears in one piece: a reader never sees half of it, also if the writing is cut off.
    """
    results, folder = check_results(results), pathlib.Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "figures").mkdir(exist_ok=True)
    text = _page(results, told, drawings or Drawings(), folder / "figures")
    return write_whole(folder / "index.html", text)


def write_whole(target: pathlib.Path, text: str) -> pathlib.Path:
    """The file in one piece."""
    half = target.with_name(target.name + ".part")
    half.write_text(text, encoding="utf-8")
    half.replace(target)
    return target
