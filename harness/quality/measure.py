"""Ask one server for its quality: prompts one at a time, again, and under load; then given texts.

It takes quality.budget. The first item of each kind is asked in any case and may take as long again: `most_s`
is the bound, and ends a request in flight. A server that is asked at length gets the later texts too, or the
later prompts if it cannot read given texts. A failure is recorded and ends nothing.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle, islice
from threading import Thread
from typing import Any, TypeVar

from serving_bench.harness.contracts import (
    Ask,
    Asked,
    Deployment,
    Engine,
    Fact,
    HttpCall,
    LaunchSpec,
    Message,
    QualityRecord,
    Token,
    Turn,
    Way,
    because,
    fields_of,
    masked_known,
)
from serving_bench.harness.contracts.sentences import inert
from serving_bench.harness.errors import BenchError, ServerError
from serving_bench.harness.load.answer import openai
from serving_bench.harness.quality.chat import greedy
from serving_bench.harness.quality.texts import Items
from serving_bench.harness.servers import probe
from serving_bench.harness.settings.units import duration_text

T = TypeVar("T")
# Tokens of an answer: two deployments that differ mostly do so within a few tokens.
MAX_TOKENS = 12
# How many prompts are asked twice, and how many texts are read side by side.
_AGAIN, _TEXTS_AT_ONCE = 2, 4
# The share of the budget after which nothing more is asked in each way.
_ENDS: dict[Way, float] = {"prompt": 0.1, "chat": 0.4, "again": 0.45, "load": 0.6, "text": 1.0}
# A request in flight may then take as long as the whole budget, and at least this long.
_LEAST_S = 10.0
# A way is given up after this many requests that all failed.
_IN_VAIN = 2
# Rounding puts some probabilities a little above 1.
_HIGHEST = 1e-3


@dataclass(frozen=True)
class Server:
    """A server that is ready. `in_flight`: requests that the way `load` sends at once. `bits`: per weight."""

    engine: Engine
    deployment: Deployment
    spec: LaunchSpec
    key: str | None
    in_flight: int
    bits: float | None

    def fields(self) -> dict[str, Any]:
        """Return the fields of its chat requests, without those that force an answer's length."""
        options, fairness = self.deployment.options, self.deployment.terms.fairness
        return fields_of(self.engine, Turn((), MAX_TOKENS), options, fairness, ends_itself=True)


def most_s(budget_s: float) -> float:
    """Return the most seconds that `measure` may take: twice the budget, or 10 s more if that is longer."""
    return budget_s + max(budget_s, _LEAST_S)


def measure(
    server: Server, items: Items, budget_s: float, *, at_length: bool
) -> tuple[list[Asked], QualityRecord]:
    """Ask for the items in all ways, and return the answers and how they were asked.

    Blocks for about budget_s, and for most_s at most.
    """
    asking = _Asking(server, items, budget_s, at_length)
    rows = [row for way in _ENDS for row in asking.rows(way)]
    took_s = time.monotonic() - asking.began_s
    facts = (items.sha256, asking.logprobs, took_s, server.in_flight, server.bits)
    return rows, QualityRecord(*facts, dict(asking.missing))


class _LateError(ServerError):
    """A call had not been answered by its way's end."""


