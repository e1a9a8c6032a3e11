"""The output directory: whole files only, foreign directories left alone."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from widelimit.lab import OutputError
from widelimit.lab._store import MARKER, Store, plain, write_json

IDENTITY = {"depth": 2, "data": "abc"}


def test_kept_and_found_again(tmp_path):
    out = tmp_path / "new" / "run"
    Store(out, IDENTITY).save("drift", 1, {"result": {"x": np.arange(3.0), "bad": np.nan}, "seconds": 1.0})
    record = Store(out, IDENTITY).load("drift", 1)
    assert record["result"] == {"x": [0.0, 1.0, 2.0], "bad": None}
    assert Store(out, IDENTITY).load("drift", 2) is None  # its meaning has changed since
    assert Store(out, IDENTITY).load("other", 1) is None


def test_memory_store_returns_what_a_directory_would():
    store = Store(None, IDENTITY)
    assert store.save("a", 1, {"result": {"x": np.float32(0.5)}})["result"] == {"x": 0.5}
    assert store.load("a", 1)["result"] == {"x": 0.5}


def test_foreign_directory_is_refused_and_untouched(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(OutputError, match=r"not made by widelimit lab \(it holds 'thesis.tex'\)"):
        Store(tmp_path, IDENTITY)
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_foreign_marker_is_refused(tmp_path):
    (tmp_path / MARKER).write_text('{"made_by": "another program"}')
    with pytest.raises(OutputError, match="was not written by widelimit lab"):
        Store(tmp_path, IDENTITY)


def test_a_file_is_refused(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(OutputError, match="is a file"):
        Store(tmp_path / "out", IDENTITY)


def test_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot use"):
        Store(tmp_path / "file" / "out", IDENTITY)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_unwritable_directory_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="cannot"):
            Store(tmp_path / "out", IDENTITY)
    finally:
        tmp_path.chmod(0o700)


def test_a_failed_write_says_so(tmp_path, monkeypatch):
    store = Store(tmp_path / "out", IDENTITY)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match="No space left on device"):
        store.save("drift", 1, {"result": {}})
    assert os.listdir(tmp_path / "out" / "experiments") == []


def test_another_run_is_refused_by_name(tmp_path):
    Store(tmp_path, IDENTITY)
    with pytest.raises(OutputError, match=r"another depth \(depth: 2 there, 3 now\)"):
        Store(tmp_path, {**IDENTITY, "depth": 3})


def test_damaged_and_half_written_files_are_done_again(tmp_path):
    store = Store(tmp_path, IDENTITY)
    store.save("drift", 1, {"result": {}})
    path = tmp_path / "experiments" / "drift.json"
    path.write_text(path.read_text()[:20])
    (tmp_path / "experiments" / ".widelimit-drift.json.77").write_text("{")
    (tmp_path / ".widelimit-lab.json.77").write_text("{")
    store = Store(tmp_path, IDENTITY)
    assert store.load("drift", 1) is None
    assert os.listdir(tmp_path / "experiments") == ["drift.json"]


def test_killed_before_the_marker_was_there(tmp_path):
    (tmp_path / ".widelimit-lab.json.77").write_text("{")
    Store(tmp_path, IDENTITY)
    assert json.loads((tmp_path / MARKER).read_text())["identity"] == IDENTITY


def test_only_plain_values():
    with pytest.raises(TypeError, match="object"):
        plain({"x": object()})
    value = {"a": (1, np.int64(2)), "b": np.array([[True]]), "c": float("inf"), "d": None}
    assert plain(value) == {"a": [1, 2], "b": [[True]], "c": None, "d": None}


def test_files_are_json(tmp_path):
    write_json(tmp_path / "x.json", {"λ": np.array([1.5, np.nan])})
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == {"λ": [1.5, None]}
