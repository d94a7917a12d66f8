"""Compute what an ideal prefix cache would have served of a cell's requests, once its load has ended."""

import logging
import time
from collections import Counter
from functools import lru_cache
from random import Random
from typing import TypeVar

import msgspec

from serving_bench.harness.contracts import HttpCall, LoadJob, Message, ScenarioOptions
from serving_bench.harness.describe.ideal import Count, Replay, Template
from serving_bench.harness.errors import BenchError, ServerError
from serving_bench.harness.run.start import Serving
from serving_bench.harness.servers import probe
from serving_bench.harness.store.request_table import rows_as_sent
from serving_bench.harness.store.tokenizer import Tokenizer
from serving_bench.scenarios import SCENARIOS

T = TypeVar("T")
# How long a server may take to count a cell's texts. The rest is then estimated from characters.
COUNTING_S = 5.0
_KEPT = 1024  # counts of texts, so that none is counted twice
# One token of nearly every tokenizer.
_WORD = "a"
_log = logging.getLogger(__name__)


def ideals_of(up: Serving, job: LoadJob, tokenizer: Tokenizer | None) -> tuple[dict[str, int], Counter[str]]:
    """Return ideal_cached_tokens by request_id, and how many of these were found in each way.

    Texts are counted by load.tokenizer, else by the measured server if bench started it. Counting stops after
    COUNTING_S.
    """
    until_s = time.monotonic() + COUNTING_S
    scenario = SCENARIOS[job.scenario]
    options: ScenarioOptions = msgspec.convert(dict(job.scenario_options), scenario.options)
    template, by_server = _asked(up, until_s) if up.process else (Template(), _uncounted)

    @lru_cache(maxsize=_KEPT)
    def count(text: str) -> int | None:
        if time.monotonic() >= until_s:
            return None
        return tokenizer.count([text])[0] if tokenizer else by_server(text)

    try:
        conversations = scenario.conversations(options, Random(job.seed))
        replay = Replay(up.sent, conversations, template, count, is_scripted=options.history == "scripted")
        ideals = list(replay.ideals(rows_as_sent(job.rows_path)))
    except (BenchError, OSError) as error:  # such as a file of prompts that is gone by now
        _log.warning("%s: what a cache could have served is not known: %s", job.rows_path, error)
        ideals = []
    return {each.request_id: each.tokens for each in ideals}, Counter(each.by for each in ideals)


def _uncounted(text: str) -> None:
    """Return None: there is nothing to count with."""


def _asked(up: Serving, until_s: float) -> tuple[Template, Count]:
    """Return the tokens of the server's chat template, and a function by which the server counts a text.

    Three chats of one-token texts show the template. A server that does not tell how it counts has a template
    of no tokens, and counts nothing.
    """
    prompt_tokens = up.engine.prompt_tokens

    def ask(call: HttpCall, kind: type[T]) -> T:
        left_s = until_s - time.monotonic()
        return probe.ask(call, kind, up.spec.base_url, timeout_s=left_s, key=up.key)

    def tokens(*messages: Message) -> int | None:
        if prompt_tokens is None or time.monotonic() >= until_s:
            return None
        try:
            return len(prompt_tokens(ask, up.spec.served_model, messages))
        except ServerError:
            return None

    user, assistant, system = (Message(role, _WORD) for role in ("user", "assistant", "system"))
    alone, after_system, third = tokens(user), tokens(system, user), tokens(user, assistant, user)
    if alone is None or third is None:
        return Template(), _uncounted
    later = (third - alone - 2) // 2
    first = {"user": alone - 1 - later}
    if after_system is not None:  # some templates take no system prompt
        first["system"] = after_system - 2 - 2 * later

    def by_server(text: str) -> int | None:
        count = tokens(Message("user", text))
        return None if count is None else max(count - alone + 1, 0)

    return Template(first, later), by_server
