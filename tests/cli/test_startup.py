"""The command line answers at once: what computes and what draws is loaded when it is needed."""

from __future__ import annotations

import ast
import pathlib
import subprocess
import sys

import pytest

import widelimit

SLOW = ("jax", "scipy", "sklearn", "matplotlib")


def python(code: str, *arguments: str, cwd: pathlib.Path | None = None) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, cwd=cwd)
    return done.stdout


@pytest.mark.parametrize(
    "line",
    [
        "--help", "--version", "lab --help", "claims --list", "claims --long", "lab --widths 64,128.5",
        "lab --activation rellu", "lab --data nowhere.csv --target y", "lab --data data.csv",
        "lab --data data.csv --target y", "lab --out .", "verify --claims 99", "verify --results nowhere",
        "fig F99", "nonsense", "lazy --help", "lazy nowhere.py:net", "lazy data.csv", "lazy model.py:net --loss hinge",
    ],
)  # fmt: skip
def test_answers_that_need_no_computing_load_nothing_that_computes(line, tmp_path):
    (tmp_path / "data.csv").write_text("a,y\n1,2\n")
    (tmp_path / "model.py").write_text("net = 1\n")
    code = (
        "import sys\n"
        "from widelimit.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        f"print([m for m in {SLOW} if m in sys.modules])"
    )
    assert python(code, *line.split(), cwd=tmp_path).splitlines()[-1] == "[]"


def test_every_public_name_is_there_and_listed():
    for name in widelimit.__all__:
        assert getattr(widelimit, name) is not None
        assert name in dir(widelimit)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        widelimit.nothing  # noqa: B018


def test_names_for_editors_are_those_at_run_time():
    """``src/widelimit/__init__.py`` lists them for type checkers, in ``__all__``, and by room."""
    tree = ast.parse(pathlib.Path(widelimit.__file__).read_text(encoding="utf-8"))
    block = next(n for n in tree.body if isinstance(n, ast.If))
    seen = {
        alias.name: node.module.removeprefix("widelimit").removeprefix(".")
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(seen) == set(widelimit.__all__)
    assert seen == {**widelimit._ROOM_OF, "nn": ""}


@pytest.mark.parametrize("room", ["gram", "trace", "dynamics", "lab"])
def test_the_function_gram_wins_over_the_room_of_that_name(room):
    code = (
        f"import widelimit.{room}, widelimit as wl\n"
        "from widelimit.gram import gram_diag\n"
        "from widelimit import gram\n"
        "print(wl.gram is gram, callable(gram), gram.__name__, wl.gram_diag is gram_diag)"
    )
    assert python(code) == "True True gram True\n"
