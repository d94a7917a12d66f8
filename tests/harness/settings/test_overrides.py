"""The grammar of key=value and of study files."""

from pathlib import Path

import pytest

from serving_bench.harness.errors import UserError
from serving_bench.harness.settings.decoding import as_text
from serving_bench.harness.settings.overrides import parse


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("engine=vllm,sglang", ("vllm", "sglang")),
        ("load.concurrency=[1,2]", (1, 2)),
        ("load.concurrency=range(1,4)", (1, 2, 3)),
        ("engine.base_url=http://127.0.0.1:8000/v1", ("http://127.0.0.1:8000/v1",)),
        ('device="0,1"', ("0,1",)),
        ('scenario.path="~/chats=1.jsonl"', ("~/chats=1.jsonl",)),
        ("load.conversations=null", (None,)),
        ("load.duration=20s", ("20s",)),
        ("reference.fault=reset@12/5", ("reset@12/5",)),
    ],
)
def test_values_are_read_in_hydras_grammar(text: str, values: tuple[object, ...]) -> None:
    assert parse([text]) == {text.partition("=")[0]: values}


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("engine", "not of the form key=value"),
        ("+engine=vllm", "write engine=VALUE"),
        ("~engine", "not of the form key=value"),
        ("engine=", "has no value"),
        ("scenario.path=chats?a=b", "'scenario.path=\"chats?a=b\"'"),
        ("scenario.path=~/chats.jsonl", "'scenario.path=\"~/chats.jsonl\"'"),
        ("engine.base_url=http://[::1]:80/v1", "quote the value"),
        ("load.rate=interval(1,2)", "cannot be read"),
        ("load.concurrency=1,,2", "a value is missing beside a comma; leave out the comma"),
        ("load.concurrency=[1,2,]", "a value is missing beside a comma; leave out the comma"),
        ("load={concurency: 3}", "load is nested; keys are flat, such as load.concurrency=8"),
    ],
)
def test_what_cannot_be_read_says_how_to_write_it(text: str, advice: str) -> None:
    with pytest.raises(UserError) as caught:
        parse([text])
    assert advice in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_key_given_twice_is_refused() -> None:
    with pytest.raises(UserError, match=r"^seed=1 seed=2: seed is given twice; give it once$"):
        parse(["seed=1", "seed=2"])


def test_the_command_line_wins_over_the_study(tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text("engine: [vllm, sglang]\nload.duration: 20s\nseed: 3\n")
    assert parse(["seed=4"], study) == {"engine": ("vllm", "sglang"), "load.duration": ("20s",), "seed": (4,)}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("engine: {name: vllm}", "engine is nested"),
        ("- engine", "not a study: it must have lines `key: value`"),
        ("engine: [[1, 2]]", "must be a value or a list of values"),
        (
            "engine: " + "[" * 5000 + "]" * 5000,
            "it is not YAML that bench can read; a study has lines `key: value`",
        ),
        ("engine: 'open", "line 1 is not YAML that bench can read; a study has lines"),
        ("# A title\n\nwords: of it: and more", "line 3 is not YAML that bench can read; "),
        ("seed: 1\nengine: vllm\nseed: 2", "seed is given twice; give it once"),
    ],
)
def test_a_study_that_is_none_is_refused_in_one_line(tmp_path: Path, content: str, said: str) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(content)
    with pytest.raises(UserError) as caught:
        parse([], study)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_study_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        parse([], tmp_path / "none.yaml")


@pytest.mark.parametrize("value", [None, True, 3, 0.5, "a,b", "~/x", 'say "hi"', "h/v1?a=b#c@d", "plain"])
def test_text_of_a_value_parses_back_to_it(value: str | int | float | bool | None) -> None:
    assert parse([f"key={as_text(value)}"])["key"] == (value,)


@pytest.mark.parametrize("given", ["0.2s", "20s", "1.5GiB", "gguf-q4_0"])
def test_a_value_with_a_unit_is_written_as_it_was_given(given: str) -> None:
    assert as_text(given) == given


@pytest.mark.parametrize("character", [chr(code) for code in range(32, 127)] + ["é", "\t", "日"])
def test_text_with_any_character_parses_back(character: str) -> None:
    for value in (f"a{character}b", f"{character}a", f"a{character}", f"{character}{character}"):
        assert parse([f"key={as_text(value)}"])["key"] == (value,), value


@pytest.mark.parametrize(
    "value", ["null", "true", "1.50", "007", "nan", "a\\", 'a\\"b', "1e5", "", "20s", "0.2s", "5%", "24GiB"]
)
def test_text_that_looks_like_something_else_stays_text(value: str) -> None:
    assert parse([f"key={as_text(value)}", f"both={as_text(value)},{as_text('x')}"]) == {
        "key": (value,),
        "both": (value, "x"),
    }
