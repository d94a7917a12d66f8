"""Find what an ideal prefix cache would have served of each request that was sent. Pure.

The cache keeps everything that was sent on a start, in the order of sending, and each answer once it has
ended. Prompts are not stored: the same seed makes the same conversations again, and the answers are in the
requests' rows. Prompts are compared as texts, and only what they share is counted in tokens.
"""

import re
from bisect import bisect
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush

import msgspec

from serving_bench.harness.contracts import Conversation, Message, RequestRow, ToolCall, Turn
from serving_bench.harness.describe.described import tools_text
from serving_bench.harness.load.answer.chat import Decoded
from serving_bench.harness.load.answer.history import answer_message

# Returns the number of tokens of a text; None if it cannot be counted.
Count = Callable[[str], int | None]
# Stands before and after the role of a message, and in no text.
_MARK = "\0"
_HEADER = re.compile(f"{_MARK}[^{_MARK}]*{_MARK}")
# Beyond these a start's requests have no ideal: all texts are in memory, in one sorted list.
MOST_TEXTS, MOST_CHARACTERS = 200_000, 1 << 28
BY_COUNT, BY_CHARACTERS = "tokens", "characters"


class SentTexts:
    """The texts that were sent, sorted, so that those with the longest common prefix stand side by side."""

    def __init__(self) -> None:
        # The beginning of each prompt is known, since bench itself has asked each server something.
        self._texts, self._characters = sorted(map(_header, ("system", "user"))), 0

    @property
    def is_full(self) -> bool:
        return len(self._texts) > MOST_TEXTS or self._characters > MOST_CHARACTERS

    def add(self, text: str) -> None:
        """Keep a text, in place of the one that it continues, if there is one."""
        at = bisect(self._texts, text)
        if at < len(self._texts) and self._texts[at].startswith(text):
            return
        self._characters += len(text)
        if at and text.startswith(self._texts[at - 1]):
            self._characters -= len(self._texts[at - 1])
            self._texts[at - 1] = text
        else:
            self._texts.insert(at, text)

    def known(self, text: str) -> int:
        """Return the length in characters of the longest prefix that the text shares with a kept one."""
        at = bisect(self._texts, text)
        return max((_common(text, each) for each in self._texts[max(0, at - 1) : at + 1]), default=0)


def _common(text: str, other: str) -> int:
    least, most = 0, min(len(text), len(other))
    while least < most:
        middle = (least + most + 1) // 2
        if text[least:middle] == other[least:middle]:
            least = middle
        else:
            most = middle - 1
    return least


# What a start was sent, by adapter: a prefix that one has read is of no use to another.
SentTo = defaultdict[str | None, SentTexts]


def nothing_sent() -> SentTo:
    return defaultdict(SentTexts)


@dataclass(frozen=True)
class Template:
    """The tokens that a chat template adds: before the first text, by its role, and before each later one.

    What follows the last text, and asks for an answer, counts as coming before the answer's text.
    """

    first: Mapping[str, int] = field(default_factory=dict)
    later: int = 0

    def tokens(self, text: str) -> int:
        """Return the tokens that the template adds within this beginning of a prompt."""
        headers, behind = text.count(_MARK) // 2, text.partition(_MARK)[2]
        if not headers:
            return 0
        return self.first.get(behind.partition(_MARK)[0], 0) + (headers - 1) * self.later


@dataclass(frozen=True)
class Ideal:
    """The prompt tokens of a request that an ideal cache would have served.

    `by`: whether they were counted, or estimated from the share of characters.
    """

    request_id: str
    tokens: int
    by: str


@dataclass
class _Talk:
    """A conversation as far as it has come.

    `counted`: what was served of its last request, and its tokens. `over`: the requests of the next turn that
    have ended, by their part.
    """

    conversation: Conversation
    history: str = ""
    next_turn: int = 0
    counted: tuple[str, int] = ("", 0)
    over: dict[int, RequestRow] = field(default_factory=dict)


