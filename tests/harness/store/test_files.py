"""Records that are written can be read again, whatever others said."""

import math
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from make_run import kept_start

from serving_bench.harness.contracts import quoted
from serving_bench.harness.errors import StoreError
from serving_bench.harness.store import store

ODD = ({"a": 1}, [1, "x"], 2**70, math.nan, "\ud800", "x" * 5000, True, None, -1, 1e300, {"b": [None]})


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: repr(odd)[:12])
def test_facts_of_any_shape_are_stored_and_read(tmp_path: Path, odd: Any) -> None:
    start = kept_start(tmp_path / "starts" / "00-llama_cpp-fp16")
    start.update(
        resolved={"seed": odd, "good": 7}, weights={"note": odd}, memory_said={"weights": odd, "kv_cache": 5}
    )
    [read] = store.read_starts(tmp_path)
    assert read.resolved["good"] == 7
    assert isinstance(read.resolved["seed"], str | int | float | None)
    assert len(str(read.resolved["seed"])) <= 1000
    assert read.memory_said == {"kv_cache": 5}


def test_a_name_that_is_no_unicode_is_written_without_it(tmp_path: Path) -> None:
    start = kept_start(tmp_path / "starts" / "00-llama_cpp-fp16")
    start.update(
        error=quoted(f"process 7 ({os.fsdecode(b'caf' + bytes([0xE9]))}) listens"),
        environment={"A\udce9": ""},
    )
    [read] = store.read_starts(tmp_path)
    assert (str(read.error), read.environment) == ("process 7 (caf ) listens", {"A?": ""})


def test_what_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    start = kept_start(tmp_path / "starts" / "00-llama_cpp-fp16")
    was = start.path.read_bytes()
    with pytest.raises(StoreError, match=r"not written, since it could not be read again .*\$\.pid"):
        start.update(pid={"a": 1})
    assert start.path.read_bytes() == was
    assert list(start.path.parent.iterdir()) == [start.path]
    assert msgspec.json.decode(was)["pid"] == 1
