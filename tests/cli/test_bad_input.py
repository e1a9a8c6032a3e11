"""Bad input: one line that names the remedy, exit code 2, no traceback, and nothing written."""

from __future__ import annotations

import os
import pathlib

import numpy as np
import pytest

from widelimit.cli import main


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Run the command line in an empty directory: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        with pytest.raises(SystemExit) as exit_:
            main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return exit_.value.code, out, err

    return call


def refused(result, *words):
    code, out, err = result
    assert code == 2, (code, out, err)
    assert out == ""
    assert err.startswith("widelimit: ") and err.count("\n") == 1, err
    assert "Traceback" not in err
    for word in words:
        assert word in err, err


def table(path: pathlib.Path, rows=40, **columns):
    rng = np.random.default_rng(0)
    given = {"a": rng.normal(size=rows), "b": rng.normal(size=rows), "y": rng.normal(size=rows)} | columns
    lines = [",".join(given), *(",".join(map(str, row)) for row in zip(*given.values(), strict=True))]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("name", ["nowhere.csv", "nowhere.npz", "nowhere"])
def test_no_such_file(run, name):
    refused(run("lab", "--data", name, "--target", "y"), "no such file", name)


def test_a_target_that_is_not_a_column(run, tmp_path):
    data = table(tmp_path / "data.csv")
    refused(run("lab", "--data", data, "--target", "price"), "'price'", "a, b, y")


def test_no_target(run, tmp_path):
    refused(run("lab", "--data", table(tmp_path / "data.csv")), "--target", "a, b, y")


def test_a_column_that_is_not_numeric(run, tmp_path):
    data = table(tmp_path / "data.csv", a=["red"] * 40)
    refused(run("lab", "--data", data, "--target", "y"), "'a'", "not a number")


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_values_that_are_not_finite(run, tmp_path, value):
    data = table(tmp_path / "data.csv", b=[0.5, value] * 20)
    refused(run("lab", "--data", data, "--target", "y"), "not finite", "'b'")


def test_a_target_that_is_not_finite(run, tmp_path):
    data = table(tmp_path / "data.csv", y=[0.5, "nan"] * 20)
    refused(run("lab", "--data", data, "--target", "y"), "target", "row 2")


def test_a_constant_target(run, tmp_path):
    data = table(tmp_path / "data.csv", y=[3] * 40)
    refused(run("lab", "--data", data, "--target", "y"), "constant")


def test_arrays_of_the_wrong_names_and_shapes(run, tmp_path):
    np.savez(tmp_path / "wrong.npz", Z=np.ones((40, 3)), y=np.arange(40))
    refused(run("lab", "--data", tmp_path / "wrong.npz"), "named X")
    np.savez(tmp_path / "wrong.npz", X=np.ones((40, 3)), y=np.arange(39))
    refused(run("lab", "--data", tmp_path / "wrong.npz"), "(39,)")


def test_unknown_activation(run):
    refused(run("lab", "--activation", "rellu"), "'rellu'", "relu")


@pytest.mark.parametrize("widths", ["64,128.5,256", "64,wide,256", "64:256", "6e2,700,800"])
def test_widths_that_are_not_integers(run, widths):
    refused(run("lab", "--widths", widths), "integer", "64,128,256")


def test_widths_that_make_no_sense(run):
    refused(run("lab", "--widths", "256,128,64"), "increase")
    refused(run("lab", "--widths", "64", "128"), "at least 3")
    refused(run("lab", "--widths=-64,128,256"), "between")


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("--depth", "two"), ("depth", "two")),
        (("--depth", "0"), ("depth", "1")),
        (("--W-std", "-1"), ("W_std",)),
        (("--b-std", "nan"), ("b_std",)),
        (("--seeds", "1"), ("seeds",)),
        (("--claims", "99"), ("'99'", "5b")),
        (("--quick", "--full"), ("--quick", "--full")),
        (("--no-such-option",), ("--no-such-option", "--help")),
        (("surplus",), ("surplus",)),
    ],
)
def test_options(run, arguments, words):
    refused(run("lab", *arguments), *words)


def test_unknown_command(run):
    refused(run("laboratory"), "laboratory", "--help")


def test_a_foreign_out_is_left_alone(run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    refused(run("lab", "--quick", "--claims", "10", "--out", "mine"), "mine")
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_an_out_that_is_a_file(run, tmp_path):
    (tmp_path / "taken").write_text("precious")
    refused(run("lab", "--quick", "--claims", "10", "--out", "taken"), "taken")
    assert (tmp_path / "taken").read_text() == "precious"


@pytest.mark.parametrize("command", [("lab", "--claims", "10"), ("verify", "--claims", "10"), ("fig", "F3")])
def test_an_out_that_cannot_be_written(run, tmp_path, command):
    (tmp_path / "file").write_text("")
    refused(run(*command, "--quick", "--out", tmp_path / "file" / "below"), "file")


@pytest.mark.skipif(os.geteuid() == 0 if hasattr(os, "geteuid") else True, reason="root may write anywhere")
def test_an_out_without_permission(run, tmp_path):
    (tmp_path / "shut").mkdir(mode=0o500)
    refused(run("lab", "--quick", "--claims", "10", "--out", tmp_path / "shut" / "out"), "shut")


def test_unknown_figures_and_formats(run, tmp_path):
    refused(run("fig", "F99"), "'F99'", "F3")
    refused(run("fig", "F3", "--out", tmp_path / "figure.gif"), ".svg")
    refused(run("fig"), "fig")


@pytest.mark.parametrize("command", [("verify",), ("fig", "F3")])
def test_results_that_are_not_there_or_not_results(run, tmp_path, command):
    refused(run(*command, "--results", tmp_path / "nowhere"), "no such file")
    (tmp_path / "results.json").write_text("{}")
    refused(run(*command, "--results", tmp_path), "not a results document")
