"""Who may import whom: the house stays small because nothing flows back (docs/design.md)."""

from __future__ import annotations

import ast
import pathlib

import pytest

SOURCE = pathlib.Path(__file__).resolve().parents[1] / "src" / "widelimit"

# Files outside the rooms, open to all but the rooms listed below.
COMMON = {"_precision", "_examples", "_segments", "_equations", "_extrema"}
# Room -> the rooms it may import besides itself.
ROOMS: dict[str, frozenset[str]] = {
    "duals": frozenset(),
    "fields": frozenset({"duals"}),
    "trace": frozenset({"fields", "empirical"}),
    "nn": frozenset(),
    "empirical": frozenset(),
    "models": frozenset({"trace", "empirical"}),
    "gram": frozenset(),
    "solve": frozenset({"gram"}),
    "dynamics": frozenset({"solve"}),
    "diagnostics": frozenset({"trace", "empirical", "models", "gram", "solve", "dynamics"}),
    "lab": frozenset({"duals", "fields", "trace", "nn", "empirical", "gram", "solve", "dynamics", "diagnostics"}),
    "report": frozenset(),
    "cli": frozenset({"diagnostics", "lab", "report"}),
}
WITHOUT_JAX = {"report"}
WITHOUT_PRECISION = {"report", "cli"}
# Dependencies that only some rooms need; everything else third-party must be declared in pyproject.toml.
LAZY = {"torch", "flax", "equinox", "lineax", "matfree", "numba", "zarr", "dask", "tensorflow"}
# Files that extend classes of an optional dependency, and are themselves imported where they are used.
ON_USE = {"solve/_gram_operator.py", "solve/_lineax.py"}


def sources() -> list[pathlib.Path]:
    return sorted(SOURCE.rglob("*.py"))


def imports(tree: ast.AST, package: str) -> list[tuple[int, str, bool]]:
    """(line, absolute dotted name, whether at module level) of every import under `tree`."""
    found = []
    top = set(map(id, ast.iter_child_nodes(tree)))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name, id(node) in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                base = ".".join([*parents[: len(parents) - node.level + 1], *([base] if base else [])])
            found += [(node.lineno, f"{base}.{alias.name}", id(node) in top) for alias in node.names]
    return found


def package_of(path: pathlib.Path) -> str:
    return ".".join(("widelimit", *path.relative_to(SOURCE).parts[:-1]))


def violations(path: pathlib.Path, text: str) -> list[str]:
    """What the file at `path`, holding `text`, imports against the rules."""
    relative = path.relative_to(SOURCE)
    room = relative.parts[0] if len(relative.parts) > 1 else None
    out = []
    for line, name, top in imports(ast.parse(text), package_of(path)):
        where = f"{relative}:{line} imports {name}"
        parts = name.split(".")
        if parts[0] != "widelimit":
            if any(part.startswith("_") and part != "__future__" for part in parts):
                out.append(f"{where}: private")
            if parts[0] in LAZY and top and str(relative) not in ON_USE:
                out.append(f"{where}: an optional dependency, to be imported where it is used")
            if parts[0] == "tensorflow":
                out.append(f"{where}: not a dependency")
            if room in WITHOUT_JAX and parts[0] in {"jax", "jaxlib"}:
                out.append(f"{where}: {room} works on plain results")
            continue
        if top and "/".join(parts[1:3]) + ".py" in ON_USE and str(relative) not in ON_USE:
            out.append(f"{where}: to be imported where it is used, for what it imports is optional")
        other = parts[1] if len(parts) > 1 else None
        if room is None and relative.name == "__init__.py":
            if other in {"cli", "report"}:
                out.append(f"{where}: nothing imports {other}")
        elif other in COMMON:
            if room in WITHOUT_PRECISION:
                out.append(f"{where}: {room} works on plain results")
        elif other in ROOMS:
            if other != room and (room is None or other not in ROOMS[room]):
                out.append(f"{where}: {room or relative} may import {sorted(ROOMS.get(room or '', ())) or 'no room'}")
            elif other != room and any(part.startswith("_") for part in parts[2:]):
                out.append(f"{where}: private to {other}")
        elif room is not None and other not in {"__version__", None}:
            out.append(f"{where}: not a room")
        elif room is not None and other is None:
            out.append(f"{where}: a room imports rooms, not the package")
    return out


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_a_file_imports_only_what_its_room_may(path):
    assert violations(path, path.read_text()) == []


def test_every_folder_is_a_room_of_the_table():
    folders = {p.name for p in SOURCE.iterdir() if p.is_dir() and p.name != "__pycache__"}
    assert folders == set(ROOMS)


def test_files_of_a_room_are_private():
    public = [
        str(p.relative_to(SOURCE))
        for p in sources()
        if not p.name.startswith("_") and p.parent != SOURCE and p.name != "__main__.py"
    ]
    assert public == []


def test_files_stay_short():
    long = {str(p.relative_to(SOURCE)): n for p in sources() if (n := len(p.read_text().splitlines())) >= 400}
    assert long == {}


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("duals/_relu.py", "from widelimit.fields import Mat"),
        ("fields/_mat.py", "from widelimit.trace import limit"),
        ("fields/_mat.py", "from widelimit.duals._relu import relu"),
        ("fields/_mat.py", "from ..trace import limit"),
        ("report/_html.py", "import jax.numpy as jnp"),
        ("report/_html.py", "from widelimit import _precision"),
        ("lab/_claims.py", "from widelimit.report import page"),
        ("lab/_claims.py", "from widelimit import cli"),
        ("lab/_claims.py", "import widelimit as wl"),
        ("trace/_read.py", "from jax._src import core"),
        ("trace/_torch.py", "import torch"),
        ("solve/_operator.py", "import lineax"),
        ("solve/_operator.py", "from widelimit.solve._gram_operator import GramOperator"),
        ("__init__.py", "from widelimit.cli import main"),
        ("_precision.py", "from widelimit.nn import Dense"),
    ],
)
def test_the_rules_catch(file, text):
    assert violations(SOURCE / file, text) != []


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("fields/_mat.py", "from widelimit.duals import relu"),
        ("fields/_mat.py", "from widelimit.fields._node import Node"),
        ("fields/_mat.py", "from widelimit._precision import enable_x64"),
        ("trace/_torch.py", "def lower():\n    import torch"),
        ("lab/_claims.py", "from widelimit import nn"),
        ("__init__.py", "from widelimit.gram import gram"),
    ],
)
def test_the_rules_allow(file, text):
    assert violations(SOURCE / file, text) == []
