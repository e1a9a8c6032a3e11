"""An example of the lab's results, for the tests of this folder."""

import importlib.util
import pathlib

import pytest

_file = pathlib.Path(__file__).parents[1] / "report" / "example_results.py"
_spec = importlib.util.spec_from_file_location("widelimit_example_results", _file)
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)


@pytest.fixture
def results():
    """A new copy each time: a test may spoil it."""
    return _module.example_results()
