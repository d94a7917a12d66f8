"""Types for how well a deployment answers: what is asked of its server after the load, and what it said."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar

from serving_bench.harness.contracts.keys import DAY_S, Range, key
from serving_bench.harness.contracts.sentences import Fact
from serving_bench.harness.contracts.servers import HttpCall

T = TypeVar("T")
# fidelity: the probabilities of its tokens against a reference's; tasks: the answers to items whose right
# answers are known. auto: fidelity, if the run has two deployments of a model.
Quality = Literal["auto", "fidelity", "tasks"]
DEFAULT_TASKS = ("bench-basics",)
# How a row of quality.parquet was asked for. `chat`: a greedy answer to a prompt, alone on the server;
# `again`: the first of them once more, which shows whether it answers the same; `load`: the same prompts,
# with up to 64 in flight as at the highest load (open loop: one for each slot, else 8); `text`: a given text,
# token by token; `prompt`: the tokens that a chat prompt becomes.
Way = Literal["chat", "again", "load", "text", "prompt"]
# Top tokens per position: the most that OpenAI's API allows, and the fewest by which a limit is judged.
LOGPROBS = 20


@dataclass(frozen=True)
class QualityTerms:
    """What is asked of each deployment beside its speed (`quality.*`).

    `asked`: if empty, nothing is asked (it is the key `quality`).
    """

    asked: tuple[Quality, ...] = ("auto",)
    budget_s: float = key(12.0, "How long fidelity is asked of one deployment.", Range(0.1, DAY_S))
    limit_nats: float | None = key(
        0.1,
        "A deployment whose mean KL divergence is above it does not win.",
        Range(0),
        takes="mean KL divergence in nats, such as 0.1, or off",
    )
    against: str | None = key(
        None,
        "The reference of fidelity.",
        takes="a deployment's label, or the directory of an earlier run",
        otherwise="most bits",
        foreign="label",
    )
    text: str | None = key(
        None,
        "The prompts and texts to ask.",
        takes="a file of prompts and texts: JSON, JSON lines, or paragraphs",
        otherwise="bench's own",
        foreign="file",
    )
    tasks: tuple[str, ...] = key(
        (),
        "The tasks whose right answers are known: lm-evaluation-harness's, or bench's own.",
        takes="names of tasks, such as bench-basics, gsm8k, mmlu",
        otherwise=",".join(DEFAULT_TASKS),
        foreign="task",
    )
    tasks_budget_s: float = key(900.0, "How long all tasks of one deployment may take.", Range(1, DAY_S))
    least_score_share: float | None = key(None, "A deployment that scores less does not win.", Range(0, 1))


@dataclass(frozen=True)
class Token:
    """A token at its position in an answer or a text, and the likeliest tokens at that position.

    `name`: in an answer the token's text, with bytes that are not UTF-8 as `\\xNN`; in a given text its id.
    `logprob` and the values of `top` are natural logarithms of probabilities before any sampling; None: not
    told. `top` has this token too if it is one of the likeliest.
    """

    name: str
    logprob: float | None = None
    top: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """One prompt or text that was asked of a server, and what came: a row of quality.parquet.

    `item` is its place in the list of prompts, or of texts. `error`: why nothing came, or not all of it.
    `finish_reason` and `prompt_tokens` are as the server says. `tokens` of a chat's answer are known only if
    the server names them. `answer`: the text of a chat's answer; None: an older file.
    """

    way: Way
    item: int
    tokens: tuple[Token, ...] = ()
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    error: str | None = None
    answer: str | None = None


@dataclass(frozen=True)
class Item:
    """One item of a task as a server answered it: a row of tasks.parquet.

    `task`: as in `quality.tasks`. `item` names it within the task, in every run. `score`: 1 right, 0 wrong,
    or what the task's own measure gives; None: no answer or no score, and `error` says why.
    """

    task: str
    item: str
    score: float | None
    answer: str
    prompt_sha256: str
    error: str | None = None


@dataclass(frozen=True)
class QualityRecord:
    """How a start was asked for its quality. The answers are in quality.parquet.

    `sha256`: of the prompts and texts that were to be asked, in their order. `logprobs`: how many top tokens
    were asked for at each position of a chat's answer, or 0. `missing`: why a way was not measured.
    `in_flight`: requests at once in the way `load`. `bits`: bits per weight; the deployment with the
    most is the reference.
    """

    sha256: str
    logprobs: int
    took_s: float
    in_flight: int | None = None
    bits: float | None = None
    missing: Mapping[Way | Quality, Fact] = field(default_factory=dict)


class Ask(Protocol):
    """Sends a call to a ready server and returns its JSON as `kind`, a dataclass or a type such as list[int].

    Raises ServerError for any other answer.
    """

    def __call__(self, call: HttpCall, kind: type[T]) -> T: ...


def merged_logprobs(likeliest: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Return the log-probabilities at one position by name. Tokens of one name count as one: their
    probabilities are added."""
    merged: dict[str, float] = {}
    for name, value in likeliest:
        before = merged.get(name, -math.inf)
        high, low = max(before, value), min(before, value)
        merged[name] = high if low == -math.inf else high + math.log1p(math.exp(low - high))
    return merged
