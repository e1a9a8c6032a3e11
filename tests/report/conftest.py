"""An example of the lab's results, and the page made of it, for the tests of this folder."""

import importlib.util
import pathlib

import pytest

from widelimit import report

_file = pathlib.Path(__file__).with_name("example_results.py")
_spec = importlib.util.spec_from_file_location("widelimit_example_results", _file)
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)


@pytest.fixture
def results():
    """A new copy each time: a test may spoil it."""
    return _module.example_results()


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """The directory of a whole report, written once: (path of the page, what the progress was told)."""
    told = []
    out = tmp_path_factory.mktemp("report") / "new" / "out"
    return report.write_report(_module.example_results(), out, told=lambda *event: told.append(event)), told


@pytest.fixture
def few(results):
    """The same results with two figures only: quick to make a page of."""
    results["figures"] = {name: results["figures"][name] for name in ("F3", "F5")}
    return results
