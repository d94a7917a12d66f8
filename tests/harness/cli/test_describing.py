"""`bench describe`, as a table, as JSON and as a page."""

import json
import re
from pathlib import Path

import pytest
import tiny_tokenizer
from bench_command import Place, told

WORDS = ("engine=reference", "scenario=shared_prefix", "scenario.prefixes=2", "scenario.prefix_tokens=100")
LENGTHS = "scenario.input_tokens=8..64"


@pytest.fixture
def here(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_it_shows_lengths_hits_and_samples_and_starts_nothing(here: Place) -> None:
    done = told(here, "describe", *WORDS, LENGTHS, "load.concurrency=2")
    assert (done.returncode, done.stderr) == (0, "")
    said = done.stdout
    assert said.startswith("shared_prefix, 2 users\nthe first 200 conversations of seed ")
    assert "tokens: words x 1.35" in said
    assert re.search(r"\nprompt tokens +n +min \d+, median [\d.]+, mean [\d.]+, max \d+", said)
    assert "output tokens, at most: 64\n\nturns: 1\n" in said
    assert re.search(r"\n0 +\d+ +\d+ +\d\d\.\d % +\d\d\.\d %\n1 +\d+", said)
    assert re.search(r"\nideal hit rate \d\d\.\d %: the share of [\d,]+ prompt tokens", said)
    assert said.count("-> up to 64 tokens") == 3
    assert list(here.path.iterdir()) == []


def test_json_has_a_description_of_each_scenario_and_load(here: Place) -> None:
    words = ("scenario=fixed,agent_loop", "engine=reference", "load.concurrency=1,4", "load.conversations=9")
    done = told(here, "describe", *words, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [(each["scenario"], each["load"]) for each in found] == [
        (scenario, load) for scenario in ("fixed", "agent_loop") for load in ("1 user", "4 users")
    ]
    assert len({each["seed"] for each in found}) == 4
    assert [each["traffic"]["conversations"] for each in found] == [9] * 4
    task = found[2]["traffic"]
    assert task["forms"] == [
        {
            "name": "step",
            "asks_for": "a call of search, read_page, calculate, finish",
            "is_forced": True,
            "requests": task["requests"],
        }
    ]
    assert list(task["by_turn"]) == [str(number) for number in range(1, task["turns"]["most"] + 1)]
    assert task["by_turn"]["2"]["hit_share"] > 0.5


def test_what_is_described_is_what_the_plan_sends(here: Place) -> None:
    keys = ("engine=reference", "scenario=fixed,summarise", "load.concurrency=1,4", "repeats=2")
    planned = json.loads(told(here, "plan", *keys, "--json").stdout)
    seeds = {
        (cell["scenario"]["label"], cell["load"]["concurrency"]): cell["seed"]
        for cell in planned["starts"][0]["cells"]
    }
    found = json.loads(told(here, "describe", *keys, "--json").stdout)
    assert {(each["scenario"], int(each["load"].split()[0])): each["seed"] for each in found} == seeds


def test_a_tokenizer_counts(here: Place) -> None:
    path = tiny_tokenizer.train(["a b c"], here.path / "tokenizer.json")
    (here.path / "chats.jsonl").write_text('{"prompt": "one two"}\n{"prompt": "one twenty"}\n')
    keys = ("engine=reference", "scenario=file", "scenario.path=chats.jsonl", "load.tokenizer=tokenizer.json")
    [found] = json.loads(told(here, "describe", *keys, "load.conversations=2", "--json").stdout)
    # It knows none of these words: a token is a letter.
    assert found["traffic"]["counted"] == f"by {path}"
    assert found["traffic"]["hits"]["input_tokens"] == len("one two") + len("one twenty")
    assert found["traffic"]["hits"]["shared_tokens"] == len("one tw")


def test_a_page_says_how_many_groups_it_does_not_show(here: Place) -> None:
    keys = ("engine=reference", "scenario=shared_prefix", "scenario.prefixes=40", "scenario.zipf=0")
    done = told(here, "describe", *keys, "--html", "page.html")
    [line] = [line for line in done.stdout.splitlines() if line.startswith("... and ")]
    found = json.loads(told(here, "describe", *keys, "--json").stdout)
    assert line == f"... and {len(found[0]['traffic']['by_group']) - 12} more (--json has all)"
    assert f">{line}<" in (here.path / "page.html").read_text()


def test_the_page_opens_offline_and_escapes_what_is_said(here: Place) -> None:
    hostile = "<script>alert(1)</script>\\u202e"
    (here.path / "chats.jsonl").write_text(f'{{"prompt": "{hostile}"}}\n')
    keys = ("engine=reference", "scenario=file", "scenario.path=chats.jsonl")
    done = told(here, "describe", *keys, "--html", "page.html")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "page.html")
    assert "\u202e" not in done.stdout
    page = (here.path / "page.html").read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\u202e" in page
    assert "<script" not in page
    assert "http" not in page
    assert page.count("<summary>Conversation") == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["scenario=ragg"], "scenario=ragg: no such scenario; did you mean rag?"),
        (["scenario=rag", "scenario.retrieved=0"], "scenario.retrieved=0: must be from 1 to 10000"),
        (["--html", "absent/page.html"],
         "absent/page.html: cannot be written (there is no directory absent); give a file in a directory"),
        (["engine=llama_cpp", "scenario=lora_mix", "scenario.adapters=nodir"],
         "scenario.adapters=nodir: no directory with adapter_config.json and adapter_model.safetensors"),
        (["--html", "."], "the name of the file to write is empty; give one"),
        (["--html", "..", "scenario=ragg"], "..: cannot be written (it is a directory); give a file"),
        (["scenario=rag", "scenario.input_tokens=lognormall:512:0.5"],
         "scenario.input_tokens=lognormall:512:0.5: must be a number from 1 to 10000000, a range such as"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(here: Place, words: list[str], said: str) -> None:
    done = told(here, "describe", *words, *["engine=reference"] * ("engine=llama_cpp" not in words))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1
