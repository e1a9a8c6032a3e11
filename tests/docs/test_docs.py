"""The documentation is true: its code runs, its generated pages are current, every public name is in it."""

from __future__ import annotations

import importlib.util
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

import widelimit as wl
from widelimit import lab, nn

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def code(page: pathlib.Path) -> str:
    """The page's python blocks, each on the lines where it stands in the page."""
    text = page.read_text(encoding="utf-8")
    out = ""
    for block in BLOCK.finditer(text):
        out += "\n" * (text.count("\n", 0, block.start(1)) - out.count("\n")) + block[1]
    return out


PAGES = [p for p in (REPOSITORY / "README.md", *sorted(DOCS.glob("*.md"))) if code(p)]
LINES = {p: set(code(p).splitlines()) for p in PAGES}
# The home page shows part of the README's example: once is enough.
DIFFERENT = [p for p in PAGES if not any(LINES[p] < LINES[other] for other in PAGES)]


@pytest.mark.parametrize("page", DIFFERENT, ids=lambda p: p.name)
def test_every_block_of_code_runs(page):
    if "import torch" in code(page):
        pytest.importorskip("torch", reason="the torch extra is not installed")
    program = f"exec(compile({code(page)!r}, {page.name!r}, 'exec'))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_pages_that_teach_have_code():
    assert {"README.md", "index.md", "tutorial.md", "extend.md"} <= {p.name for p in PAGES}


def reference():
    spec = importlib.util.spec_from_file_location("reference", REPOSITORY / "scripts" / "reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_claims_is_current():
    made = reference().claims_page()
    assert (DOCS / "claims.md").read_text(encoding="utf-8") == made, "run scripts/reference.py"
    for claim in lab.CLAIMS:
        assert f"## {claim.id} · {claim.title}" in made


def words(text: str) -> list[str]:
    """Options, defaults and descriptions; frames, wrapping and the names of types differ between versions."""
    text = text.replace("(-h)", "-h").replace(",-h", " -h")
    text = re.sub(r"[╭╮╰╯─│]|\b[A-Z]+\.\.\.|\b(STR|INT|FLOAT|PATH|BOOL)\b", " ", text)
    return sorted(text.split())


@pytest.mark.parametrize("command", ["", "lab", "claims", "fig", "verify", "lazy"])
def test_the_page_of_the_command_line_is_current(command):
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    shown = re.search(rf"^    \$ widelimit {command} ?--help\n\n(.*?)(?=^#|\Z)", page, re.MULTILINE | re.DOTALL)
    assert shown is not None
    assert words(shown[1]) == words(reference().help_of(command)), "run scripts/reference.py"


def test_the_page_shows_every_command():
    listed = re.findall(r"^│ ([a-z]+) ", reference().help_of(""), re.MULTILINE)
    assert sorted(listed) == sorted(c for c in reference().COMMANDS if c)


def test_every_public_name_is_in_the_reference():
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    shown = [line.removeprefix("::: ") for line in page.splitlines() if line.startswith("::: ")]
    names = [path.rpartition(".")[2] for path in shown]
    assert {*wl.__all__, *nn.__all__} - {"nn"} <= set(names)
    for path in shown:  # each is really there
        module, _, name = path.rpartition(".")
        assert hasattr(importlib.import_module(module), name), path


PUBLIC = {
    **{f"wl.{name}": getattr(wl, name) for name in wl.__all__ if name != "nn"},
    **{f"nn.{name}": getattr(nn, name) for name in nn.__all__},
}


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_says_what_it_is(name):
    text = PUBLIC[name].__doc__
    assert text is not None
    assert text.splitlines()[0].rstrip().endswith((".", ":", "``", ",", ")")), "one sentence, then the rest"


def test_every_page_is_in_the_menu_and_every_link_leads_somewhere():
    menu = (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8")
    for page in DOCS.glob("*.md"):
        assert f": {page.name}\n" in menu, page.name
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (DOCS / target).exists(), f"{page.name} links to {target}"


def test_the_site_builds(tmp_path):
    pytest.importorskip("zensical", reason="the docs extra is not installed")
    pytest.importorskip("mkdocstrings", reason="the docs extra is not installed")
    for name in ("docs", "src"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    shutil.copy(REPOSITORY / "mkdocs.yml", tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "No issues found" in done.stdout + done.stderr
    assert (tmp_path / "site" / "api.html").exists()
