"""A run that is killed goes on where it was."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

from widelimit import lab

SETTINGS = {"widths": (8, 16, 32), "seeds": 2, "effort": "quick", "claims": ("4", "10", "14")}
PROGRAM = """
import sys
from widelimit import lab
lab.run(lab.Settings(**{settings!r}), sys.argv[1])
"""


def test_killed_and_started_again(tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-c", PROGRAM.format(settings=SETTINGS), str(out)]
    with subprocess.Popen(command) as process:
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if list(out.glob("experiments/[a-z]*.json")):
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.01)
    finished = {p.name: p.read_bytes() for p in out.glob("experiments/[a-z]*.json")}
    times = {name: (out / "experiments" / name).stat().st_mtime_ns for name in finished}
    assert 1 <= len(finished) < 3
    assert not (out / "results.json").exists()

    events = []
    document = lab.run(lab.Settings(**SETTINGS), out, events.append)
    assert {r["name"] for r in document["experiments"] if r["resumed"]} == {n[:-5] for n in finished}
    assert {e["job"] for e in events if e["event"] == "resumed"} == {n[:-5] for n in finished}
    for name, content in finished.items():
        assert (out / "experiments" / name).read_bytes() == content
        assert (out / "experiments" / name).stat().st_mtime_ns == times[name]
    assert document["complete"]
    assert json.loads((out / "results.json").read_text(encoding="utf-8")) == document

    # Nothing is left to do, and the same comes out.
    again = lab.run(lab.Settings(**SETTINGS), out)
    assert all(r["resumed"] for r in again["experiments"])
    assert again["claims"] == document["claims"]
