"""What holds for every scenario that makes its text itself."""

import json
from itertools import islice
from random import Random
from typing import Any

import pytest

from serving_bench.harness.contracts import Conversation, Scenario
from serving_bench.harness.errors import UserError
from serving_bench.harness.settings.decoding import points
from serving_bench.scenarios import SCENARIOS

MADE = [each for name, each in SCENARIOS.items() if name not in ("file", "trace")]
every_scenario = pytest.mark.parametrize("scenario", MADE, ids=lambda each: each.name)


def first(scenario: Scenario, seed: int = 1, count: int = 24, **options: Any) -> list[Conversation]:
    return list(islice(scenario.conversations(scenario.options(**options), Random(seed)), count))


def said(conversation: Conversation) -> list[str]:
    return [message.content for turn in conversation.turns for message in turn.messages]


@every_scenario
def test_the_same_seed_gives_the_same_conversations(scenario: Scenario) -> None:
    assert first(scenario) == first(scenario)
    assert first(scenario) != first(scenario, seed=2)


@every_scenario
def test_no_conversation_is_said_again_in_another_cell(scenario: Scenario) -> None:
    """A server would have it in its cache."""
    asked = ["".join(said(each)) for seed in (1, 2) for each in first(scenario, seed)]
    assert len(set(asked)) == len(asked)


@every_scenario
def test_each_turn_can_be_sent(scenario: Scenario) -> None:
    forms = scenario.forms(scenario.options())
    for conversation in first(scenario):
        assert conversation.turns
        for number, turn in enumerate(conversation.turns):
            assert turn.max_tokens >= 1
            assert turn.messages[-1].role == ("tool" if number and turn.call else "user")
            assert all(message.content for message in turn.messages)
            assert turn.think_time_s == 0 or number
            assert turn.form is None or turn.form in forms


@every_scenario
def test_a_name_and_a_description_that_a_list_can_show(scenario: Scenario) -> None:
    assert SCENARIOS[scenario.name] is scenario
    assert 10 < len(scenario.description) < 100


def test_groups_share_their_beginning_and_popular_ones_come_more_often() -> None:
    found = first(SCENARIOS["shared_prefix"], count=400, prefixes=3, zipf=1.0, prefix_tokens=50)
    beginnings = {each.group: set[str]() for each in found}
    for each in found:
        beginnings[each.group].add(said(each)[0])
    assert sorted(beginnings, key=str) == [0, 1, 2]
    assert all(len(texts) == 1 for texts in beginnings.values())
    counts = [sum(each.group == group for each in found) for group in (0, 1, 2)]
    assert counts[0] > 1.5 * counts[1] > 1.5 * counts[2]
    even = first(SCENARIOS["shared_prefix"], count=400, prefixes=2, zipf=0.0, prefix_tokens=50)
    assert sum(each.group == 0 for each in even) == pytest.approx(200, abs=40)


def test_each_conversation_is_for_one_adapter_and_popular_ones_come_more_often() -> None:
    mix = SCENARIOS["lora_mix"]
    found = first(mix, count=400, adapters=3, input_tokens=5)
    names = [each.name for each in mix.options(adapters=3).lora]
    assert names == ["random-0", "random-1", "random-2"]
    assert all(each.turns[0].adapter == names[each.group] for each in found)
    counts = [sum(each.group == group for each in found) for group in (0, 1, 2)]
    assert counts[0] > 1.5 * counts[1] > 1.5 * counts[2]
    own = mix.options(adapters="/x/sql/:/y/chat/").lora
    assert [(each.name, each.source) for each in own] == [("sql", "/x/sql"), ("chat", "/y/chat")]
    # A running server may name its own by the place where it found them.
    assert [each.name for each in mix.options(adapters="org/a:/y/a").lora] == ["org/a", "/y/a"]


def test_questions_overlap_in_the_documents_that_are_popular() -> None:
    found = first(SCENARIOS["rag"], documents=10, retrieved=4, document_tokens=20)
    documents = [said(each)[1].split("\n\n")[:-1] for each in found]
    assert all(len(set(each)) == 4 for each in documents)
    assert len({text for each in documents for text in each}) <= 10
    steep = first(SCENARIOS["rag"], documents=8, retrieved=8, zipf=10.0, document_tokens=5, count=3)
    assert [len(set(said(each)[1].split("\n\n")[:-1])) for each in steep] == [8] * 3
    asked = [text.split(":")[0] for each in documents for text in each]
    assert asked.count("Document 1") > asked.count("Document 9")


def test_depths_double_and_come_in_turn() -> None:
    found = first(SCENARIOS["long_context"], count=8, least_tokens=100, most_tokens=500, tokens_per_word=1.0)
    words = [len(said(each)[0].split("\n\n")[0].split(" ")) for each in found]
    assert words == [100, 200, 400, 500] * 2
    assert [each.group for each in found] == [0, 1, 2, 3] * 2


