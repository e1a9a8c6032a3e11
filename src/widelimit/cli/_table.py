"""The verdicts and the prediction job as tables for the terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from widelimit import report

__all__ = ["print_prediction", "print_verdicts", "terminal"]

_SIGNS = {"holds": ("✓", "green"), "falls short": ("✗", "bold red"), "not judged": ("○", "dim")}


def terminal() -> Console:
    """Standard output; 100 columns wide where it goes to a file."""
    console = Console(highlight=False, markup=False, emoji=False)
    return console if console.is_terminal else Console(
        highlight=False, markup=False, emoji=False, width=100, file=sys.stdout
    )  # fmt: skip


def print_verdicts(results: Mapping[str, Any], console: Console) -> None:
    """One row a claim: what was measured, what theory says, the verdict; reasons below where one falls short."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("")
    table.add_column("Claim", overflow="fold")
    table.add_column("Measured [95 % interval]", overflow="fold")
    table.add_column("Theory", overflow="fold")
    table.add_column("Verdict", no_wrap=True)
    for claim in results["claims"]:
        sign, style = _SIGNS.get(claim["verdict"], ("○", "dim"))
        table.add_row(
            claim["id"],
            claim["title"],
            report.plain_symbols(report.measured(claim)),
            report.plain_symbols(report.theory(claim)),
            Text(f"{sign} {claim['verdict']}", style=style),
        )
    console.print(table)
    for claim in results["claims"]:
        if claim["verdict"] != "holds":
            console.print(f"{claim['id']}: {report.plain_symbols(claim['sentence'])}")
    console.print(Text(report.headline(results["claims"]), style="bold"))


def print_prediction(results: Mapping[str, Any], console: Console) -> None:
    """The prediction job at its largest training set."""
    prediction = results.get("prediction")
    if not prediction or not prediction["rows"]:
        return
    largest = max(row["n"] for row in prediction["rows"])
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column(f"Predictor, {largest} training points")
    table.add_column(prediction["metric"], justify="right")
    table.add_column("Time", justify="right")
    for row in prediction["rows"]:
        if row["n"] == largest:
            value = report.score(row["score"], prediction["metric"], row["score_se"])
            table.add_row(row["predictor"], value, report.duration(row["seconds"]))
    console.print(table)
