"""What several test files share."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest

from widelimit._precision import enable_x64

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]


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
