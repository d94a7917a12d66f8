"""Scenarios: seeded, whole, and clear about what they cannot read."""

import itertools
import json
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from serving_bench.harness.contracts import Conversation, Message
from serving_bench.harness.errors import UserError
from serving_bench.scenarios.chat_multi_turn import SCENARIO as CHAT
from serving_bench.scenarios.chat_multi_turn import ChatMultiTurnOptions
from serving_bench.scenarios.file import SCENARIO as FILE
from serving_bench.scenarios.file import FileOptions


def chats(options: ChatMultiTurnOptions, seed: int, count: int = 5) -> list[Conversation]:
    return list(itertools.islice(CHAT.conversations(options, Random(seed)), count))


def test_the_same_seed_gives_the_same_conversations() -> None:
    assert chats(ChatMultiTurnOptions(), 3) == chats(ChatMultiTurnOptions(), 3)
    assert chats(ChatMultiTurnOptions(), 3) != chats(ChatMultiTurnOptions(), 4)


def test_conversations_of_one_seed_differ() -> None:
    assert len(set(chats(ChatMultiTurnOptions(), 3, 20))) == 20


def test_the_system_prompt_opens_each_conversation_and_is_shared() -> None:
    first = [
        chat.turns[0].messages for chat in chats(ChatMultiTurnOptions(), 1) + chats(ChatMultiTurnOptions(), 2)
    ]
    assert {messages[0].role for messages in first} == {"system"}
    assert len({messages[0].content for messages in first}) == 1


def test_lengths_stay_within_the_spread() -> None:
    options = ChatMultiTurnOptions(turns=3, output_tokens=100, spread=0.25, think_time_s=1.0)
    turns = [turn for chat in chats(options, 1, 40) for turn in chat.turns]
    assert all(75 <= turn.max_tokens <= 125 for turn in turns)
    assert min(turn.max_tokens for turn in turns) < 90
    assert max(turn.max_tokens for turn in turns) > 110
    assert all(len(chat.turns) == 3 for chat in chats(options, 1))


def test_the_first_turn_waits_for_nobody() -> None:
    for chat in chats(ChatMultiTurnOptions(think_time_s=1.0), 1):
        assert chat.turns[0].think_time_s == 0
        assert all(0.5 <= turn.think_time_s <= 1.5 for turn in chat.turns[1:])


def test_no_system_prompt_where_it_has_no_words() -> None:
    assert chats(ChatMultiTurnOptions(system_words=0), 1)[0].turns[0].messages[0].role == "user"


def written(path: Path, *records: object) -> FileOptions:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return FileOptions(path=str(path), output_tokens=9)


def test_a_file_is_played_in_its_order_over_and_over(tmp_path: Path) -> None:
    options = written(tmp_path / "chats.jsonl", {"prompt": "one"}, {"prompt": "two", "max_tokens": 5})
    played = list(itertools.islice(FILE.conversations(options, Random(0)), 3))
    assert [chat.turns[0].messages[0].content for chat in played] == ["one", "two", "one"]
    assert [chat.turns[0].max_tokens for chat in played] == [9, 5, 9]


def test_an_assistant_message_is_the_scripted_answer_of_the_turn_before(tmp_path: Path) -> None:
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u1"},
        {"role": "assistant", "content": "a1"},
        {"role": "user", "content": "u2"},
    ]
    options = written(tmp_path / "chats.jsonl", {"messages": messages})
    (first, second) = next(FILE.conversations(options, Random(0))).turns
    assert first.messages == (Message("system", "s"), Message("user", "u1"))
    assert first.answer == "a1"
    assert second.messages == (Message("user", "u2"),)
    assert second.answer is None


def test_a_byte_order_mark_and_a_line_separator_within_text_are_no_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + '{"prompt": "a\u2028b"}\r\n'.encode())
    played = next(FILE.conversations(FileOptions(path=str(path)), Random(0)))
    assert played.turns[0].messages[0].content == "a\u2028b"


