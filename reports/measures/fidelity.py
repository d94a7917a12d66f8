"""How near one server's answers and probabilities are to another's, or to its own when it is asked again.

quality.py decides which two are compared.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from serving_bench.harness.contracts import Asked, Fact, Token, Way, because
from serving_bench.reports.data import Heard
from serving_bench.reports.stats.fidelity import LOWEST, TEXTS_NEEDED, kl_nats, mean_interval, survival

# In bfloat16 logits of 16 and more are 0.125 apart, so rounding may decide between two tokens this near.
TIE_NATS = 0.25
# How the answer to a prompt that is asked again compares. A tie: they part at two of the likeliest tokens.
Outcome = Literal["same", "tie", "other", "empty", "cut", "failed"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
# A token of the deployment, and the reference's at the same position.
_Place = tuple[Token, Token]


@dataclass(frozen=True)
class Fidelity:
    """How near a deployment is to its reference, by one way of asking.

    Places that can be compared: in a text all tokens but the first, in an answer those up to and including
    the first that differs. With fewer than 5 texts only the counts are given.
    """

    way: Way
    k: int  # how many of the likeliest tokens are compared
    items: int  # texts or answers
    tokens: int  # positions
    kl_nats: float | None = None  # mean over positions; None if probabilities are not told
    interval: tuple[float, float] | None = None  # of kl_nats, 95 % over texts
    kl_p99_nats: float | None = None
    left_out: int = 0  # positions that name fewer than k tokens, and do not count
    agreement: float | None = None  # share of positions with the same likeliest token
    same: Sequence[float] = ()  # share of answers that are the same for 0, 1 ... tokens
    # Over the given texts in which each token has a probability:
    perplexity: float | None = None
    perplexity_ratio: float | None = None  # to the reference's
    rms_change: float | None = None  # root mean square change of the probability

    @property
    def by_chat(self) -> str:
        """` by chat` if answers are compared, empty if given texts are."""
        return " by chat" if self.way == "chat" else ""

    @property
    def few(self) -> Fact | None:
        """What was compared, if that is too little: `only 1 answer, 1 token`."""
        kind = "few_texts" if self.way == "text" else "few_answers"
        return because(kind, items=self.items, tokens=self.tokens) if self.items < TEXTS_NEEDED else None

    @property
    def median_same(self) -> int | None:
        """The number of tokens for which half of the answers are the same; None if half are to their end."""
        return sum(each >= 0.5 for each in self.same) - 1 if self.same and self.same[-1] < 0.5 else None


def fidelity(way: Way, heard: Heard, base: Heard, k: int) -> Fidelity | None:
    """Return how near `heard` is to `base` by the texts or answers of both; None if there are none."""
    theirs = base.whole(way)
    pairs = [(row, theirs[item]) for item, row in heard.whole(way).items() if item in theirs]
    more: dict[str, Any] = {}
    if way == "text":
        places = [list(zip(a.tokens[1:], b.tokens[1:], strict=False)) for a, b in pairs]
        more = _of_given(places)
    else:
        ends = [_end(a, b) for a, b in pairs]
        more["same"] = survival([length for length, _ in ends], [is_parted for _, is_parted in ends])
        places = [
            list(zip(a.tokens, b.tokens, strict=False))[: length + 1]
            for (a, b), (length, _) in zip(pairs, ends, strict=True)
        ]
    result = Fidelity(way, k, len(pairs), sum(map(len, places)))
    if result.tokens and not result.few:
        return replace(result, **_of_likely(way, places, k), **more)
    return result if result.tokens else None


def _of_likely(way: Way, places: Sequence[Sequence[_Place]], k: int) -> dict[str, Any]:
    least = max(k, 1)
    whole = [[pair for pair in each if min(len(token.top) for token in pair) >= least] for each in places]
    named = [each for each in whole if each]
    # Two answers without a single token name in common use other names. Texts name tokens by id, so there no
    # common name means far apart.
    if len(named) < TEXTS_NEEDED or (
        way == "chat"
        and not any(tested.top.keys() & base.top.keys() for each in named for tested, base in each)
    ):
        return {}
    of_texts = [[kl_nats(base.top, tested.top, k) for tested, base in each] for each in named]
    of_all = np.concatenate([*map(np.asarray, of_texts)])
    return {
        "kl_nats": float(of_all.mean()),
        "interval": mean_interval([sum(each) for each in of_texts], [len(each) for each in of_texts]),
        "kl_p99_nats": float(np.quantile(of_all, 0.99)),
        "left_out": sum(map(len, places)) - len(of_all),
        "agreement": float(
            np.mean([_first(tested) == _first(base) for each in named for tested, base in each])
        ),
    }


def _first(token: Token) -> str:
    return max(token.top, key=lambda name: token.top[name])


def _of_given(places: Sequence[Sequence[_Place]]) -> dict[str, Any]:
    pairs_by_place = [[(a.logprob, b.logprob) for a, b in each] for each in places]
    # A text with a token of unknown probability has no perplexity and is left out.
    whole = [pairs for pairs in pairs_by_place if pairs and not any(None in pair for pair in pairs)]
    if len(whole) < TEXTS_NEEDED:
        return {}
    probed, base = np.maximum(np.concatenate([np.asarray(pairs, float) for pairs in whole]).T, LOWEST)
    return {
        "perplexity": math.exp(-probed.mean()),
        "perplexity_ratio": math.exp((base - probed).mean()),
        "rms_change": float(np.sqrt(((np.exp(probed) - np.exp(base)) ** 2).mean())),
    }


# --- answers that part -----------------------------------------------------------------------------


def _same(a: Sequence[str], b: Sequence[str]) -> int:
    pairs = zip(a, b, strict=False)
    return next((at for at, (one, other) in enumerate(pairs) if one != other), min(len(a), len(b)))


def _names(row: Asked) -> Sequence[str]:
    return [token.name for token in row.tokens]


def _end(a: Asked, b: Asked) -> tuple[int, bool]:
    """Return for how many tokens two answers are the same, and whether they part there. An answer that was
    only cut at max_tokens does not part."""
    length, (shorter, longer) = _same(_names(a), _names(b)), sorted((a, b), key=lambda row: len(row.tokens))
    is_ended = len(longer.tokens) > length == len(shorter.tokens)
    return length, shorter.finish_reason == "stop" if is_ended else length < len(shorter.tokens)


def outcomes(alone: Mapping[int, Asked], again: Iterable[Asked]) -> dict[Outcome, int]:
    """Return how many prompts that were asked again had each outcome. `alone`: the first answers by item."""
    return dict(Counter(outcome(alone[row.item], row) for row in again if row.item in alone))


def outcome(alone: Asked, again: Asked) -> Outcome:
    """Return how the second answer to a prompt compares with the first: by tokens, or by characters if one
    answer has no tokens."""
    if again.error or not (again.tokens or again.answer):
        return "failed" if again.error else "empty"
    is_told = bool(alone.tokens and again.tokens)
    before, after = (_names(row) if is_told else row.answer or "" for row in (alone, again))
    at = _same(before, after)
    if at == len(before) == len(after):
        return "same"
    if at == len(after) and again.finish_reason != "stop":
        return "cut"
    # The end of an answer has no probability, so it is never known to be a tie.
    if not is_told or at == min(len(before), len(after)):
        return "other"
    token, other = alone.tokens[at], again.tokens[at]
    # llama.cpp gives no likeliest tokens for a token that a draft proposed.
    top = token.top or other.top
    least = max(top.values(), default=math.inf) - TIE_NATS
    is_tie = all(top.get(each.name, -math.inf) >= least for each in (token, other))
    return "tie" if is_tie else "other"
