"""``widelimit claims``: what is judged, and what it takes to hold."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter


def claims(
    *,
    all_lines: Annotated[bool, Parameter(name="--list", negative="", show_default=False)] = False,
    long: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> int:
    """The claims that 'widelimit lab' judges.

    Parameters
    ----------
    all_lines
        One line a claim (this is also what happens without it).
    long
        Also what the post says, what is checked, and the band it must lie in.
    """
    from rich.table import Table

    from widelimit import report
    from widelimit.cli._exit import ExitCode
    from widelimit.cli._table import terminal
    from widelimit.lab import CLAIMS

    console = terminal()
    if long:
        for claim in CLAIMS:
            console.print(f"{claim.id}  {claim.title}", style="bold")
            for name, text in (
                ("the post says", claim.post), ("checked", claim.statement), ("theory", claim.theory),
                ("holds if", claim.acceptance), ("figures", ", ".join(claim.figures) or "–"),
            ):  # fmt: skip
                console.print(f"    {name}: {report.plain_symbols(text)}")
        return ExitCode.OK
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("")
    table.add_column("Claim", overflow="fold")
    table.add_column("Theory", overflow="fold")
    table.add_column("Figures", overflow="fold")
    for claim in CLAIMS:
        table.add_row(claim.id, claim.title, report.plain_symbols(claim.theory), ", ".join(claim.figures))
    console.print(table)
    return ExitCode.OK
