"""The longest prefix that was sent before, against numbers worked out by hand and a search of all prompts."""

from __future__ import annotations

from random import Random

from harness.describe.prefixes import Known, Sent


def test_what_others_sent_first_and_what_the_sender_did_are_counted_apart() -> None:
    sent = Sent()
    assert sent.add("abc", "xy", 1) == Known(0, 0)
    # Of its own conversation: its prompt and the answer to it.
    assert sent.add("abcxyde", "", 1) == Known(0, 5)
    # Another one's: three letters, then it goes its own way.
    assert sent.add("abcz", "", 2) == Known(3, 0)
    assert sent.add("abczq", "", 2) == Known(3, 1)
    # What both sent was first the other's.
    assert sent.add("abcz", "", 3) == Known(4, 0)


def test_only_the_beginning_counts() -> None:
    sent = Sent()
    sent.add("abc", "", 1)
    assert sent.add("bc", "", 2) == Known(0, 0)
    assert sent.add("xabc", "", 2) == Known(0, 0)
    assert sent.add("", "", 2) == Known(0, 0)


def test_it_finds_what_a_search_of_all_prompts_finds() -> None:
    rng, sent, before = Random(3), Sent(), list[list[int]]()
    for sender in range(300):
        prompt = [int(rng.random() * 3) for _ in range(1 + int(rng.random() * 8))]
        longest = max(
            (
                length
                for other in before
                for length in range(len(prompt) + 1)
                if other[:length] == prompt[:length]
            ),
            default=0,
        )
        assert sum(sent.add(prompt, (), sender)) == longest
        before.append(prompt)
