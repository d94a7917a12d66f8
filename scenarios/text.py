"""Write English prose of a given length from a small grammar. Pure: a seed always gives the same text.

Each sentence makes sense, but not all of them together. Its words have about as many tokens as words of real
English text (TOKENS_PER_WORD), since there are names, numbers, punctuation and words that a tokenizer splits.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from string import Formatter

from serving_bench.harness.contracts import ScenarioOptions, key, within

# Words are what stands between spaces. Over 20,000 of them a word has 1.23 tokens with SmolLM2's tokenizer
# and 1.20 with Gemma 3's. English text (three licences, GSM8K's and MMLU's questions) has 1.23 to 1.33 and
# 1.19 to 1.29.
TOKENS_PER_WORD = 1.22


@dataclass(frozen=True)
class TextOptions(ScenarioOptions):
    """Options of a scenario whose texts have lengths in tokens."""

    tokens_per_word: float | None = key(
        None, f"The tokens of a word, if no tokenizer is found; null: {TOKENS_PER_WORD}.", within(0.01, 100)
    )

    def words(self, tokens: float) -> int:
        """Return how many words have about `tokens` tokens, at least 1."""
        return max(1, round(tokens / (self.tokens_per_word or TOKENS_PER_WORD)))

    def tokens(self, text: str) -> int:
        """Return about how many tokens a text has, at least 1.

        Text with few spaces counts as one token per 5 bytes.
        """
        size = len(text.encode(errors="replace"))
        return max(1, round(max(len(text.split()) * (self.tokens_per_word or TOKENS_PER_WORD), size / 5)))


_PEOPLE = """
    Amelia Baxter Corinne Dalgaard Edwina Farrokh Giorgos Hawthorne Ingrid Jamila Kowalski Lindqvist
    Marguerite Nakamura Oluwaseun Pereira Quentin Rasmussen Santiago Thorvald Ursula Vanessa Whitfield
    Yevgenia Zoltan
""".split()  # noqa: SIM905 - a list of quoted words reads worse, here and below
_PLACES = """
    Aberdeen Brno Cordoba Dunedin Eskilstuna Freiburg Groningen Halifax Innsbruck Kaunas Ljubljana
    Montpellier Nagoya Oaxaca Porto Rostock Salerno Tampere Uppsala Valparaiso Winnipeg Zagreb
""".split()  # noqa: SIM905
_THINGS = """
    agreement archive balcony bridge canal catalogue ceremony chimney committee contract cupboard
    department ferry festival furnace gallery garden greenhouse harbour instrument inventory kitchen
    laboratory ladder laundry letter library machine manuscript market meadow measurement medicine message
    museum newspaper notebook orchard orchestra parliament passport pavement photograph piano proposal
    quarry railway receipt recipe reservoir roof sandwich satellite schedule shelter staircase station
    telescope theatre thermometer tunnel umbrella university valley vegetable warehouse waterfall
    wheelbarrow windmill window workshop
""".split()  # noqa: SIM905
_KINDS = """
    abandoned ancient borrowed careful cheerful complicated crooked delicate distant empty enormous
    expensive faithful famous fragile generous gloomy heavy hidden honest important invisible local
    magnificent modern mysterious narrow ordinary patient peculiar practical precious private quiet
    reliable remarkable rusty sensible shallow silent small sturdy sudden temporary transparent unfinished
    usual valuable weekly wooden
""".split()  # noqa: SIM905
_DID = """
    admired answered arranged bought carried cleaned compared copied counted delivered described
    discovered divided explained followed forgot found identified improved inspected introduced labelled
    lent measured mentioned noticed opened ordered painted planned postponed recognised recommended
    repaired replaced sketched studied translated underlined visited weighed
""".split()  # noqa: SIM905
_WHEN = (
    "after breakfast", "a week later", "at noon", "before the meeting", "during the storm", "at dawn",
    "in spite of the rain", "last winter", "not long ago", "on Thursday", "on the way home", "once a month",
    "shortly before midnight", "to everybody's surprise", "while the others waited", "without a word",
)  # fmt: skip
_BECAUSE = (
    "because nobody else had the time", "although it was far too late for that",
    "so that it could be used again",
    "which explains the delay", "but the result was not what we had hoped for",
    "and that settled the question",
    "unless the weather changes", "as the instructions require", "since the old one had been lost",
    "whether or not it was necessary", "until the last of the visitors had gone",
)  # fmt: skip
# The words for each name in braces in _SENTENCES.
_SLOTS: dict[str, Sequence[str]] = {
    "person": _PEOPLE,
    "place": _PLACES,
    "thing": _THINGS,
    "kind": _KINDS,
    "did": _DID,
    "when": _WHEN,
    "when_first": [when.capitalize() for when in _WHEN],
    "because": _BECAUSE,
    "number": [str(number) for number in range(3, 100)],
    "year": [str(year) for year in range(1790, 2030)],
}
_SENTENCES = (
    "{person} {did} the {kind} {thing} {when}.",
    "The {thing} in {place} is {kind}, {because}.",
    "{when_first}, {person} and some of the others {did} one {kind} {thing} after another.",
    "There are {number} {kind} {thing}s between the old {thing} and the new one, {because}.",
    "Nobody {did} the {thing} {when}; it had cost no more than {number} euros.",
    "It took us {number} days to get from there to {place} and back again, {because}.",
    'She {did} it, and said: "The first {thing} is more {kind} than the second."',
    "What they {did} {when} was neither {kind} nor {kind}, and most of us had known that for years.",
    "In {year}, the {thing} of {place} was the only one of its kind in the whole of the country.",
    "If the {thing} is {kind}, you should have {did} it {when}, {because}.",
    "They {did} the {thing} first, then the {thing}, and the {kind} {thing} last of all.",
    "Of all the people who were asked, {number} had {did} another {thing} like this one.",
    "I do not know whether anyone has {did} it since then, but I would like to find out.",
    "When we came to the {thing}, it was so {kind} that we had to go back the way we had come.",
)
# Each sentence as a list of literal parts, each with the words to draw from after it.
_PARSED = [
    [(literal, _SLOTS.get(slot or "", [""])) for literal, slot, _, _ in Formatter().parse(sentence)]
    for sentence in _SENTENCES
]


def sentences(rng: Random) -> Iterator[str]:
    """Yield sentences without end."""
    while True:
        parts = _PARSED[int(rng.random() * len(_PARSED))]
        yield "".join([literal + words[int(rng.random() * len(words))] for literal, words in parts])


def prose(rng: Random, words: int) -> str:
    """Return a text of `words` words, in sentences. The last sentence may be cut."""
    spoken: list[str] = []
    sentence_stream = sentences(rng)
    while len(spoken) < words:
        spoken += next(sentence_stream).split(" ")
    return " ".join(spoken[:words])
