"""Tables of a run: the page's numbers, in documented columns and types, whatever became of the run."""

import pandas as pd
import pytest
from make_run import all_failed_run, empty_run, engines_run, every_load_run, full_run
from repeated_run import BLOCKS, LOADS, repeated_run, three
from test_searches import write_search

from serving_bench.harness.contracts import Objective
from serving_bench.reports import TABLES, open_run, tables_of
from serving_bench.reports.outputs.tables import framed
from serving_bench.reports.verdicts.comparisons import comparisons_of

SLO = (Objective("ttft_s", 0.9, 0.15), Objective("success", 0.5))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Three deployments, five starts, objectives that all keep."""
    return open_run(repeated_run(tmp_path_factory.mktemp("three"), three(), slo=SLO))


@pytest.fixture(scope="module")
def tables(run):
    return tables_of(run)


def one(frame: pd.DataFrame, **wanted: object) -> pd.Series:
    """The only row with these values."""
    for column, value in wanted.items():
        frame = frame[frame[column] == value]
    assert len(frame) == 1
    return frame.iloc[0]


MAKERS = (empty_run, all_failed_run, full_run, engines_run, every_load_run)


@pytest.mark.parametrize("make", MAKERS)
def test_every_table_is_there_with_its_columns_and_types(make, tmp_path):
    found = tables_of(open_run(make(tmp_path)))
    assert list(found) == list(TABLES)
    for name, frame in found.items():
        documented = framed(name, [])
        assert list(frame.columns[: len(documented.columns)]) == list(documented.columns)
        assert frame[documented.columns].dtypes.equals(documented.dtypes), name
        assert len(frame.columns) == len(documented.columns) or name == "cells"


def test_a_value_is_the_mean_over_starts_with_its_interval(tables):
    """TTFT is 100 ms times each block's factor."""
    found = one(tables["values"], deployment="llama_cpp fp16", load="4 users", metric="ttft_s.p50")
    product = 1.0
    for factor in BLOCKS:
        product *= factor
    assert found["value"] == pytest.approx(0.1 * product ** (1 / len(BLOCKS)), rel=1e-6)
    assert (found["least"], found["most"]) == pytest.approx((0.09, 0.11))
    assert found["low"] < found["value"] < found["high"]
    assert (found["unit"], found["better"], found["starts"]) == ("s", "lower", 5)


def test_a_missing_value_has_a_reason_and_no_mark(tables):
    found = one(tables["values"], deployment="llama_cpp fp16", load="4 users", metric="ttft_s.p99")
    assert pd.isna(found["value"])
    assert found["why"].startswith("p99 needs n of 662")
    missing = tables["values"][tables["values"]["value"].isna()]
    assert missing["why"].notna().all()
    assert missing["marks"].isna().all()


def test_of_two_starts_there_are_ranges_and_reasons_and_no_ratio(full):
    tables = tables_of(full)
    found = one(tables["values"], deployment="llama_cpp fp16", load="1 user", metric="ttft_s.p50")
    assert (found["starts"], found["least"], found["most"]) == pytest.approx((2, 0.0855, 0.0855))
    assert found[["low", "high"]].isna().all()
    assert set(tables["verdicts"]["kind"]) == {"none"}
    assert tables["verdicts"]["ratio"].isna().all()
    assert tables["verdicts"]["why"].str.contains("needs 3 starts").any()
    marks = {mark for cell in tables["values"]["marks"].dropna() for mark in cell.split(" ")}
    assert marks
    assert marks <= set(tables["findings"]["check"])
    assert one(tables["skips"], what="tgi awq")["reason"].startswith("no such pair")


def test_a_verdict_has_its_ratio_and_the_familys_confidence(tables, run):
    asked = {"a": "llama_cpp fp16", "b": "llama_cpp gguf-q8_0", "load": "4 users"}
    found = one(tables["verdicts"], metric="output_tokens_per_s", **asked)
    assert (found["kind"], found["verdict"], found["is_ratio"]) == ("worse", "slower", True)
    assert found["ratio"] == pytest.approx(0.8, rel=0.01)
    assert found["low"] < found["ratio"] < found["high"] < 1
    assert found["confidence"] > 0.95
    assert found["family"] == comparisons_of(run).family
    assert found["blocks"] == 5


def test_objectives_have_the_share_that_met_them_and_decisions_the_best_of_those(tables):
    asked = {"deployment": "vllm fp16", "load": "1 user", "objective": "ttft_s.p90"}
    found = one(tables["objectives"], **asked)
    assert (found["limit_s"], found["asked"], found["share"]) == (0.15, 0.9, 1.0)
    assert found["met"] == found["n"] > 0
    assert (found["state"], found["low"] < 1.0 == found["high"]) == ("kept", True)
    assert set(tables["standings"]["state"]) == {"kept"}
    [found] = tables["decisions"].to_dict("records")
    assert (found["deployment"], found["kind"], found["load"]) == ("llama_cpp gguf-q8_0", "named", "4 users")
    assert 1.2 < found["least"] < found["lead"] < 1.3
    assert found["confidence"] == 0.96


def test_cells_and_starts_are_the_plans(tables):
    assert (len(tables["cells"]), len(tables["starts"])) == (3 * len(LOADS) * 5, 15)
    assert tables["cells"]["ttft_s.p50"].between(0.07, 0.13).all()


def test_a_search_has_capacities_and_brackets(tmp_path):
    tables = tables_of(open_run(write_search(tmp_path, [[4, 5, 4], [8, 10, 8]])))
    found = one(tables["capacities"], deployment="llama_cpp gguf-q4_k_m")
    assert (found["unit"], found["starts"], found["value"], found["is_least"]) == ("users", 3, 8, False)
    assert list(tables["brackets"]["kept"]) == [4, 5, 4, 8, 10, 8]
    assert list(tables["brackets"]["broken"]) == [5, 6, 5, 9, 11, 9]
    assert set(tables["verdicts"]["kind"]) == {"none"}
