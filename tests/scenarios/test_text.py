"""The prose of scenarios: seeded, of the length asked for, and read by a tokenizer as English is."""

import re
from random import Random

import pytest

from serving_bench.harness.errors import UserError
from serving_bench.harness.settings.decoding import points
from serving_bench.scenarios.text import TOKENS_PER_WORD, TextOptions, prose, sentences


@pytest.mark.parametrize("words", [1, 7, 400])
def test_prose_has_as_many_words_as_asked_for(words: int) -> None:
    assert len(prose(Random(1), words).split(" ")) == words


def test_the_same_seed_gives_the_same_prose_and_another_does_not() -> None:
    assert prose(Random(1), 50) == prose(Random(1), 50) != prose(Random(2), 50)


def test_every_sentence_is_whole() -> None:
    made = sentences(Random(1))
    for sentence in (next(made) for _ in range(500)):
        assert re.fullmatch(r"[A-Z].*[a-z0-9][.\"]+", sentence), sentence
        assert "  " not in sentence
        assert "{" not in sentence


def test_lengths_in_tokens_become_words() -> None:
    assert TextOptions().words(1000) == round(1000 / TOKENS_PER_WORD)
    assert TextOptions(tokens_per_word=2.0).words(1000) == 500
    assert TextOptions(tokens_per_word=2.0).words(0.4) == 1


@pytest.mark.parametrize("value", [0.0, -1.0, 1e9])
def test_a_ratio_that_no_tokenizer_has_is_refused(value: float) -> None:
    with pytest.raises(UserError, match=r"^scenario\.tokens_per_word=.*: must be from 0\.01 to 100$"):
        points("scenario", TextOptions, {"scenario.tokens_per_word": (value,)})
