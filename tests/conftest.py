"""Which tests must have the machine for themselves, and fixtures that several files share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from quick_venv import make_quick_python

# `make test` runs the others two at a time, then these one by one: they compare instants, rates or processor
# time with what should be, or need all processors.
ALONE = frozenset(
    """
    alarm client clock courier device_sample end_to_end gpu guard host lag
    llama_cpp_live load_benchmark load_models master openloop process_tree receive reference
    reference_server rows sampling selftest synchronize
    """.split()  # noqa: SIM905 - a list of 23 quoted words reads worse
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.stem.removeprefix("test_") in ALONE:
            item.add_marker("alone")


@pytest.fixture(scope="session")
def quick_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_quick_python(tmp_path_factory.mktemp("quick"))


@pytest.fixture
def quick_venv(quick_python: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test installs is made in a venv whose pip is there already."""
    monkeypatch.setattr(sys, "executable", str(quick_python))
