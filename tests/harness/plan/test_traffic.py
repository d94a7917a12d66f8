"""What is said before a run of a context that is too short for what will be sent."""

import json
from dataclasses import replace
from pathlib import Path

import make_run
import pytest
from begun_run import write_begun
from bench_command import Place, told
from make_run import S

from serving_bench.harness.contracts import Conversation, Message, Plan, Turn
from serving_bench.harness.errors import UserError
from serving_bench.harness.plan import plan
from serving_bench.harness.plan.candidates import candidates
from serving_bench.harness.plan.context import context_lines, sizes_of
from serving_bench.harness.plan.facts import Facts
from serving_bench.harness.settings import config, overrides


def made(*lines: str) -> Plan:
    words = ["engine=reference", "repeats=1", "load.concurrency=1", *lines]
    return plan.make(config.settings(overrides.parse(words)))


@pytest.fixture
def chats(tmp_path: Path) -> list[str]:
    """Three conversations of one turn: 10, 30 and 50 words, each with 10 tokens of answer."""
    path = tmp_path / "chats.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": "word " * count}) for count in (10, 30, 50)))
    return ["scenario=file", f"scenario.path={path}", "scenario.output_tokens=10"]


TURNS = (
    Turn((Message("system", "be kind"), Message("user", "one two three")), 10, answer="four five"),
    Turn((Message("user", "six"),), 20, answer="seven"),
    Turn((Message("user", "eight"),), 1),
)


def test_the_largest_request_has_all_messages_before_it_and_room_for_its_answer() -> None:
    # The second turn: 5 + 1 words and 20 tokens; the answer of the first may have 10 tokens, or none.
    assert sizes_of(Conversation(TURNS[:2]), is_scripted=False) == (26, 36)
    # Scripted, two words of answer are certain.
    assert sizes_of(Conversation(TURNS[:2]), is_scripted=True) == (28, 28)
    # The third: 7 words and 1 token, after 30 of answers.
    assert sizes_of(Conversation(TURNS), is_scripted=False) == (26, 38)


def test_where_a_scenario_knows_what_a_word_has_that_is_likely() -> None:
    # The second turn: 6 words of 1.5 tokens, and 10 and 20 of answers; scripted 2 words instead of the 10.
    assert sizes_of(Conversation(TURNS[:2]), is_scripted=False, rate=1.5) == (26, 39)
    assert sizes_of(Conversation(TURNS[:2]), is_scripted=True, rate=1.5) == (28, 32)
    words = ["scenario=rag", "scenario.tokens_per_word=1.25", "scenario.document_tokens=960"]
    [said] = context_lines(made(*words, "engine.context_length=3900").starts)
    longer = "8 of the first 8 conversations of rag are longer, up to about 39"
    assert said.startswith(f"engine.context_length=3900: {longer}")
    assert "tokens, at 1.25 tokens a word: " in said


def test_a_context_that_holds_no_conversation_is_a_mistake_with_what_would_work(chats: list[str]) -> None:
    with pytest.raises(UserError) as raised:
        made("engine.context_length=19", *chats)
    assert str(raised.value) == (
        "engine.context_length=19: holds no conversation of file: they need 20 tokens or more, at 1 "
        "token a word; give 128, or shorter conversations"
    )


def test_a_context_beyond_the_models_is_not_advised() -> None:
    """The model has 8192, and four documents of 3000 words are more; one of 5000 fits all that it has."""
    long = ["model=smollm2-135m", "engine=llama_cpp", "scenario=rag"]

    def said(*words: str) -> str:
        settings = config.settings(overrides.parse([*long, *words]))
        with pytest.raises(UserError) as raised:
            plan.make(settings, Facts(contexts={"smollm2-135m": 8192}))
        return str(raised.value)

    assert said("scenario.document_tokens=3000").endswith("; the model has 8192: give shorter conversations")
    shorter = said("scenario.document_tokens=1250", "engine.context_length=1024")
    assert shorter.endswith("; give 8192, or shorter conversations")


