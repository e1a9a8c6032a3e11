"""``widelimit verify``: the verdicts in the terminal, and in the exit code."""

from __future__ import annotations

import pathlib
from typing import Annotated

from cyclopts import Parameter

from widelimit.cli._exit import ExitCode, InputError
from widelimit.cli._options import LabOptions

_DEFAULTS = LabOptions()


def verify(
    *,
    options: LabOptions = _DEFAULTS,
    claims: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    out: pathlib.Path | None = None,
    results: pathlib.Path | None = None,
) -> int:
    """Judge the claims and print the table; exit code 1 if one falls short or an experiment failed.

    Parameters
    ----------
    claims
        Which claims, such as 2,5b,A [default: all].
    out
        Keep the experiments and results.json there; an interrupted run with the same --out goes on.
    results
        Judge from the results of an earlier 'widelimit lab' (its --out) instead of computing.
    """
    from widelimit import report

    if results is not None:
        document = _chosen(report.read_results(results), claims)
    else:
        settings = options.settings(claims)
        from widelimit import lab
        from widelimit.cli._progress import LabProgress

        with LabProgress() as progress:
            document = lab.run(settings, out=out, progress=progress)
    from widelimit.cli._table import print_verdicts, terminal

    print_verdicts(document, terminal())
    short = any(c["verdict"] == "falls short" for c in document["claims"])
    return ExitCode.SHORT if short or not document["complete"] else ExitCode.OK


def _chosen(document: dict, claims: list[str] | None) -> dict:
    from widelimit.cli._options import separate

    if not document["claims"]:
        raise InputError("these results hold no claims: they were made for one figure; run 'widelimit lab'.")
    if claims is None:
        return document
    wanted = {c.lower() for c in separate(claims)}
    there = [c["id"] for c in document["claims"]]
    unknown = sorted(wanted - {c.lower() for c in there})
    if unknown or not wanted:
        raise InputError(f"--claims: {', '.join(unknown) or 'nothing'} is not in these results: {', '.join(there)}.")
    return {**document, "claims": [c for c in document["claims"] if c["id"].lower() in wanted]}
