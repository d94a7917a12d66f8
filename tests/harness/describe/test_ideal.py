"""What an ideal cache would have served, against numbers worked out by hand and a search of all sent."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from hypothesis import given
from hypothesis import strategies as st
from make_run import MS, S, row

from serving_bench.harness.contracts import Conversation, Form, Message, RequestRow, Tool, Turn
from serving_bench.harness.describe.ideal import (
    BY_CHARACTERS,
    BY_COUNT,
    Ideal,
    Replay,
    SentTexts,
    SentTo,
    Template,
    nothing_sent,
)

TEXTS = st.text("ab", max_size=6)
# A token is a character.
TEMPLATE = Template({"user": 5, "system": 3}, later=2)


def asked(*contents: str, role: str = "user", **fields) -> Turn:
    return Turn(
        tuple(Message(role if not k else "user", text) for k, text in enumerate(contents)), 8, **fields
    )


def sending(conversation: int, turn: int, at: int, took: int = 1, answer: str = "", **changes) -> RequestRow:
    """A request that was sent `at` and ended after `took`, in milliseconds."""
    at_ns = S + at * MS
    changes = {"input_tokens": 1000, "output_text": answer, "end_ns": at_ns + took * MS, **changes}
    changes = {"request_id": f"{conversation}.{turn}", "chunk_ns": (), **changes}
    return row(0, at_ns, conversation=conversation, turn=turn, **changes)


def ideals(
    rows: Sequence[RequestRow], talks: Sequence[Conversation], sent: SentTo | None = None, count=len, **fields
) -> dict[str, Ideal]:
    replay = Replay(
        nothing_sent() if sent is None else sent,
        iter(talks),
        TEMPLATE,
        count,
        fields.pop("is_scripted", False),
    )
    return {each.request_id: each for each in replay.ideals(rows)}


def tokens(*given, **fields) -> dict[str, int]:
    return {name: each.tokens for name, each in ideals(*given, **fields).items()}


# --- texts -----------------------------------------------------------------------------------------


@given(st.lists(TEXTS, max_size=30))
def test_the_longest_known_beginning_is_what_a_search_of_all_texts_finds(texts: list[str]) -> None:
    sent, before = SentTexts(), list[str]()
    for text in texts:
        longest = max(
            (size for other in before for size in range(len(text) + 1) if other[:size] == text[:size]),
            default=0,
        )
        assert sent.known(text) == longest
        sent.add(text)
        before.append(text)
        assert sent.known(text) == len(text)


# --- requests, by hand -----------------------------------------------------------------------------


def test_a_turn_finds_its_history_and_the_answer_to_it() -> None:
    talk = Conversation((asked("hello"), asked("more"), asked("end")))
    rows = [sending(0, 0, 0, answer="world"), sending(0, 1, 10, answer="!"), sending(0, 2, 20)]
    # The first meets the template alone. The second 5 + hello + 2 + world, the third 2 + more + 2 + ! too.
    assert tokens(rows, [talk]) == {"0.0": 5, "0.1": 17, "0.2": 26}


def test_an_answer_is_known_once_it_has_ended() -> None:
    talks = [Conversation((asked("q"), asked("r")))] * 3
    rows = [
        sending(0, 0, 0, took=10, answer="yes"),
        sending(1, 0, 5, took=30, answer="yes"),
        sending(0, 1, 12),
        sending(2, 0, 50, answer="yes"),
    ]
    # All ask the same: the others find the prompt with the header of its answer, and later all of it.
    assert tokens(rows, talks) == {"0.0": 5, "1.0": 8, "0.1": 11, "2.0": 8}


def test_what_an_earlier_cell_sent_is_known_until_the_cache_is_emptied() -> None:
    sent, talk = nothing_sent(), Conversation((asked("once", role="system"),))
    assert tokens([sending(0, 0, 0)], [talk], sent) == {"0.0": 3}
    assert tokens([sending(0, 0, 9)], [talk], sent) == {"0.0": 9}
    sent.clear()
    assert tokens([sending(0, 0, 20)], [talk], sent) == {"0.0": 3}


def test_what_one_adapter_has_read_is_no_use_to_another() -> None:
    talks = [Conversation((asked("q", adapter=name),)) for name in ("red", "blue", "red")]
    rows = [sending(0, 0, 0), sending(1, 0, 10), sending(2, 0, 20)]
    assert tokens(rows, talks) == {"0.0": 5, "1.0": 5, "2.0": 8}


def test_tools_stand_before_the_prompt() -> None:
    form = Form("look", (Tool("look", "Look.", {"type": "object"}),))
    talks = [Conversation((asked("a", form=form),)), Conversation((asked("b", form=form),))]
    found = tokens([sending(0, 0, 0), sending(1, 0, 1)], talks)
    assert found["0.0"] == 0
    assert found["1.0"] > 50


def test_what_is_sent_at_once_has_the_same_history_and_the_next_turn_goes_on_behind_the_first() -> None:
    beside = (asked("side"), asked("sign"))
    talk = Conversation((asked("q"), asked("more", parallel=beside), asked("end")))
    rows = [
        sending(0, 0, 0, answer="yes"),
        sending(0, 1, 10, 5, answer="one"),
        sending(0, 1, 11, 3, part=1, answer="two", request_id="side"),
        sending(0, 1, 12, part=2, answer="three", request_id="sign"),
        sending(0, 2, 20),
    ]
    # The history is 5 + q + 2 + yes; beside it a header is known, and of sign what begins as side does.
    assert tokens(rows, [talk]) == {"0.0": 5, "0.1": 11, "side": 13, "sign": 15, "0.2": 22}


def test_a_turn_is_over_when_all_its_requests_are_whether_or_not_they_were_sent() -> None:
    beside = (asked("side"), asked("lost"))
    talk = Conversation((asked("q"), asked("more", parallel=beside), asked("end", parallel=(asked("fin"),))))
    rows = [
        sending(0, 0, 0, answer="yes"),
        replace(sending(0, 1, 10, part=2, request_id="lost"), sent_ns=None, outcome="connect_error"),
        sending(0, 1, 11, 1, answer="one"),
        sending(0, 1, 14, 3, part=1, answer="two", request_id="side"),
        sending(0, 2, 20, 1),
        sending(0, 2, 23, 1, part=1, request_id="fin"),
    ]
    # The history is 5 + q + 2 + yes, then 2 + more + 2 + one.
    assert tokens(rows, [talk]) == {"0.0": 5, "0.1": 11, "side": 13, "0.2": 22, "fin": 24}


def test_thoughts_are_no_part_of_the_history() -> None:
    talk = Conversation((asked("q"), asked("r")))
    rows = [sending(0, 0, 0, answer="yes", reasoning_text="hm"), sending(0, 1, 10)]
    assert tokens(rows, [talk]) == {"0.0": 5, "0.1": 8}


def test_a_scripted_answer_was_not_sent_before() -> None:
    talk = Conversation((asked("q", answer="yellow"), asked("r")))
    rows = [sending(0, 0, 0, answer="yes"), sending(0, 1, 10)]
    assert tokens(rows, [talk], is_scripted=True) == {"0.0": 5, "0.1": 10}


def test_without_a_count_it_is_the_share_of_characters_of_the_requests_own_tokens() -> None:
    talks = [Conversation((asked("aabb"),)), Conversation((asked("aaab"),))]
    rows = [sending(0, 0, 0, input_tokens=47), sending(1, 0, 10, input_tokens=47)]
    found = ideals(rows, talks, count=lambda text: None)
    # The template has 5 + 2 of 47 tokens; of the others half.
    assert found["1.0"] == Ideal("1.0", 25, BY_CHARACTERS)
    assert ideals(rows, talks)["1.0"] == Ideal("1.0", 7, BY_COUNT)


def test_requests_that_were_not_sent_or_not_counted_or_follow_a_lost_one_have_none() -> None:
    talks = [Conversation((asked("q"), asked("r"), asked("s")))] * 3
    rows = [
        sending(0, 0, 0),
        sending(0, 2, 10),
        sending(1, 0, 20, input_tokens=None),
        sending(1, 1, 30),
        replace(sending(2, 0, 40), sent_ns=None),
    ]
    assert tokens(rows, talks).keys() == {"0.0", "1.1"}


def test_it_is_never_more_than_the_server_counted() -> None:
    talk = Conversation((asked("hello"), asked("more")))
    assert tokens([sending(0, 0, 0, answer="x"), sending(0, 1, 10, input_tokens=9)], [talk])["0.1"] == 9


def test_when_too_much_was_sent_the_rest_has_none(monkeypatch) -> None:
    monkeypatch.setattr("serving_bench.harness.describe.ideal.MOST_CHARACTERS", 60)
    talks = [Conversation((asked(40 * letter),)) for letter in "abcd"]
    assert tokens([sending(k, 0, k * 10) for k in range(4)], talks).keys() == {"0.0", "1.0"}


# --- requests, against a search of all -------------------------------------------------------------


@dataclass(frozen=True)
class Piece:
    """A header, whose tokens depend on its role and place, or a character."""

    name: str
    tokens: int


def pieces(messages: Sequence[Message]) -> list[Piece]:
    found = list[Piece]()
    for message in messages:
        header = TEMPLATE.later if found else TEMPLATE.first.get(message.role, 0)
        found.append(Piece(f"<{message.role}>", header))
        found += (Piece(letter, 1) for letter in message.content)
    return found


@st.composite
def traffic(draw) -> tuple[list[Conversation], list[RequestRow]]:
    turns = st.builds(asked, TEXTS, TEXTS, role=st.sampled_from(["system", "user"]))
    turn_lists = draw(st.lists(st.lists(turns, min_size=1, max_size=3), max_size=5))
    talks = [Conversation(tuple(each)) for each in turn_lists]
    rows = []
    for number, talk in enumerate(talks):
        at = draw(st.integers(0, 20))
        for turn in range(len(talk.turns)):
            took = draw(st.integers(1, 9))
            rows.append(sending(number, turn, at, took, draw(TEXTS)))
            at += took + draw(st.integers(0, 9))
    return talks, sorted(rows, key=lambda each: (each.sent_ns or 0, each.request_id))


def searched(talks: Sequence[Conversation], rows: Sequence[RequestRow]) -> Iterator[tuple[str, int]]:
    """Compare each prompt with all that was sent or answered before it, token by token."""
    was_sent = [(0, pieces([Message(role, "")])) for role in TEMPLATE.first]
    histories = dict[int, list[Message]]()
    for each in rows:
        history = histories.setdefault(each.conversation, [])
        history += talks[each.conversation].turns[each.turn].messages
        prompt = pieces([*history, Message("assistant", "")])
        at_ns, longest = each.sent_ns or 0, 0
        for since_ns, other in was_sent:
            if since_ns <= at_ns:
                same = 0
                for a, b in zip(prompt, other, strict=False):
                    if a != b:
                        break
                    same += a.tokens
                longest = max(longest, same)
        yield each.request_id, longest
        history.append(Message("assistant", each.output_text))
        was_sent += [(at_ns, prompt), (each.end_ns, pieces(history))]


@given(traffic())
def test_it_finds_what_a_search_of_all_that_was_sent_finds(drawn) -> None:
    talks, rows = drawn
    assert tokens(rows, talks) == dict(searched(talks, rows))