@dataclass
class Replay:
    """Replays a cell's requests, in the order of sending, against what its start had been sent before.

    `conversations`: the cell's own, from the first one on. `count` counts texts, if it can.
    """

    sent: SentTo
    conversations: Iterator[Conversation]
    template: Template
    count: Count
    is_scripted: bool
    _drawn: int = 0
    _talks: dict[int, _Talk] = field(default_factory=dict)

    def ideals(self, requests: Iterable[RequestRow]) -> Iterator[Ideal]:
        """Yield what could be served of each request that was sent and whose tokens the server counted."""
        in_flight = list[tuple[int, str, RequestRow, str, SentTexts]]()
        for row in requests:
            at_ns = row.scheduled_ns if row.sent_ns is None else row.sent_ns
            while in_flight and in_flight[0][0] <= at_ns:
                self._end(*heappop(in_flight)[2:])
            talk = self._talk(row.conversation)
            if talk is None or row.turn != talk.next_turn:  # the row of an earlier turn is lost
                continue
            if row.sent_ns is None:
                self._go_on(talk, row)
                continue
            turn = talk.conversation.turns[row.turn].requests[row.part]
            prompt = f"{tools_text(turn.form)}{talk.history}{_messages(turn)}{_header('assistant')}"
            sent = self.sent[turn.adapter]
            if sent.is_full:
                return
            if row.input_tokens is not None:
                yield self._ideal(talk, row, prompt, sent.known(prompt))
            sent.add(prompt)
            heappush(in_flight, (row.end_ns, row.request_id, row, prompt, sent))
        while in_flight:
            self._end(*heappop(in_flight)[2:])

    def _talk(self, number: int) -> _Talk | None:
        while self._drawn <= number and (conversation := next(self.conversations, None)):
            self._talks[self._drawn] = _Talk(conversation)
            self._drawn += 1
        return self._talks.get(number)

    def _end(self, row: RequestRow, prompt: str, sent: SentTexts) -> None:
        """Keep an answer, and let its conversation go on."""
        calls = _calls(row)
        answer_message = Message("assistant", row.output_text, calls[0] if calls else None)
        sent.add(prompt + row.reasoning_text + _content(answer_message))
        self._go_on(self._talks[row.conversation], row)

    def _go_on(self, talk: _Talk, row: RequestRow) -> None:
        """Note that a request has ended. After the last of its turn, continue with the first one's answer."""
        turn = talk.conversation.turns[row.turn]
        talk.over[row.part] = row
        if len(talk.over) < len(turn.requests):
            return
        first, talk.over = talk.over[0], {}
        talk.next_turn += 1
        if first.outcome != "ok" or talk.next_turn == len(talk.conversation.turns):
            del self._talks[row.conversation]
            return
        decoded = Decoded(text=first.output_text, calls=_calls(first))
        answer = answer_message(turn, decoded, is_scripted=self.is_scripted)
        talk.history += _messages(turn) + _header("assistant") + _content(answer)

    def _ideal(self, talk: _Talk, row: RequestRow, prompt: str, known_tokens: int) -> Ideal:
        served, input_tokens = prompt[:known_tokens], row.input_tokens or 0
        if served.count(_MARK) % 2:  # it ends within a header
            served = served[: served.rindex(_MARK)]
        template_tokens = self.template.tokens(served)
        tokens, by = self._counted(talk, served), BY_COUNT
        if tokens is None:
            of_texts = max(input_tokens - self.template.tokens(prompt), 0)
            tokens = round(of_texts * _characters(served) / max(_characters(prompt), 1))
            by = BY_CHARACTERS
        return Ideal(row.request_id, min(template_tokens + tokens, input_tokens), by)

    def _counted(self, talk: _Talk, served: str) -> int | None:
        """Return the tokens of the served texts. What was counted a turn before is not counted again."""
        before, tokens = talk.counted if served.startswith(talk.counted[0]) else ("", 0)
        for text in filter(None, _HEADER.split(served[len(before) :])):
            count = self.count(text)
            if count is None:
                return None
            tokens += count
        talk.counted = served, tokens
        return tokens


def _calls(row: RequestRow) -> tuple[ToolCall, ...]:
    return msgspec.json.decode(row.calls, type=tuple[ToolCall, ...]) if row.calls else ()


def _header(role: str) -> str:
    return f"{_MARK}{role}{_MARK}"


def _messages(turn: Turn) -> str:
    return "".join(_header(each.role) + _content(each) for each in turn.messages)


def _content(message: Message) -> str:
    call = f"{message.call.name} {message.call.arguments}" if message.call else ""
    return (message.content + call).replace(_MARK, " ")


def _characters(text: str) -> int:
    return len(_HEADER.sub("", text))
