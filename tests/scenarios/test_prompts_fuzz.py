"""Files of prompts, traces, lengths and schemas: what they say is played, or refused in a line."""

import csv
import io
import json
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import Any

from fuzzing import NO_VALUES, altered, assert_one_line, damaged, json_bytes, values
from hypothesis import example, given
from hypothesis import strategies as st

from serving_bench.harness.errors import UserError
from serving_bench.harness.foreign_files import MOST_DEPTH, value_of
from serving_bench.scenarios.file import FileOptions, read_conversations
from serving_bench.scenarios.json_schema import read_schema
from serving_bench.scenarios.lengths import length
from serving_bench.scenarios.trace_rows import LAYOUTS, Row, rows

BREAKS = [b"\n", b"\r\n", b'"', b"\\", b"\xff", b"\xc3", b"\x00", b"[", b"{}", b"1e999", b",", *NO_VALUES]


@given(values, st.booleans())
@example("\u2028 \ud7ff", False)
def test_a_value_of_json_is_read_as_it_was_written(value: Any, is_ascii: bool) -> None:
    assert value_of(json.dumps(value, ensure_ascii=is_ascii)) == value


@given(
    altered({"a": [1, {"b": "c"}]}).flatmap(json_bytes)
    | damaged(b'[1, {"b": "\\u00e9\\ud83d\\ude00"}]', BREAKS)
)
@example(b"[" * MOST_DEPTH + b"]" * MOST_DEPTH)
@example(b'{"a": ' * 900 + b"1" + b"}" * 900)
def test_what_is_read_of_json_can_be_shown_and_written_again(content: bytes) -> None:
    try:
        value = value_of(content.decode())
    except ValueError as error:
        str(error).encode()
        return
    assert json.loads(json.dumps(value, ensure_ascii=False, allow_nan=False).encode()) == value
    repr(value).encode()


# --- conversations ---------------------------------------------------------------------------------

