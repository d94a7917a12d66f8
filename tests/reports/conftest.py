"""Runs that tests of several folders read."""

from pathlib import Path

import pytest
from make_run import engines_run, full_run

from serving_bench.reports import open_run, write_report
from serving_bench.reports.data.run import Run


@pytest.fixture(scope="session")
def full(tmp_path_factory) -> Run:
    """The run of `full_run`. Tests change neither it nor its files."""
    return open_run(full_run(tmp_path_factory.mktemp("full")))


@pytest.fixture(scope="session")
def engines(tmp_path_factory) -> Path:
    """The page of the run of `engines_run`, in its directory. Tests change neither."""
    return write_report(engines_run(tmp_path_factory.mktemp("engines")))
