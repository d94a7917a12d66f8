"""Texts as long as was asked for by the tokenizer of the run's model, where that is at hand."""

import math
import sys
from itertools import islice
from pathlib import Path
from random import Random
from statistics import mean

import msgspec
import pytest
import tiny_tokenizer
from begun_run import write_begun
from checkpoint_files import write_checkpoint

from serving_bench.engines.model import weights
from serving_bench.harness.contracts import Message
from serving_bench.harness.errors import StoreError
from serving_bench.harness.install.tokenizer import resolved, tokens_per_word
from serving_bench.harness.plan import plan
from serving_bench.harness.run import recorded
from serving_bench.harness.settings import config, overrides
from serving_bench.harness.settings.config import Settings
from serving_bench.harness.store.tokenizer import read_tokenizer
from serving_bench.scenarios import SCENARIOS, prose

FIXED = ("engine=reference", "scenario=fixed", "scenario.input_tokens=600")


def settings_of(*words: str) -> Settings:
    return config.settings(overrides.parse(words))


@pytest.fixture
def tokenizer(tmp_path: Path) -> str:
    return tiny_tokenizer.train([prose(Random(5), 200)], tmp_path / "tokenizer.json")


def rates(settings: Settings) -> list[float | None]:
    return [getattr(each.options, "tokens_per_word", None) for each in settings.scenarios]


def test_a_prompt_has_the_tokens_that_were_asked_for(tokenizer: str, tmp_path: Path) -> None:
    asked_for = settings_of(*FIXED, f"load.tokenizer={tokenizer}")
    settings, [said] = resolved(asked_for, weights, tmp_path)
    [rate] = rates(settings)
    assert rate == tokens_per_word(tokenizer)
    assert rate is not None
    assert rate > 2  # it knows 300 tokens
    assert said == f"scenario.tokens_per_word: {rate}, by {tokenizer} on 20,000 words of bench's text"
    [choice] = settings.scenarios
    chat = next(SCENARIOS["fixed"].conversations(choice.options, Random(9)))
    message: Message = chat.turns[0].messages[0]
    assert read_tokenizer(tokenizer).count([message.content])[0] == pytest.approx(600, rel=0.1)


def test_without_a_tokenizer_a_prompt_has_the_tokens_that_the_reference_counts(tmp_path: Path) -> None:
    settings, [said] = resolved(settings_of(*FIXED), weights, tmp_path)
    assert rates(settings) == [1.35]
    assert said.startswith(
        "scenario.tokens_per_word: 1.35, by reference (a token for each 4 bytes) on 20,000"
    )
    [choice] = settings.scenarios
    chats = islice(SCENARIOS["fixed"].conversations(choice.options, Random(9)), 50)
    [*counted] = (math.ceil(len(chat.turns[0].messages[0].content.encode()) / 4) for chat in chats)
    assert mean(counted) == pytest.approx(600, rel=0.02)


def test_a_resumed_run_has_the_same_texts_without_the_tokenizer(tokenizer: str, tmp_path: Path) -> None:
    settings, _ = resolved(settings_of(*FIXED, f"load.tokenizer={tokenizer}"), weights, tmp_path)
    whole = plan.make(settings)
    directory = tmp_path / "run"
    directory.mkdir()
    record = write_begun(directory, settings, whole)
    again = config.settings(recorded.choices_of(record))
    assert again.scenarios == settings.scenarios
    assert recorded.recorded_plan(directory, record.plan, again) == whole
    # One that was begun with another length is another run.
    with pytest.raises(StoreError):
        recorded.recorded_plan(directory, record.plan, settings_of(*FIXED, f"load.tokenizer={tokenizer}"))


def test_a_checkpoint_on_this_machine_has_the_tokenizer_of_all_engines(tokenizer: str, tmp_path: Path):
    folder = write_checkpoint(tmp_path / "model")
    Path(tokenizer).rename(folder / "tokenizer.json")
    words = (
        "engine=vllm,transformers",
        "quantization=bf16",
        f"model={folder}",
        "scenario=rag,chat_multi_turn",
    )
    settings, [said] = resolved(settings_of(*words), weights, tmp_path)
    assert rates(settings) == [tokens_per_word(str(folder / "tokenizer.json")), None]
    assert str(folder / "tokenizer.json") in said


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["engine=reference,llama_cpp"], "no tokenizer.json of the model is on this machine"),
        (["engine=llama_cpp"], "no tokenizer.json of the model is on this machine; load.tokenizer=FILE"),
        (["engine=llama_cpp", "model=smollm2-135m,gemma3-270m"], "the run has several models"),
        (["engine=reference", "load.tokenizer=LICENSE"], "load.tokenizer=LICENSE: not a tokenizer.json ("),
    ],
)
def test_without_a_tokenizer_it_is_said_why_and_nothing_changes(
    words: list[str], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "LICENSE").write_text("no JSON")
    asked_for = settings_of(*words, "scenario=fixed")
    settings, [said] = resolved(asked_for, weights, tmp_path / "cache")
    assert settings == asked_for
    why = why.replace("=LICENSE", f"={tmp_path / 'LICENSE'}")
    assert said.startswith(f"scenario.tokens_per_word: 1.22, about the average for English; {why}")


def test_a_missing_package_is_said_and_nothing_changes(tokenizer: str, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    elsewhere = Path(tokenizer).rename(tmp_path / "other.json")  # whose tokenizer is not loaded yet
    asked_for = settings_of(*FIXED, f"load.tokenizer={elsewhere}")
    settings, [said] = resolved(asked_for, weights, tmp_path)
    assert settings == asked_for
    assert "needs the package tokenizers; install" in said


@pytest.mark.parametrize(
    "words", [["scenario=fixed", "scenario.tokens_per_word=1.5"], ["scenario=chat_multi_turn"]]
)
def test_what_was_given_and_what_has_no_lengths_in_tokens_is_left_alone(
    words: list[str], tokenizer: str, tmp_path: Path
) -> None:
    asked_for = settings_of("engine=reference", f"load.tokenizer={tokenizer}", *words)
    assert resolved(asked_for, weights, tmp_path) == (asked_for, [])


def test_the_plan_has_it_in_its_cells(tokenizer: str, tmp_path: Path) -> None:
    settings, _ = resolved(settings_of(*FIXED, f"load.tokenizer={tokenizer}"), weights, tmp_path)
    [cell] = msgspec.to_builtins(plan.make(settings))["starts"][0]["cells"]
    assert cell["scenario"]["options"]["tokens_per_word"] == tokens_per_word(tokenizer)
