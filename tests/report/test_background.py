"""Figures drawn by a second process are those drawn here, and nothing depends on it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from widelimit import report
from widelimit.report._drawing import make_drawing

posix = pytest.mark.skipif(os.name != "posix", reason="signals")


def _drawings(figure):
    """A background that has drawn the figure."""
    drawings = report.Drawings()
    drawings.add(figure)
    drawings.waiting[0][1].result()
    return drawings


def test_drawn_in_the_background_as_drawn_here(few, tmp_path):
    figure = few["figures"]["F3"]
    with _drawings(figure) as drawings:
        taken = drawings.take(dict(figure))
        page = report.write_report(few, tmp_path, drawings=drawings)
    here = make_drawing(figure)
    assert taken == here
    assert here.narrow != here.wide
    assert (page.parent / "figures" / "F3.svg").read_text(encoding="utf-8") == here.wide
    assert (page.parent / "figures" / "F3.pdf").read_bytes() == here.pdf
    assert (page.parent / "figures" / "F5.pdf").exists()  # it was not added, so it was drawn here


def test_a_figure_that_changed_is_drawn_anew(few):
    figure = few["figures"]["F3"]
    with report.Drawings() as drawings:
        drawings.add(figure)
        other = {**figure, "id": "F99"}
        assert drawings.take(other).wide == make_drawing(other).wide


@posix
def test_a_process_that_died_costs_nothing_but_time(few):
    figure = few["figures"]["F3"]
    with _drawings(figure) as drawings:
        assert drawings.process is not None
        os.kill(drawings.process.pid, signal.SIGKILL)
        drawings.process.join()
        drawings.add({**figure, "id": "F4"})
        assert drawings.take({**figure, "id": "F4"}).wide


PROGRAM = """
import time
from widelimit import report

if __name__ == "__main__":
    drawings = report.Drawings()
    drawings.thread.submit(drawings._begin).result()
    print(drawings.process.pid, flush=True)
    time.sleep(100)
"""


@posix
def test_it_ends_with_its_parent(tmp_path):
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        if _is_zombie(child):  # ended; who takes care of orphans here has not noticed yet
            return
        time.sleep(0.05)
    pytest.fail("the drawing process outlived its parent")


def _is_zombie(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False
