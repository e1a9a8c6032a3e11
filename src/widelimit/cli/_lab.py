"""``widelimit lab``: the exact limit, trained networks, every claim judged, one page."""

from __future__ import annotations

import pathlib
from typing import Annotated

from cyclopts import Parameter

from widelimit.cli._exit import ExitCode
from widelimit.cli._options import LabOptions

_DEFAULTS = LabOptions()


def lab(
    *,
    options: LabOptions = _DEFAULTS,
    claims: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    out: pathlib.Path = pathlib.Path("widelimit-lab"),
) -> int:
    """Check on data that wide networks behave as their exact limit says; write results.json and one page.

    Interrupted and started again with the same --out, it goes on where it was.

    Parameters
    ----------
    claims
        Which claims, such as 2,5b,A [default: all]; 'widelimit claims --list' lists them.
    out
        Directory for results.json, index.html and figures/; it must be new, empty, or of an earlier run.
    """
    settings = options.settings(claims)
    from widelimit import lab as laboratory
    from widelimit import report
    from widelimit.cli._progress import LabProgress

    with LabProgress() as progress, report.Drawings() as drawings:
        results = laboratory.run(settings, out=out, progress=progress, figure_made=drawings.add)
        page = report.write_report(results, out, told=progress.drawing, drawings=drawings)
    from widelimit.cli._table import print_prediction, print_verdicts, terminal

    console = terminal()
    console.print(f"{results['title']}: {report.duration(results['seconds'])}")
    print_verdicts(results, console)
    print_prediction(results, console)
    console.print(f"Page: {page}", soft_wrap=True)
    return ExitCode.OK if results["complete"] else ExitCode.SHORT