RECORDS = [
    {"prompt": "Why?", "max_tokens": 3, "think_time_s": 0.5},
    {"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "y"}]},
    {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b c"}]},
]
said = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


def read(path: Path, content: bytes) -> list[Any]:
    path.write_bytes(content)
    try:
        found = read_conversations(FileOptions(path=str(path)))
    except UserError as error:
        assert_one_line(error, f"scenario.path={path}: ", f"scenario.path={path}, ")
        return []
    assert found
    return found


@given(
    st.lists(st.tuples(said, said), min_size=1, max_size=4),
    st.sampled_from(["\n", "\r\n", "\n\n"]),
    st.booleans(),
)
@example([("\u2028", "\x0b")], "\r\n", True)
def test_both_layouts_of_conversations_say_the_same(
    tmp_path: Path, talks: list[tuple[str, str]], end: str, has_mark: bool
) -> None:
    plain = [[{"role": "user", "content": a}, {"role": "assistant", "content": b}] for a, b in talks]
    shared = [[{"from": "human", "value": a}, {"from": "gpt", "value": b}] for a, b in talks]
    mark = "\ufeff" if has_mark else ""
    lines = end.join(json.dumps({"messages": each}, ensure_ascii=False) for each in plain)
    whole = json.dumps([{"conversations": each} for each in shared])
    found = read(tmp_path / "a", (mark + lines).encode())
    assert found == read(tmp_path / "b", (mark + whole).encode())
    assert [(turn.messages[0].content, turn.answer) for each in found for turn in each.turns] == talks


@given(
    altered(RECORDS).flatmap(json_bytes)
    | st.sampled_from(RECORDS).flatmap(altered).flatmap(json_bytes)
    | damaged(b"\n".join(json.dumps(each).encode() for each in RECORDS), BREAKS)
)
@example(b'{"prompt": "x", "max_tokens": 1e999}')
@example(b'{"prompt": "x", "\\n\\u001b[2J": 1}')
@example(b'{"prompt": "x", "max_tokens": {"a": ' + b"[" * 400 + b"]" * 400 + b"}}")
def test_a_damaged_file_of_conversations_can_be_sent_or_is_a_line(tmp_path: Path, content: bytes) -> None:
    for conversation in read(tmp_path / "chats", content):
        assert conversation.turns
        for turn in conversation.turns:
            assert turn.max_tokens >= 1
            assert isfinite(turn.think_time_s)
            json.dumps([message.fields for message in turn.messages], ensure_ascii=False).encode()


# --- traces and lengths ----------------------------------------------------------------------------

counts = st.integers(0, 10_000)
traced = st.lists(st.tuples(st.integers(0, 10**9), counts, counts), min_size=1, max_size=5).map(sorted)


def told(path: Path, content: bytes) -> list[Row] | None:
    path.write_bytes(content)
    try:
        found = list(rows(path, f"scenario.path={path}"))
    except UserError as error:
        assert_one_line(error, f"scenario.path={path}: ", f"scenario.path={path}, line ")
        return None
    assert [row.at_s for row in found] == sorted(row.at_s for row in found)
    assert all(
        isfinite(row.at_s) and type(row.input_tokens) is type(row.output_tokens) is int for row in found
    )
    return found


def lines_of(layout: str, made: list[tuple[int, int, int]]) -> tuple[bytes, bytes]:
    """The same trace as CSV and as JSON Lines."""
    names = [column.name for column in LAYOUTS[layout][:3]]
    times: list[Any] = [at for at, _, _ in made]
    if layout == "azure":
        times = [datetime.fromtimestamp(at, UTC).replace(tzinfo=None).isoformat(" ") for at in times]
    table = [[at, *counted] for at, (_, *counted) in zip(times, made, strict=True)]
    text = io.StringIO()
    csv.writer(text).writerows([names, *table])
    return text.getvalue().encode(), "\n".join(
        json.dumps(dict(zip(names, row, strict=True))) for row in table
    ).encode()


@given(st.sampled_from(sorted(LAYOUTS)), traced)
def test_a_trace_says_the_same_as_csv_and_as_json(tmp_path: Path, layout: str, made: Any) -> None:
    table, lines = lines_of(layout, made)
    found = told(tmp_path / "t", table)
    assert found == told(tmp_path / "t", lines)
    scale = 1e3 if layout == "mooncake" else 1
    assert [row[:3] for row in found or ()] == [(at / scale, *counted) for at, *counted in made]


TRACES = [each for layout in sorted(LAYOUTS) for each in lines_of(layout, [(1, 2, 3), (4, 5, 6)])]
BLOCKS = {"timestamp": 1, "input_length": 2, "output_length": 3, "hash_ids": [4, 5]}


@given(
    st.sampled_from(TRACES).flatmap(lambda each: damaged(each, BREAKS)) | altered(BLOCKS).flatmap(json_bytes),
    st.sampled_from(["t", "t.json"]),
)
@example(b'{"timestamp": 1, "input_length": 2, "output_length": 3, "hash_ids": [1e999]}', "t")
@example(b"Timestamp,Request tokens,Response tokens\n1," + b"9" * 5000 + b",1", "t")
@example(b"Timestamp,Request tokens,Response tokens\n1,1," + b"9" * 200_000, "t")
@example(b"TIMESTAMP,ContextTokens,GeneratedTokens\n0001-01-01T00:00+23:59,1,1", "t")
@example(b"[" * 100_000, "t.json")
def test_a_damaged_trace_has_rows_or_is_a_line(tmp_path: Path, content: bytes, name: str) -> None:
    told(tmp_path / name, content)


@given(damaged(b"tokens,more\n5,1\n7,2\n", BREAKS))
@example(b"tokens\n" + b"9" * 5000)
def test_a_damaged_column_has_lengths_or_is_a_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "lengths.csv"
    path.write_bytes(content)
    try:
        found = length.__wrapped__("input_tokens", f"{path}:tokens")
    except UserError as error:
        assert_one_line(error, f"scenario.input_tokens={path}:tokens")
        return
    assert 1 <= found.least <= found.most


SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "string", "pattern": "^a+$"}, "b": {"$ref": "#/$defs/c"}},
    "$defs": {"c": {"anyOf": [{"type": "null"}, {"enum": [1]}], "minimum": 1}},
}


@given(
    altered(SCHEMA).flatmap(json_bytes) | st.text(max_size=5).map(lambda text: text.encode("utf-8", "ignore"))
)
@example(b'{"not": ' * 150 + b"{}" + b"}" * 150)
def test_a_damaged_schema_is_one_or_a_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "schema.json"
    path.write_bytes(content)
    try:
        assert isinstance(read_schema(str(path), f"scenario.schema={path}"), dict)
    except UserError as error:
        assert_one_line(error, f"scenario.schema={path}: ")