def test_a_run_that_was_begun_with_such_a_context_is_still_resumed(tmp_path: Path, chats: list[str]) -> None:
    settings = config.settings(overrides.parse(["engine=reference", "engine.context_length=19", *chats]))
    with pytest.raises(UserError):
        plan.make(settings)
    longer = plan.make(config.settings(overrides.parse(["engine=reference", *chats])))
    [short] = candidates(settings)
    begun = replace(longer, starts=tuple(replace(start, deployment=short) for start in longer.starts))
    directory = tmp_path / "run"
    write_begun(directory, settings, begun)
    for start in begun.starts:
        make_run.write_start(directory, make_run.start_record(start, S))
        for cell in start.cells:
            make_run.write_cell(directory, cell, start, [], make_run.summary(S))
    resumed = told(Place(tmp_path), "run", "--resume", "run", chats[1])  # another cache did not begin it
    assert resumed.returncode == 0, resumed.stderr
    assert "every cell is completed" in resumed.stderr


def test_a_context_that_some_conversations_are_too_long_for_is_said(chats: list[str]) -> None:
    assert context_lines(made("engine.context_length=40", *chats, "load.conversations=3").starts) == [
        # Of 10, 30 and 50 words, each with an answer of 10 tokens.
        "engine.context_length=40: 2 of the first 3 conversations of file are longer, up to about 71 tokens, "
        "at 1.22 tokens a word: their last requests fail or are cut; 128 would hold them"
    ]
    # Beyond its end a file begins anew.
    assert "2 of the first 8" in context_lines(made("engine.context_length=59", *chats).starts)[0]
    assert context_lines(made("engine.context_length=71", *chats).starts) == []


def test_what_is_advised_is_enough() -> None:
    with pytest.raises(UserError, match="give 512, or shorter conversations"):
        made("engine.context_length=64")
    assert context_lines(made("engine.context_length=512").starts) == []


def test_each_context_and_each_scenario_is_looked_at() -> None:
    whole = made("engine.context_length=330,400,1024", "scenario=chat_multi_turn", "scenario.turns=1,8")
    said = [line.partition(", up to")[0] for line in context_lines(whole.starts)]
    longer = "8 of the first 8 conversations of chat_multi_turn turns=8 are longer"
    assert said == [f"engine.context_length={length}: {longer}" for length in (330, 400)]


@pytest.mark.parametrize("words", [["fairness=stock"], ["engine.base_url=http://h/v1", "model=m"]])
def test_a_context_that_bench_does_not_decide_is_not_judged(words: list[str], chats: list[str]) -> None:
    assert context_lines(made(*words, *chats).starts) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["scenario=long_context", "scenario.most_tokens=4096"],
            "engine.context_length=4096: requests of long_context have up to 4128 tokens with the answer; "
            "give 4608, or shorter requests",
        ),
        (
            ["scenario=fixed", "scenario.input_tokens=512,256..8000"],
            "engine.context_length=4096: requests of fixed input_tokens=256..8000 have up to 8128 tokens "
            "with the answer; give 8704, or shorter requests",
        ),
        (
            # 1000 + 3 x (1000 + 24)
            [
                "scenario=shared_prefix",
                "scenario.prefix_tokens=1000",
                "scenario.turns=3",
                "scenario.input_tokens=1000",
                "scenario.output_tokens=24",
                "engine.context_length=4071",
            ],
            "engine.context_length=4071: requests of shared_prefix have up to 4072 tokens with the answer; "
            "give 4352, or shorter requests",
        ),
    ],
)
def test_lengths_that_are_known_before_and_do_not_fit_are_refused(words: list[str], said: str) -> None:
    with pytest.raises(UserError) as raised:
        made(*words)
    assert str(raised.value) == said
    advised = said.partition("; give ")[2].partition(",")[0]
    kept = [word for word in words if not word.startswith("engine.context_length")]
    assert context_lines(made(*kept, f"engine.context_length={advised}").starts) == []


def test_what_the_model_cannot_hold_either_is_not_advised() -> None:
    words = ["engine=llama_cpp", "quantization=fp16", "scenario=long_context", "scenario.most_tokens=8192"]
    with pytest.raises(UserError, match="they need about 8704, and the model has 8192: give shorter ones"):
        plan.make(config.settings(overrides.parse(words)), Facts(contexts={"smollm2-135m": 8192}))


def test_lengths_without_an_end_are_looked_at_by_the_first_ones() -> None:
    words = ["scenario=fixed", "scenario.input_tokens=lognormal:9000:0.1", "scenario.output_tokens=1"]
    with pytest.raises(UserError, match="holds no conversation of fixed"):
        made(*words)
