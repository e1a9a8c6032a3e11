"""The entry point: every error the user can put right becomes one line and an exit code."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

import cyclopts

from widelimit.cli import _claims, _fig, _lab, _lazy, _verify
from widelimit.cli._exit import ExitCode, InputError

__all__ = ["ExitCode", "app", "main"]


def _version() -> str:
    from importlib.metadata import version

    return f"widelimit {version('widelimit')}"


app = cyclopts.App(
    name="widelimit",
    help=(
        "The infinite-width limit of a neural network, exactly, on your own data.\n\n"
        "Exit codes: 0 all is well; 1 a claim falls short (verify) or an experiment failed; 2 bad input; "
        "130 interrupted."
    ),
    version=_version,
    suppress_keyboard_interrupt=False,
    help_format="plaintext",
)
app.command(_lab.lab)
app.command(_claims.claims)
app.command(_fig.fig)
app.command(_verify.verify)
app.command(_lazy.lazy)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code (``arguments``: those of the process if None)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without λ or ✓ must not end the run
    sys.exit(int(_run(sys.argv[1:] if arguments is None else list(arguments))))


def _run(arguments: list[str]) -> int:
    try:
        code = app(arguments, print_error=False, exit_on_error=False, result_action="return_value")
        sys.stdout.flush()
    except cyclopts.CycloptsError as error:
        return _refuse(str(error), "'widelimit --help' lists what there is.")
    except KeyboardInterrupt:
        _say("interrupted; what was finished is kept: start it again with the same --out to go on.")
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has what it wanted; the interpreter must not try to flush again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except Exception as error:
        if not isinstance(error, _expected_errors()):
            raise
        return _refuse(str(error))
    return ExitCode.OK if code is None else code


def _expected_errors() -> tuple[type[Exception], ...]:
    """The errors whose message is meant for the user; rooms that were not loaded cannot have raised theirs."""
    lab, report = sys.modules.get("widelimit.lab"), sys.modules.get("widelimit.report")
    found = (getattr(lab, "LabError", None), getattr(report, "ResultsError", None))
    return (InputError, *(e for e in found if e is not None))


def _refuse(message: str, remedy: str = "") -> int:
    _say(" ".join(f"{message} {remedy}".split()))
    return ExitCode.BAD_INPUT


def _say(message: str) -> None:
    print(f"widelimit: {message}", file=sys.stderr)
