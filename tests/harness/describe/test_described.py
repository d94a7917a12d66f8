"""What a description counts, against numbers worked out by hand."""

from itertools import islice, repeat
from random import Random

import pytest

from serving_bench.harness.contracts import Conversation, Form, Message, Tool, ToolCall, Turn
from serving_bench.harness.describe.described import (
    CONVERSATIONS,
    WORDS,
    Bin,
    Counting,
    FormCount,
    Traffic,
    first,
    histogram,
    sending_order,
    traffic,
)
from serving_bench.scenarios import SCENARIOS

BY_WORDS = Counting(1.0, "words")


def asked(text: str, max_tokens: int = 2, **more: object) -> Turn:
    return Turn((Message("user", text),), max_tokens, **more)  # type: ignore[arg-type]


def told(
    *conversations: Conversation, users: int = 1, scripted: bool = False, per_piece: float = 1.0
) -> Traffic:
    counting = Counting(per_piece, "words")
    return traffic(conversations, counting, users, is_scripted=scripted, is_all=True)


def test_users_take_turns_and_go_on_with_the_next_conversation() -> None:
    assert list(sending_order([2, 1, 3, 1], 2)) == [(0, 0), (1, 0), (0, 1), (2, 0), (3, 0), (2, 1), (2, 2)]
    assert list(sending_order([2, 1], 1)) == [(0, 0), (0, 1), (1, 0)]
    assert list(sending_order([1, 2], 9)) == [(0, 0), (1, 0), (1, 1)]


def test_a_history_grows_by_prompts_and_answers_and_all_of_it_is_known() -> None:
    found = told(Conversation((asked("a b c"), asked("d e"))))
    # The second prompt: 3 words, 2 tokens of an answer, 2 words; its first 5 were there before.
    assert (found.input_tokens.least, found.input_tokens.most) == (3, 7)
    assert (found.hits.input_tokens, found.hits.shared_tokens, found.hits.own_tokens) == (10, 0, 5)
    assert found.by_turn[1].hit_share == 0
    assert found.by_turn[2].hit_share == pytest.approx(5 / 7)
    assert found.by_group == {}


def test_what_another_conversation_sent_is_shared_by_group() -> None:
    one, two = (Conversation((asked(text),), group=group) for text, group in (("a b c d", 0), ("a b x y", 1)))
    found = told(one, two, two)
    assert (found.by_group[0].requests, found.by_group[0].hit_share) == (1, 0)
    # Of the group's first prompt 2 of 4 are known, of the second all.
    assert found.by_group[1].shared_share == found.by_group[1].hit_share == pytest.approx(6 / 8)
    assert found.hits.hit_share == pytest.approx(6 / 12)


def test_two_unknown_answers_are_never_the_same() -> None:
    chat = Conversation((asked("a"), asked("b")))
    found = told(chat, chat, users=2)
    # a, a, a??b, a??b: of the last two each knows its own "a??", of which "a" was first sent by the first.
    assert (found.hits.input_tokens, found.hits.shared_tokens, found.hits.own_tokens) == (10, 2, 5)


def test_scripted_answers_and_calls_are_the_text_that_goes_back() -> None:
    turns = (asked("a", answer="x y z"), asked("b"))
    assert told(Conversation(turns), scripted=True).input_tokens.most == 5
    assert told(Conversation(turns)).input_tokens.most == 4
    call = ToolCall("find", '{"it": 1}')
    assert told(Conversation((asked("a", 50, call=call), asked("b")))).input_tokens.most == 1 + 3 + 1


def test_tokens_of_a_piece_scale_all_but_the_shares() -> None:
    chats = [Conversation((asked("a b c d"),)), Conversation((asked("a b"),))]
    once, twice = told(*chats), told(*chats, per_piece=2.0)
    assert (once.hits.input_tokens, twice.hits.input_tokens) == (6, 12)
    assert twice.input_tokens.most == 8
    assert once.hits.hit_share == twice.hits.hit_share == pytest.approx(2 / 6)


def test_tools_stand_before_the_prompt_and_forms_are_counted() -> None:
    tool = Tool("find", "find it", {"type": "object"})
    step, free = Form("step", tools=(tool,)), Form("free", schema={"properties": {"a": {}}}, is_forced=False)
    found = told(Conversation((asked("a", form=step),)), Conversation((asked("b", form=step),)))
    assert found.input_tokens.least > 1
    assert found.hits.shared_tokens == found.input_tokens.least - 1
    assert found.forms == (FormCount("step", "a call of find", True, 2),)
    told_so = told(Conversation((asked("a", form=free),)))
    assert told_so.forms == (FormCount("free", "JSON with a", False, 1),)
    assert told_so.input_tokens.most == 1