@dataclass
class _Asking:
    """One server being asked.

    `missing`: why a way is not measured. `is_answered`: the server has answered a chat. `logprobs`: how many
    likeliest tokens a chat asks for.
    """

    server: Server
    items: Items
    budget_s: float
    at_length: bool
    began_s: float = field(default_factory=time.monotonic)
    missing: dict[Any, Fact] = field(default_factory=dict)
    is_over: bool = False
    is_answered: bool = False
    logprobs: int = field(init=False)
    late: Fact = field(init=False)

    def __post_init__(self) -> None:
        self.logprobs = self.server.engine.logprobs
        self.late = because("asked_too_late", budget=duration_text(self.budget_s))

    def rows(self, way: Way) -> list[Asked]:
        """Ask in one way, while there is time, and return the answers."""
        engine = self.server.engine
        prompts, texts = (range(len(each)) for each in (self.items.prompts, self.items.texts))
        if not self.at_length or engine.given_text:
            prompts = prompts[: self.items.first]
        if not self.at_length:
            texts = texts[: self.items.first]
        if way == "prompt":
            return self._all(way, prompts) if engine.prompt_tokens else []
        if way == "text":
            if engine.given_text is None:
                self.missing[way] = because("no_probabilities_of_text")
                return []
            slots = self.server.deployment.terms.concurrent_sequences or 1
            return self._all(way, texts, min(slots, _TEXTS_AT_ONCE))
        if way == "chat":
            return self._chats(prompts)
        at_once = self.server.in_flight if way == "load" else 1
        if (way == "load" and at_once == 1) or not self.is_answered:
            return []
        crowd = list(islice(cycle(prompts), max(len(prompts), at_once)))
        items = prompts[:_AGAIN] if way == "again" else crowd
        return self._all(way, items, at_once)

    def _chats(self, prompts: Sequence[int]) -> list[Asked]:
        rows = self._all("chat", prompts)
        if not rows and self.logprobs:
            # It may refuse only the fields that ask for probabilities.
            self.logprobs = 0
            rows = self._all("chat", prompts)
        self.is_answered = bool(rows)
        if any(row.answer for row in rows) and not any(row.tokens for row in rows):
            self.missing.setdefault("chat", because("no_probabilities_of_tokens"))
        return rows

    def _all(self, way: Way, items: Sequence[int], at_once: int = 1) -> list[Asked]:
        """Ask all items and return their rows, sorted. If every one failed, return none and set `missing`."""
        tried, end_s = list[tuple[int, Fact | None]](), self._end_s(way)
        try:
            results, late = in_threads(partial(self._one, way, tried), items, at_once, end_s)
        except BaseException:
            self.is_over = True
            raise
        rows = [row for row in results if row] + [Asked(way, item, error=str(self.late)) for item in late]
        if items and all(row.error for row in rows):
            self.missing[way] = (dict(tried).get(rows[0].item) if rows else None) or self.late
            return []
        return sorted(rows, key=lambda row: row.item)

    def _one(self, way: Way, tried: list[tuple[int, Fact | None]], item: int) -> Asked | None:
        """Ask one item and return its row; None if it is too late or the way was given up.

        Adds the item to `tried`, with why it failed.
        """
        is_vain = len(tried) >= _IN_VAIN and all(why for _, why in tried)
        is_late = time.monotonic() >= self.began_s + _ENDS[way] * self.budget_s
        if is_vain or (tried and is_late):
            return None
        why = None
        try:
            row = self._ask(way, item)
            _check(row, self.server.key)
        except BenchError as error:
            why = self._why(error)
            row = Asked(way, item, error=str(error))
        tried.append((item, why))
        return row

    def _why(self, error: BenchError) -> Fact:
        if isinstance(error, _LateError):
            return self.late
        what, sent = (error.what, error.sent) if isinstance(error, ServerError) else (str(error), "")
        return because("answered_wrongly", what=inert(what), sent=inert(sent))

    def _end_s(self, way: Way) -> float:
        """Return the instant at which requests in flight in this way are ended."""
        return self.began_s + _ENDS[way] * self.budget_s + max(self.budget_s, _LEAST_S)

    def _sender(self, way: Way) -> Ask:
        """Return a function that sends a call and waits for its answer until the way's end."""

        def send(call: HttpCall, kind: type[T]) -> T:
            left_s, server = self._end_s(way) - time.monotonic(), self.server
            try:
                return probe.ask(call, kind, server.spec.base_url, timeout_s=left_s, key=server.key)
            except ServerError as error:
                if time.monotonic() >= self._end_s(way):
                    raise _LateError(str(self.late)) from error
                raise

        return send

    # --- the ways ---

    def _ask(self, way: Way, item: int) -> Asked:
        if way == "prompt":
            return self._prompt(item)
        return self._text(item) if way == "text" else self._answer(way, item)

    def _answer(self, way: Way, item: int) -> Asked:
        server = self.server
        body = {
            **server.fields(),
            "model": server.spec.served_model,
            "messages": [{"role": "user", "content": self.items.prompts[item]}],
            "max_tokens": MAX_TOKENS,
        }
        path = server.spec.base_url.removeprefix(probe.root_of(server.spec.base_url)) + openai.API.path
        return greedy(self._sender(way), path, way, item, body, self.logprobs)

    def _prompt(self, item: int) -> Asked:
        ask = self.server.engine.prompt_tokens
        assert ask is not None
        messages = [Message("user", self.items.prompts[item])]
        ids = ask(self._sender("prompt"), self.server.spec.served_model, messages)
        return Asked("prompt", item, tuple(map(Token, ids)))

    def _text(self, item: int) -> Asked:
        ask, engine = self.server.engine.given_text, self.server.engine
        assert ask is not None
        text, model, tokens = self.items.texts[item], self.server.spec.served_model, list[Token]()
        for token in ask(self._sender("text"), model, text, engine.logprobs):
            tokens.append(token)
            if self.is_over or time.monotonic() >= self._end_s("text"):
                raise _LateError(str(self.late))
        return Asked("text", item, tuple(tokens))


def _check(row: Asked, key: str | None) -> None:
    """Raise ServerError if a row has an impossible log-probability (NaN, or above 0) or count of tokens, or
    tokens that repeat the API key."""
    names = [
        "".join(token.name for token in row.tokens),
        *(name for token in row.tokens for name in token.top),
    ]
    if any(masked_known(name, [key]) != name for name in names):
        raise ServerError("its tokens repeat the API key, and are not kept")
    if row.prompt_tokens is not None and not 0 <= row.prompt_tokens < 2**31:
        raise ServerError(f"it counts {row.prompt_tokens} tokens of a prompt")
    for token in row.tokens:
        for name, value in [(token.name, token.logprob), *token.top.items()]:
            if value is not None and not value <= _HIGHEST:
                raise ServerError(f"it gives {value:g} as the log-probability of {name!r:.40}")


def in_threads(
    ask: Callable[[int], T], items: Sequence[int], at_once: int, end_s: float
) -> tuple[list[T], list[int]]:
    """Call `ask` with each item in turn, `at_once` at a time, until `end_s` (time.monotonic).

    Return the results, and the items whose calls had not returned by then. Those go on in daemon threads: the
    threads of a ThreadPoolExecutor would keep the interpreter from exiting. Raises what `ask` raises.
    """
    pending = [(item, Future[T]()) for item in items]
    left = iter(pending)

    def work() -> None:
        for item, future in left:
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(ask(item))
            except BaseException as error:  # raised by result()
                future.set_exception(error)

    futures = [future for _, future in pending]
    try:
        for _ in range(min(at_once, len(items))):
            Thread(target=work, daemon=True).start()
        wait(futures, end_s - time.monotonic(), FIRST_EXCEPTION)
    finally:
        for future in futures:
            future.cancel()
    # One may have ended after the wait.
    done = {future for future in futures if future.done()}
    returned = [future.result() for future in futures if future in done and not future.cancelled()]
    return returned, [item for item, future in pending if future not in done]
