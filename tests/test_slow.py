"""The list of slow tests holds none that no longer exists."""

from __future__ import annotations

import ast
import pathlib

FOLDER = pathlib.Path(__file__).resolve().parent


def test_listed_tests_exist():
    for line in (FOLDER / "slow.txt").read_text().splitlines():
        file, name = line.split("::")
        defined = {n.name for n in ast.walk(ast.parse((FOLDER / file).read_text())) if isinstance(n, ast.FunctionDef)}
        assert name.split("[")[0] in defined, line
