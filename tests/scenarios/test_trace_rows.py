"""The layouts of three public traces, as CSV and JSON Lines, and what is wrong with a file."""

import json
from pathlib import Path

import pytest

from serving_bench.harness.errors import UserError
from serving_bench.scenarios.trace_rows import Row, rows

MOONCAKE_JSONL = """{"timestamp": 0, "input_length": 6755, "output_length": 500, "hash_ids": [0, 1, 2]}
{"timestamp": 3052, "input_length": 2287, "output_length": 316, "hash_ids": [0, 42]}
"""
MOONCAKE_CSV = """timestamp,input_length,output_length,hash_ids
0,6755,500,"[0, 1, 2]"
3052,2287,316,0 42
"""
AZURE_2023 = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
"""
AZURE_2024 = """TIMESTAMP,ContextTokens,GeneratedTokens
2024-05-10 00:00:00.009930+00:00,374,44
2024-05-10 00:00:04.324508+00:00,396,109
"""
BURSTGPT = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45.5,GPT-4,1087,0,1087,API log
"""
BURSTGPT_SESSIONS = """Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type
5,7,1.5,ChatGPT,472,18,490,Conversation log
45.5,,,GPT-4,1087,0,1087,API log
"""  # noqa: E501


def as_jsonl(csv: str) -> str:
    names, *lines = [line.split(",") for line in csv.splitlines()]
    return "".join(json.dumps(dict(zip(names, line, strict=True))) + "\n" for line in lines)


def read(path: Path, content: str | bytes, layout: str = "auto") -> list[Row]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(rows(path, "trace", layout))


@pytest.mark.parametrize("content", [MOONCAKE_JSONL, MOONCAKE_CSV, "\ufeff" + MOONCAKE_CSV])
def test_mooncake_has_milliseconds_and_blocks(tmp_path: Path, content: str) -> None:
    assert read(tmp_path / "t", content) == [Row(0.0, 6755, 500, (0, 1, 2)), Row(3.052, 2287, 316, (0, 42))]


@pytest.mark.parametrize("content", [AZURE_2023, AZURE_2024, as_jsonl(AZURE_2023), as_jsonl(AZURE_2024)])
def test_azure_has_dates(tmp_path: Path, content: str) -> None:
    first, second = read(tmp_path / "t", content)
    assert (first[1:], second[1:]) == ((374, 44, None), (396, 109, None))
    assert second.at_s - first.at_s == pytest.approx(4.314578, abs=2e-6)


@pytest.mark.parametrize("content", [BURSTGPT, BURSTGPT_SESSIONS, as_jsonl(BURSTGPT)])
def test_burstgpt_has_seconds_and_zero_for_failures(tmp_path: Path, content: str) -> None:
    assert read(tmp_path / "t", content) == [Row(5.0, 472, 18, None), Row(45.5, 1087, 0, None)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\xfe\x00", "trace: cannot be read (not UTF-8 text)"),
        ("a,b\n1,2\n", "trace: the columns a, b belong to no trace that bench knows (mooncake: timestamp, "),
        ('{"a": 1}\n', "trace: the columns a belong to no trace"),
        (AZURE_2023 + "today,1,2\n", "trace, line 4: TIMESTAMP=today: must be a date such as 2023-11-16"),
        (BURSTGPT + "nan,m,1,2,3,x\n", "trace, line 4: Timestamp=nan: must be a number"),
        ("Timestamp,Request tokens,Response tokens\n-1,1,2\n",
         "trace, line 2: Timestamp=-1: must be a number"),
        ('{"timestamp": -1, "input_length": 1, "output_length": 2}',
         "trace, line 1: timestamp=-1: must be a"),
        (BURSTGPT + "50,m,1.5,2,3,x\n", "trace, line 4: Request tokens=1.5: must be a whole number from 0"),
        (BURSTGPT + "50,m,-1,2,3,x\n", "trace, line 4: Request tokens=-1: must be a whole number"),
        (BURSTGPT + "50,m,1,1e9,3,x\n", "trace, line 4: Response tokens=1e9: must be a whole number"),
        (BURSTGPT + "50,m,1\n", "trace, line 4: Response tokens=None: must be a whole number"),
        (BURSTGPT + "4,m,1,2,3,x\n", "trace, line 4: comes before the line above; sort it by time"),
        (MOONCAKE_JSONL + "{\n", "trace, line 3: not JSON ("),
        (MOONCAKE_JSONL + "[]\n", "trace, line 3: not a JSON object"),
        (MOONCAKE_JSONL + '{"timestamp": 4000, "input_length": 1}\n',
         "trace, line 3: output_length=None: must be a whole number"),
        (MOONCAKE_JSONL.replace("[0, 42]", '["x"]'),
         "trace, line 2: hash_ids=['x']: must be a list of whole numbers"),
    ],
)  # fmt: skip
def test_a_bad_file_is_one_line_with_the_place(tmp_path: Path, content: str | bytes, said: str) -> None:
    with pytest.raises(UserError) as caught:
        read(tmp_path / "t", content)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_a_layout_that_was_asked_for_must_be_the_files(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"belong to no trace that bench knows \(azure: TIMESTAMP, ContextTokens"
    ):
        read(tmp_path / "t", BURSTGPT, "azure")
    assert read(tmp_path / "t", BURSTGPT, "burstgpt")
