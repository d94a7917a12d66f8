"""Runs that tests of several folders read."""

import pytest
from make_run import full_run

from serving_bench.reports import open_run
from serving_bench.reports.data.run import Run


@pytest.fixture(scope="session")
def full(tmp_path_factory) -> Run:
    """The run of `full_run`. Tests change neither it nor its files."""
    return open_run(full_run(tmp_path_factory.mktemp("full")))
