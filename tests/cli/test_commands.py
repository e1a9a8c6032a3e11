"""The commands, their output and their exit codes."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys

import pytest

from widelimit.cli import ExitCode, main

COMMAND = [sys.executable, "-m", "widelimit.cli"]


@pytest.fixture
def run(capsys):
    """Run the command line: (exit code, standard output, standard error)."""

    def call(*arguments):
        with pytest.raises(SystemExit) as exit_:
            main([str(a) for a in arguments])
        return (exit_.value.code, *capsys.readouterr())

    return call


@pytest.fixture
def directory(results, tmp_path):
    """An output directory that holds the example's results, changed by ``directory(change)``."""

    def write(change=lambda results: None):
        change(results)
        (tmp_path / "results.json").write_text(json.dumps(results))
        return tmp_path

    return write


def test_exit_codes_are_the_documented_ones():
    assert [(c.name, int(c)) for c in ExitCode] == [
        ("OK", 0),
        ("SHORT", 1),
        ("BAD_INPUT", 2),
        ("INTERRUPTED", 130),
    ]


def test_version(run):
    from importlib.metadata import version

    assert run("--version") == (0, f"widelimit {version('widelimit')}\n", "")


@pytest.mark.parametrize("command", [(), ("lab",), ("claims",), ("fig",), ("verify",), ("lazy",)])
def test_help(run, command):
    code, out, err = run(*command, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(" ".join(["Usage: widelimit", *command])) and ("Exit codes" in out) == (not command)


def test_help_of_lab_names_every_option(run):
    out = run("lab", "--help")[1]
    for option in [
        "data",
        "target",
        "depth",
        "activation",
        "W-std",
        "b-std",
        "widths",
        "seeds",
        "seed",
        "claims",
        "quick",
        "full",
        "out",
    ]:
        assert f"--{option}" in out


def test_claims(run):
    code, out, err = run("claims", "--list")
    assert (code, err) == (0, "")
    rows = re.findall(r"^(\w+) +\S", out, re.MULTILINE)
    assert [r for r in rows if len(r) < 3] == [
        "1",
        "2",
        "3",
        "4",
        "5",
        "5b",
        "5c",
        "6",
        "7",
        "8",
        "9",
        "10",
        "11",
        "12",
        "14",
        "A",
        "B",
        "C",
    ]
    long = run("claims", "--long")[1]
    assert long.count("holds if:") == 18 and "the post says:" in long


def test_verify_says_in_its_exit_code_whether_a_claim_falls_short(run, directory):
    code, out, _ = run("verify", "--results", directory())
    assert code == 1
    assert "✗ falls short" in out and "16 of 17 claims judged hold; claim 5b falls short. 1 was not judged." in out
    assert "−0.48 [−0.52, −0.44]" in out and "5b: Claim 5b" in out
    assert run("verify", "--results", directory(), "--claims", "2,3")[0] == 0
    assert run("verify", "--results", directory(), "--claims", "2", "5B")[0] == 1


def test_verify_of_a_failed_experiment(run, directory):
    def spoil(results):
        results["complete"] = False
        results["claims"] = [c for c in results["claims"] if c["verdict"] == "holds"]

    assert run("verify", "--results", directory(spoil))[0] == 1


def test_verify_of_claims_that_are_not_there(run, directory):
    code, _, err = run("verify", "--results", directory(), "--claims", "99")
    assert code == 2 and "99 is not in these results" in err


def test_fig_from_results(run, directory, tmp_path):
    code, out, err = run("fig", "f3", "--results", directory(), "--out", tmp_path / "here")
    assert (code, err) == (0, "")
    assert sorted(p.name for p in (tmp_path / "here").iterdir()) == ["F3.pdf", "F3.svg"]
    assert out.startswith("F3  Kernels at initialisation\n") and "slope −0.50 [−0.54, −0.46]; theory −½" in out


@pytest.mark.parametrize("kind", ["svg", "pdf", "png"])
def test_fig_into_one_file(run, directory, tmp_path, kind):
    assert run("fig", "F6", "--results", directory(), "--out", tmp_path / "new" / f"drift.{kind}")[0] == 0
    assert [p.name for p in (tmp_path / "new").iterdir()] == [f"drift.{kind}"]


def test_fig_that_is_not_in_the_results(run, directory):
    code, _, err = run("fig", "F1", "--results", directory())
    assert code == 2 and "unknown figure 'F1'" in err


def test_lab_end_to_end(run, tmp_path):
    """The smallest real run: two claims; a second start repeats nothing."""
    out = tmp_path / "out"
    arguments = ("lab", "--quick", "--claims", "10", "--widths", "16,32,64", "--out", out)
    code, text, progress = run(*arguments)
    assert code == 0
    assert "10  " in text and "holds" in text and f"Page: {out / 'index.html'}" in text.replace("\n", "")
    assert "1/1 " in progress and "earlier start" not in progress
    document = json.loads((out / "results.json").read_text())
    assert [c["id"] for c in document["claims"]] == ["10"] and document["settings"]["widths"] == [16, 32, 64]
    page = (out / "index.html").read_text()
    assert 'id="claim-10"' in page and "All 1" not in page and "The one claim judged holds." in page
    assert "(from an earlier start)" in run(*arguments)[2]


def test_an_unexpected_error_keeps_its_traceback(monkeypatch, directory):
    import widelimit.report

    monkeypatch.setattr(widelimit.report, "read_results", lambda path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["verify", "--results", str(directory())])


def test_interrupted(tmp_path):
    """Ctrl-C after the first experiment: exit code 130, one line, and what is finished is on disk."""
    command = [*COMMAND, "lab", "--quick", "--claims", "4,9,10", "--out", str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        first = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert first.startswith("1/"), first + err
    assert process.returncode == 130, err
    assert "widelimit: interrupted" in err.splitlines()[-1] and out == ""
    # Python itself reports an interrupt that fell into a callback, where it cannot be raised.
    assert "Traceback" not in err or "Exception ignored in" in err
    assert len(list((tmp_path / "out" / "experiments").iterdir())) >= 1
    assert not (tmp_path / "out" / "index.html").exists()


def test_an_interrupt_that_was_swallowed_is_raised_at_the_next_event():
    from widelimit.cli._progress import LabProgress

    event = {
        "event": "progress",
        "title": "",
        "job_index": 1,
        "jobs": 1,
        "fraction": 0.5,
        "seconds_left": None,
    }
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), LabProgress() as progress:  # noqa: PT012
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        progress(event)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_reader_that_stops_early_is_no_error():
    done = subprocess.run(
        f"{sys.executable} -m widelimit.cli claims --long | head -n 1",
        shell=True,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.count("\n") == 1 and done.stderr == ""


def test_a_terminal_without_unicode(results, directory):
    done = subprocess.run(
        [*COMMAND, "verify", "--results", str(directory())], capture_output=True, text=True,
        env={"PYTHONIOENCODING": "ascii", "PATH": "/usr/bin:/bin"}, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr
