"""The longest prefix that was sent before, against numbers worked out by hand and a search of all prompts."""

from collections.abc import Hashable, Sequence
from random import Random

from serving_bench.harness.describe.prefixes import NOTHING, Known, Prefix, Sent


def known(
    sent: Sent, prompt: Sequence[Hashable], answer: Sequence[Hashable], sender: int, behind: Prefix = NOTHING
) -> Known:
    return sent.add(prompt, answer, sender, behind)[0]


def test_what_others_sent_first_and_what_the_sender_did_are_counted_apart() -> None:
    sent = Sent()
    assert known(sent, "abc", "xy", 1) == Known(0, 0)
    # Of its own conversation: its prompt and the answer to it.
    assert known(sent, "abcxyde", "", 1) == Known(0, 5)
    # Another one's: three letters, then it goes its own way.
    assert known(sent, "abcz", "", 2) == Known(3, 0)
    assert known(sent, "abczq", "", 2) == Known(3, 1)
    # What both sent was first the other's.
    assert known(sent, "abcz", "", 3) == Known(4, 0)


def test_only_the_beginning_counts() -> None:
    sent = Sent()
    sent.add("abc", "", 1)
    assert known(sent, "bc", "", 2) == Known(0, 0)
    assert known(sent, "xabc", "", 2) == Known(0, 0)
    assert known(sent, "", "", 2) == Known(0, 0)


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
        assert sum(known(sent, prompt, (), sender)) == longest
        before.append(prompt)


def test_what_goes_on_behind_a_prefix_counts_as_the_whole_of_it() -> None:
    rng, sent, whole = Random(5), Sent(), Sent()
    histories, ends = [list[int]() for _ in range(6)], [NOTHING] * 6
    for _ in range(300):
        sender = int(rng.random() * 6)
        said, answer = ([int(rng.random() * 2) for _ in range(int(rng.random() * 4))] for _ in range(2))
        expected = known(whole, [*histories[sender], *said], answer, sender)
        found, prompt, ends[sender] = sent.add(said, answer, sender, ends[sender])
        assert (found, prompt.tokens) == (expected, len(histories[sender]) + len(said))
        histories[sender] += [*said, *answer]
        if len(histories[sender]) > 20:  # so that others begin alike
            histories[sender], ends[sender] = [], NOTHING