def test_shuffle_keeps_every_line(tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    written(path, *({"prompt": str(n)} for n in range(20)))
    options = FileOptions(path=str(path), shuffle=True)
    played = list(itertools.islice(FILE.conversations(options, Random(0)), 20))
    texts = [chat.turns[0].messages[0].content for chat in played]
    assert texts != sorted(texts, key=int)
    assert sorted(texts, key=int) == [str(n) for n in range(20)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2: not JSON"),
        ("[]", "line 2: must be an object"),
        ("{}", "line 2: must have messages"),
        ('{"messages": [{"role": "user"}]}', "line 2: each message needs a role"),
        ('{"messages": [{"role": "system", "content": "x"}]}', "line 2: has no user message"),
        ('{"prompt": "x", "max_token": 3}', "line 2: max_token: no such field"),
        ('{"prompt": "x", "messages": []}', "line 2: give messages or prompt, not both"),
        ('{"prompt": "x", "max_tokens": 0}', "line 2: max_tokens=0: must be 1 or more"),
        ('{"prompt": "x", "max_tokens": NaN}', "line 2: not JSON (NaN is not a finite number)"),
        ('{"prompt": "x", "max_tokens": 1e400}', "line 2: not JSON (1e400 is not a finite number)"),
        ('{"prompt": "x", "max_tokens": 1099511627776}', "line 2: max_tokens=1099511627776: must be"),
        ('{"prompt": "a\\ud800b"}', "line 2: not JSON"),
        ('{"prompt": "x", "max_tokens": "9"}', "line 2: max_tokens='9': must be a whole number"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "chats.jsonl"
    path.write_text(f'{{"prompt": "good"}}\n{line}\n')
    with pytest.raises(UserError) as caught:
        next(FILE.conversations(FileOptions(path=str(path)), Random(0)))
    assert said in str(caught.value)


@pytest.mark.parametrize(("content", "said"), [(b"", "has no conversation"), (b"\xff\xfe", "not UTF-8 text")])
def test_a_file_that_holds_nothing_says_so(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "chats.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=said):
        next(FILE.conversations(FileOptions(path=str(path)), Random(0)))


def test_answers_are_as_long_as_those_of_the_file_unless_a_length_is_given(tmp_path: Path) -> None:
    def said(*answers: str, **more: object) -> dict[str, object]:
        pairs = [({"role": "user", "content": "u"}, {"role": "assistant", "content": a}) for a in answers]
        return {"messages": [*itertools.chain.from_iterable(pairs), {"role": "user", "content": "u"}], **more}

    path = tmp_path / "chats.jsonl"
    # Words of 1.5 tokens; of a text without blanks a fifth of its 60 bytes; an empty answer.
    written(path, said("w " * 20, "\u4e2d" * 20, ""), said("w " * 20, max_tokens=7))
    options = FileOptions(path=str(path), tokens_per_word=1.5)

    def lengths(options: FileOptions) -> list[list[int]]:
        made = itertools.islice(FILE.conversations(options, Random(0)), 2)
        return [[turn.max_tokens for turn in each.turns] for each in made]

    assert lengths(options) == [[30, 12, 1, 128], [7, 7]]
    assert lengths(replace(options, output_tokens=40)) == [[40] * 4, [7, 7]]


SHARE_GPT = [
    {"id": "a_0", "model": "Model: Default",
     "conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "u1", "markdown": None},
                       {"from": "gpt", "value": "a1"}, {"from": "user", "value": "u2"}]},
    {"id": "empty", "conversations": []},
    {"id": "b_1", "conversations": [{"from": "gpt", "value": "to nobody"}, {"from": "human", "value": "u3"}]},
]  # fmt: skip


@pytest.mark.parametrize("as_lines", [False, True])
def test_share_gpts_layout_is_read_as_it_is(tmp_path: Path, as_lines: bool) -> None:
    path = tmp_path / "sharegpt.json"
    lines = "\n".join(map(json.dumps, SHARE_GPT))
    path.write_text(lines if as_lines else json.dumps(SHARE_GPT, indent=1))
    options = FileOptions(path=str(path), output_tokens=9)
    first, second, again = itertools.islice(FILE.conversations(options, Random(0)), 3)
    assert [turn.messages for turn in first.turns] == [
        (Message("system", "s"), Message("user", "u1")),
        (Message("user", "u2"),),
    ]
    assert [(turn.answer, turn.max_tokens) for turn in first.turns] == [("a1", 9), (None, 9)]
    assert [turn.messages for turn in second.turns] == [(Message("user", "u3"),)]
    assert again == first


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[", "not JSON"),
        ("[[]]", "conversation 1: must be an object with messages, prompt or conversations"),
        ('[{"conversations": 3}]', "conversation 1: conversations must be a list"),
        (
            '[{"conversations": []}, {"conversations": [{"from": "human", "value": "x"}, {"from": "cat"}]}]',
            "conversation 2, message 2: needs from (human, user, gpt, chatgpt, bing, bard, assistant, "
            "system) and value (text)",
        ),
        ('[{"conversations": [{"from": "human", "value": 3}]}]', "conversation 1, message 1: needs from"),
        ('[{"id": 1}]', "conversation 1: id: no such field"),
        ('[{"conversations": []}]', "has no conversation"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_what_is_wrong_in_share_gpts_layout_is_named(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "sharegpt.json"
    path.write_text(content)
    with pytest.raises(UserError) as caught:
        next(FILE.conversations(FileOptions(path=str(path)), Random(0)))
    assert str(caught.value).startswith(f"scenario.path={path}")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