def test_other_tools_stand_before_the_whole_history() -> None:
    forms = [Form(name, tools=(Tool(name, "it", {}),)) for name in ("one", "two")]
    found = told(
        Conversation((asked("a", form=forms[0]), asked("b", form=forms[1]), asked("c", form=forms[0])))
    )
    # The third prompt: the first one and its answer were there before, but behind the other tools the rest.
    tools = found.by_turn[1].input_tokens - 1
    assert [found.by_turn[turn].input_tokens - tools for turn in (1, 2, 3)] == [1, 4, 7]
    assert [found.by_turn[turn].own_tokens for turn in (1, 2, 3)] == [
        0,
        found.by_turn[2].own_tokens,
        tools + 3,
    ]
    assert found.by_turn[2].own_tokens < tools


def test_what_is_sent_at_once_stands_behind_one_history_and_adds_nothing_to_it() -> None:
    parts = (asked("d e x"), asked("d e y"))
    found = told(Conversation((asked("a b c"), asked("d e z", parallel=parts), asked("f"))))
    # Behind 3 words and an answer of 2 tokens: 5 are known to the first of three, and 2 words more to others.
    assert (found.by_turn[2].requests, found.by_turn[2].input_tokens) == (3, 24)
    assert found.by_turn[2].own_tokens == 5 + 7 + 7
    assert (found.by_turn[3].input_tokens, found.by_turn[3].own_tokens) == (8 + 2 + 1, 8 + 2)
    assert (found.requests, found.parallel, found.at_once) == (5, 3, 3)
    assert found.samples[0].turns[1][1] == "up to 2 tokens, at once with 2 others"


def test_what_one_adapter_has_read_is_no_use_to_another() -> None:
    chats = [Conversation((asked("a b c", adapter=name),)) for name in ("red", "blue", "red")]
    assert told(*chats).hits.shared_tokens == 3


def test_the_share_that_leaves() -> None:
    found = told(Conversation((asked("a", leave_after_s=0.4),)), *repeat(Conversation((asked("b"),)), 3))
    assert found.left_share == 0.25
    assert found.samples[0].turns[0][1] == "up to 2 tokens, leaves after 0.4 s"


def test_samples_are_cut_and_show_what_cannot_be_seen() -> None:
    long = Conversation(tuple(asked(f"{number}\x1b[31m\u202e" + "x" * 500) for number in range(6)))
    sample, *others = told(*repeat(long, 5)).samples
    assert len(others) == 2
    assert (len(sample.turns), sample.more_turns) == (4, 2)
    [said], _ = sample.turns[0]
    assert said.text.startswith("0\\u001b[31m\\u202exxx")
    assert said.more_characters == len("0\x1b[31m\u202e") + 500 - 400


@pytest.mark.parametrize(
    ("values", "width", "places", "full"),
    [
        ([7, 7], 1, range(7, 8), {7: 2}),
        ([1, 3, 3], 1, range(1, 4), {1: 1, 3: 2}),
        ([5, 16], 1, range(5, 17), {5: 1, 16: 1}),
        ([5, 17], 2, range(4, 18, 2), {4: 1, 16: 1}),
        ([5, 31], 5, range(5, 35, 5), {5: 1, 30: 1}),
        ([0, 11_999], 1000, range(0, 12_000, 1000), {0: 1, 11_000: 1}),
        ([0, 12_000], 2000, range(0, 14_000, 2000), {0: 1, 12_000: 1}),
    ],
)
def test_bins_are_round_and_at_most_twelve(
    values: list[int], width: int, places: range, full: dict[int, int]
) -> None:
    expected = [Bin(at, at + width - 1, full.get(at, 0)) for at in places]
    assert list(histogram(values).bins) == expected
    assert len(expected) <= 12


def test_how_many_are_looked_at() -> None:
    chat = Conversation((asked("a b"),))
    assert len(first(repeat(chat))[0]) == CONVERSATIONS
    assert first(repeat(chat)) == ([chat] * CONVERSATIONS, False)
    assert first(iter([chat] * 3)) == ([chat] * 3, True)
    assert first(repeat(chat), most=5) == ([chat] * 5, False)
    long = Conversation((asked("a " * (WORDS // 2)),))
    assert first(repeat(long)) == ([long] * 3, False)


def test_the_hit_rate_of_a_shared_prefix_is_its_share_of_the_prompts() -> None:
    """One prefix of 900 words before 100 others: all but the first request know 900 of 1,000."""
    scenario = SCENARIOS["shared_prefix"]
    options = scenario.options(tokens_per_word=1.0, prefix_tokens=900, input_tokens=100)  # type: ignore[call-arg]
    chats = list(islice(scenario.conversations(options, Random(1)), 50))
    found = traffic(chats, BY_WORDS, 4, is_scripted=False, is_all=False)
    assert found.hits.hit_share == pytest.approx(49 * 900 / 50_000, abs=0.005)
    # A question may begin with the words of an earlier one.
    assert found.hits.hit_share >= 49 * 900 / 50_000