def test_an_agents_steps_end_with_its_answer_and_each_has_a_result_of_the_one_before() -> None:
    for task in first(SCENARIOS["agent_loop"], steps="2..4"):
        assert 2 <= len(task.turns) <= 4
        names = [turn.call.name for turn in task.turns if turn.call]
        assert len(names) == len(task.turns)
        assert names[-1] == "finish"
        assert "finish" not in names[:-1]
        for turn in task.turns:
            tool = next(each for each in turn.form.tools if each.name == turn.call.name)
            assert json.loads(turn.call.arguments).keys() == tool.parameters["properties"].keys()


def test_an_agents_second_steps_ask_about_parts_of_one_result_and_all_results_come_back_together() -> None:
    scenario = SCENARIOS["agent_loop"]
    options = scenario.options(steps=6, parallel=3, result_tokens=20, tokens_per_word=1.0)
    assert options.width == 3
    for task in islice(scenario.conversations(options, Random(1)), 20):
        assert [len(turn.requests) for turn in task.turns] == [1, 3, 1, 3, 1, 1]
        for turn in task.turns[1::2]:
            texts = [each.messages[-1].content.partition(" Part ")[0] for each in turn.requests]
            assert texts == texts[:1] * len(turn.requests)
        parts = [each.messages[-1].content.rpartition(" Part ")[2] for each in task.turns[1].requests]
        assert parts == ["1 of 3.", "2 of 3.", "3 of 3."]
        assert [len(turn.messages[-1].content.split()) for turn in task.turns[2::2]] == [60, 60]


def test_the_share_of_users_who_do_not_wait_is_as_asked() -> None:
    turns = [each.turns[0] for each in first(SCENARIOS["code_completion"], count=400, left=0.25)]
    left = [turn.leave_after_s for turn in turns if turn.leave_after_s is not None]
    assert len(left) == pytest.approx(100, abs=25)
    assert all(0.2 <= after_s <= 0.6 for after_s in left)


def test_without_the_constraint_the_same_is_asked_by_the_prompt_alone() -> None:
    forced, free = (first(SCENARIOS["structured_output"], constrained=each) for each in (True, False))
    assert [said(each) for each in forced] == [said(each) for each in free]
    assert {each.turns[0].form.is_forced for each in forced} == {True}
    assert {each.turns[0].form.is_forced for each in free} == {False}
    assert {each.turns[0].form.name for each in forced} == {"person", "things", "report"}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("shared_prefix", {"prefixes": 0}, "scenario.prefixes=0: must be from 1 to 100000"),
        ("shared_prefix", {"think_time": "-1s"}, "scenario.think_time=-1s: must be 0 s or more"),
        ("rag", {"retrieved": 9, "documents": 8}, "scenario.retrieved=9: more than scenario.documents=8"),
        ("long_context", {"most_tokens": 9}, "scenario.most_tokens=9: less than scenario.least_tokens=512"),
        ("code_completion", {"left": 1.5}, "scenario.left=1.5: must be from 0 to 0.9"),
        ("code_completion", {"left_after": 0}, "scenario.left_after=0: must be above 0"),
        ("structured_output", {"output_tokens": 0}, "scenario.output_tokens=0: must be 1 or more"),
        ("burst", {"rate": 0}, "scenario.rate=0: must be above 0"),
        ("burst", {"burst": 0}, "scenario.burst=0: must be from 1 to 100000"),
        ("agent_loop", {"steps": 0}, "scenario.steps=0: must be a number from 1"),
        ("chat_multi_turn", {"spread": 2.0}, "scenario.spread=2: must be from 0 to 1"),
        ("lora_mix", {"adapters": 0}, "scenario.adapters=0: must be from 1 to 1000"),
        ("lora_mix", {"adapters": "-1"}, "scenario.adapters=-1: must be from 1 to 1000"),
        ("lora_mix", {"adapters": "/a/x/:/b/x/"}, "scenario.adapters=/a/x/:/b/x/: two have the same name"),
        ("lora_mix", {"adapters": "/a/x,y"}, "scenario.adapters=/a/x,y: must be a number, or directories"),
        ("lora_mix", {"adapters": "a::b"}, "scenario.adapters=a::b: must be a number, or directories"),
        ("lora_mix", {"zipf": -1.0}, "scenario.zipf=-1: must be from 0 to 10"),
    ],
)
def test_options_that_cannot_work_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    scenario, given = SCENARIOS[name], {f"scenario.{option}": (value,) for option, value in options.items()}
    with pytest.raises(UserError) as refused:
        next(scenario.conversations(points("scenario", scenario.options, given)[0].value, Random(0)))
    assert str(refused.value).startswith(message)


def test_a_burst_falls_into_a_quiet_stream() -> None:
    burst = SCENARIOS["burst"]
    options = burst.options(rate_per_s=2.0, quiet_s=2.0, burst=3, after_s=1.5)
    found = list(burst.conversations(options, Random(1)))
    assert [(each.arrival_s, each.group) for each in found] == [
        (0.0, 0), (0.5, 0), (1.0, 0), (1.5, 0), (2.0, 1), (2.0, 1), (2.0, 1), (2.5, 2), (3.0, 2), (3.5, 2)
    ]  # fmt: skip
    assert [at_s for at_s, _ in burst.arrivals(options)] == [each.arrival_s for each in found]
