"""Records and tables of a run: what is damaged is a record that can be kept, or a line."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fuzzing import LIES, NO_VALUES, altered, assert_one_line, damaged, json_bytes
from hypothesis import given
from hypothesis import strategies as st
from make_quality import Voice
from make_tasks import FP16, Q4, answered, answers

from serving_bench.harness.contracts.sentences import stored
from serving_bench.harness.errors import StoreError
from serving_bench.harness.store import store
from serving_bench.harness.store.quality_table import read_items, read_quality

PIECES = [*NO_VALUES, b'"', b"{", b"]", b",", b"null", b"\xff", b"\\", b"-", b"e9"]
RECORDS: dict[str, Callable[[Path], Any]] = {
    "run.json": store.read_run,
    "start.json": lambda folder: store.read_references(folder.parent.parent)[folder],
    "cell.json": store.read_cell,
}
TABLES: dict[str, Callable[[Path], Any]] = {
    "requests.parquet": lambda path: store.read_requests(path.parent),
    "host.parquet": store.read_samples,
    "quality.parquet": read_quality,
    "tasks.parquet": read_items,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with answers, tasks and requests."""
    items = {Q4.label: answers("rw"), FP16.label: answers("rw")}
    return answered(tmp_path_factory.mktemp("whole") / "run", items, Voice(), repeats=2, requests=3).path


@pytest.mark.parametrize("name", RECORDS)
@given(data=st.data())
def test_a_damaged_record_is_one_that_can_be_kept_or_a_line(
    run: Path, tmp_path: Path, name: str, data: st.DataObject
) -> None:
    whole = next(run.rglob(name)).read_bytes()
    by_structure = altered(msgspec.json.decode(whole)).flatmap(json_bytes)
    folder = tmp_path / store.REFERENCE / "x"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data.draw(by_structure | damaged(whole, PIECES)))
    try:
        record = RECORDS[name](folder)
    except StoreError as error:
        assert_one_line(error, tmp_path)
        return
    (folder / name).write_bytes(msgspec.json.encode(record, enc_hook=stored))
    assert RECORDS[name](folder) == record


@pytest.mark.parametrize("name", TABLES)
@given(data=st.data())
def test_a_damaged_table_is_one_or_a_line(run: Path, tmp_path: Path, name: str, data: st.DataObject) -> None:
    whole = next(run.rglob(name)).read_bytes()
    # The foot, which says where all is, begins as many bytes before the end as its last words but one say.
    foot = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    start = data.draw(st.sampled_from([0, foot]))
    (tmp_path / name).write_bytes(data.draw(damaged(whole, LIES, start)))
    try:
        TABLES[name](tmp_path / name)
    except StoreError as error:
        assert_one_line(error, tmp_path)


def test_no_byte_of_a_tables_foot_ends_the_program(tmp_path: Path) -> None:
    path = tmp_path / "host.parquet"
    pq.write_table(pa.table({"t_ns": [1, 2]}), path)
    whole = path.read_bytes()
    for at in range(len(whole) - 8 - int.from_bytes(whole[-8:-4], "little"), len(whole)):
        for byte in (0, whole[at] ^ 2, 0xFF):
            path.write_bytes(whole[:at] + bytes([byte]) + whole[at + 1 :])
            with suppress(StoreError):
                store.read_samples(path)


def test_a_column_whose_name_is_no_text_is_damage(run: Path, tmp_path: Path) -> None:
    whole = next(run.rglob("tasks.parquet")).read_bytes()
    (tmp_path / "tasks.parquet").write_bytes(whole.replace(b"score", b"sc\xffre"))
    with pytest.raises(StoreError, match="damaged"):
        read_items(tmp_path / "tasks.parquet")
