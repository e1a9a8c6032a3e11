"""What several test files share."""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Iterator

import pytest

from widelimit._precision import enable_x64

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]


def pytest_configure(config: pytest.Config) -> None:
    """Workers and the commands that tests start share what Python and XLA have compiled, as a user's do."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    cache = getattr(config, "cache", None)  # absent with -p no:cacheprovider
    if cache is None or hasattr(config, "workerinput") or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(cache.mkdir("xla"))  # `pytest --cache-clear` empties it
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


@pytest.hookimpl(tryfirst=True)  # before `-m` picks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests listed in slow.txt are slow: those that took longest, of which others of their kind are run each time."""
    listed = set((REPOSITORY / "tests" / "slow.txt").read_text().splitlines())
    # first, so that it is not shared out at the end to workers that would each run the experiments
    items.sort(key=lambda item: "lab/test_run.py" not in item.nodeid)
    for item in items:
        if item.nodeid.removeprefix("tests/") in listed:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def repository() -> pathlib.Path:
    """Root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """The folder `shared` beside the checkout (data and reference values too large for it); skips where absent."""
    folder = REPOSITORY.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"no folder {folder.name} beside the checkout")
    return folder


@pytest.fixture
def float64() -> Iterator[None]:
    """64-bit JAX types for one test; the global flag stays as it was."""
    with enable_x64():
        yield
