"""``widelimit fig NAME``: one figure."""

from __future__ import annotations

import pathlib

from widelimit.cli._exit import ExitCode, InputError
from widelimit.cli._options import LabOptions

_DEFAULTS = LabOptions()


def fig(
    name: str,
    /,
    *,
    options: LabOptions = _DEFAULTS,
    results: pathlib.Path | None = None,
    out: pathlib.Path = pathlib.Path("."),
) -> int:
    """Make one figure as SVG and PDF, and print what it shows and its numbers.

    Parameters
    ----------
    name
        F2, F3, F5, F6, F7, F9, F11, F12, F13, F14, F16 or F21.
    results
        Draw it from the results of an earlier 'widelimit lab' (its --out) instead of computing.
    out
        A directory, or one file that ends in .svg, .pdf or .png.
    """
    _check_out(out)
    if results is None:
        document = _compute(name, options)
    else:
        from widelimit import report

        document = report.read_results(results)
    figure = _find(name, document)
    from widelimit import report

    written = _write(report, figure, out)
    print(f"{figure['id']}  {figure['title']}\n{report.plain_symbols(figure['see'])}")
    for entry in figure["numbers"]:
        print(f"  {report.plain_symbols(entry['name'])}: {report.plain_symbols(entry['text'])}")
    print(f"Written: {', '.join(map(str, written))}")
    return ExitCode.OK


def _compute(name: str, options: LabOptions) -> dict:
    settings = options.settings()
    from widelimit import lab
    from widelimit.cli._progress import LabProgress

    with LabProgress() as progress:
        return lab.run_figure(name, settings, progress=progress)


def _check_out(out: pathlib.Path) -> None:
    """Before any work: a place that can be written to."""
    if out.suffix and not out.is_dir():
        if out.suffix not in (".svg", ".pdf", ".png"):
            raise InputError(f"--out: {str(out)!r} must be a directory or end in .svg, .pdf or .png.")
        out = out.parent
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".widelimit-probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"--out: cannot write to {str(out)!r}: {error.strerror or error}.") from error


def _find(name: str, document: dict) -> dict:
    for key, figure in document["figures"].items():
        if key.lower() == name.lower():
            return figure
    failed = [e for e in document["experiments"] if e["error"]]
    if failed:
        raise InputError(f"figure {name}: its experiment {failed[0]['title']!r} failed: {failed[0]['error']}")
    there = ", ".join(document["figures"]) or "none"
    raise InputError(f"unknown figure {name!r}; these results hold {there}.")


def _write(report, figure: dict, out: pathlib.Path) -> list[pathlib.Path]:
    drawn = report.draw(figure)
    if out.is_dir() or not out.suffix:
        return report.save_figure(drawn, out, figure["id"])
    return report.save_figure(drawn, out.parent, out.stem, kinds=(out.suffix[1:],))
