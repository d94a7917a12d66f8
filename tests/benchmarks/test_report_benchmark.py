"""benchmarks/report.py: the run that it makes can be reported on, and is stored as real ones are."""

import pyarrow.parquet as pq
import pytest
from benchmark_modules import modules_of

from serving_bench.harness.errors import UserError
from serving_bench.reports import open_run
from serving_bench.reports.measures.values import measured_of, values_of


@pytest.fixture(scope="module")
def benchmarks():
    return modules_of("report", "synthetic")


@pytest.fixture(scope="module")
def made(benchmarks, tmp_path_factory):
    synthetic = benchmarks["synthetic"]
    size = synthetic.Size(cells=8, requests=800, chunks=20, loads=2, repeats=2)
    return open_run(synthetic.make_run(tmp_path_factory.mktemp("made"), size))


def test_a_size_is_deployments_loads_and_repeats(benchmarks):
    size = benchmarks["synthetic"].Size()
    assert (size.deployments, size.requests_per_cell) == (10, 10_000)
    assert size.name == "10 deployments x 2 loads x 5 starts, 1,000,000 requests of 200 chunks"


def test_a_made_run_has_its_cells_requests_and_chunks(made):
    assert len(made.planned_cells) == 8
    assert len(made.requests) == 800
    assert 0 < len(made.requests[made.requests["outcome"] == "ok"]) <= 800
    gaps = measured_of(made)[0].gaps
    assert gaps.n == 19 * gaps.requests


def test_a_made_run_has_samples_of_all_kinds(made):
    for frame in (made.host, made.device, made.server):
        assert set(frame["start"]) == {record.name for record in made.start_records}
    assert values_of(made)[0]["output_tokens_per_s"].value > 0
    assert values_of(made)[0]["memory_peak_bytes"].value > 0


def test_a_made_run_is_stored_as_cells_are(made):
    file = pq.ParquetFile(made.path / "cells" / "000" / "requests.parquet")
    columns = {
        file.metadata.row_group(0).column(k).path_in_schema: k for k in range(file.metadata.num_columns)
    }
    stamps = file.metadata.row_group(0).column(columns["chunk_ns.list.element"])
    assert "DELTA_BINARY_PACKED" in stamps.encodings
    assert stamps.compression == "ZSTD"


def test_a_directory_is_used_again_for_the_same_size_only(benchmarks, tmp_path):
    report, synthetic = benchmarks["report"], benchmarks["synthetic"]
    small = synthetic.Size(cells=1, requests=10, chunks=3, loads=1, repeats=1)
    report._made(tmp_path, small)
    before = (tmp_path / "run.json").stat().st_mtime_ns
    report._made(tmp_path, small)
    assert (tmp_path / "run.json").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="another size"):
        report._made(tmp_path, synthetic.Size(cells=1, requests=11, chunks=3, loads=1, repeats=1))


def test_a_directory_with_something_else_is_left_alone(benchmarks, tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match="not empty"):
        benchmarks["report"]._made(tmp_path, benchmarks["synthetic"].Size())
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_row_has_what_was_measured(benchmarks):
    report = benchmarks["report"]
    row = report.markdown(report.Measured("a run", 21.34, 15.06, 1_050_000_000, 7_500_000, 0.876, None))
    assert row == "| a run | 21.3 s | 15.1 s | 1.05 GB | 7.5 MB | 0.88 s | - |"
    assert row.count("|") == report.HEAD.splitlines()[1].count("|")
