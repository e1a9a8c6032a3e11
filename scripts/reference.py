#!/usr/bin/env python
"""Write the pages of docs/ that are made from the code: claims.md and cli.md.  A test says when they are out of date.

uv run scripts/reference.py
"""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

from widelimit.lab import CLAIMS

DOCS = pathlib.Path(__file__).resolve().parents[1] / "docs"
COMMANDS = ["", "lab", "claims", "fig", "verify", "lazy"]
MADE = "<!-- Made by scripts/reference.py: change the code, not this page. -->\n"

CLAIMS_HEAD = """# Claims

What `widelimit lab` judges: the claims of an expository post on the Neural Tangent Kernel, each as a statement that can
be measured. `widelimit claims --list` prints them. A claim *holds* if the measured exponent lies in the band below; the
report gives it with its confidence interval. A, B and C are claims of the post that are wrong or too strong: there the
corrected statement is what is checked.
"""

CLI_HEAD = """# Command line

`widelimit` is installed with the package; from a checkout, `uv run widelimit …`. The claims are those of
[this page](claims.md).

| Exit code | Meaning |
| --- | --- |
| 0 | all is well |
| 1 | a claim falls short (`verify`), or an experiment failed |
| 2 | bad input: one line says what and how to put it right |
| 130 | interrupted; the same command with the same `--out` goes on |
"""


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", text)


def claims_page() -> str:
    """claims.md, from `widelimit.lab.CLAIMS`."""
    rows = [f"| [{c.id}](#{_anchor(c)}) | {c.title} | {_escaped(c.theory)} |" for c in CLAIMS]
    out = [MADE, CLAIMS_HEAD, "| | Claim | Theory |\n| --- | --- | --- |\n" + "\n".join(rows) + "\n"]
    for c in CLAIMS:
        out.append(
            f"## {c.id} · {c.title} {{ #{_anchor(c)} }}\n\n"
            f"- **The post says:** {_escaped(c.post)}\n"
            f"- **Checked:** {_escaped(c.statement)}\n"
            f"- **Theory:** {_escaped(c.theory)}\n"
            f"- **Holds if:** {_escaped(c.acceptance)}\n"
            f"- **Figures:** {', '.join(c.figures) or '–'}\n"
        )
    return "\n".join(out)


def _anchor(claim) -> str:
    return f"claim-{claim.id.lower()}"


def help_of(command: str) -> str:
    """What ``widelimit COMMAND --help`` prints."""
    environment = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb", "PYTHONIOENCODING": "utf-8"}
    words = [sys.executable, "-m", "widelimit.cli", *([command] if command else []), "--help"]
    done = subprocess.run(words, capture_output=True, encoding="utf-8", check=True, env=environment)
    return done.stdout


def cli_page() -> str:
    """cli.md, from the commands' own help."""
    out = [MADE, CLI_HEAD]
    for command in COMMANDS:
        shown = "\n".join(f"    {line}".rstrip() for line in help_of(command).splitlines())
        name = f"widelimit {command}".strip()
        out.append(f"## {name}\n\n    $ {name} --help\n\n{shown}\n")
    return "\n".join(out)


def main() -> None:
    """Write both."""
    (DOCS / "claims.md").write_text(claims_page(), encoding="utf-8")
    (DOCS / "cli.md").write_text(cli_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
