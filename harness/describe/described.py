"""Say what a cell's first conversations would send: lengths, what was sent before, forms, samples. Pure.

A prompt consists of its tools, the history and the turn's messages. The chat template's own tokens are not
counted. Where a model's answers go back into the history, they count as unknown text of max_tokens tokens.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from json import dumps
from statistics import fmean, median

from serving_bench.harness.contracts import Conversation, Form, Turn
from serving_bench.harness.describe.prefixes import NOTHING, Known, Prefix, Sent
from serving_bench.harness.store.tokenizer import Tokenizer

# The most conversations of a cell, and the words after which no more are looked at: it takes seconds.
CONVERSATIONS, WORDS = 200, 2_000_000
_BINS = 12
_SAMPLES, _SAMPLE_TURNS, _SAMPLE_CHARACTERS = 3, 4, 400


@dataclass(frozen=True)
class Counting:
    """How tokens are counted: by a tokenizer, or as words of `tokens_per_piece` each. `method`: in words."""

    tokens_per_piece: float
    method: str
    tokenizer: Tokenizer | None = None

    def split(self, texts: Sequence[str]) -> Sequence[Sequence[Hashable]]:
        return self.tokenizer.split(texts) if self.tokenizer else [text.split() for text in texts]


@dataclass(frozen=True)
class Bin:
    """How many values are from `least` to `most`."""

    least: int
    most: int
    count: int


@dataclass(frozen=True)
class Histogram:
    """The distribution of whole numbers. The bins are equally wide."""

    least: int
    median: float
    mean: float
    most: int
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Hits:
    """What a prefix cache of unlimited size could serve of some requests' prompts.

    `shared_tokens` were first sent in another conversation, `own_tokens` in the same one. `hit_share` is the
    share of both in `input_tokens`, `shared_share` that of the first.
    """

    requests: int
    input_tokens: int
    shared_tokens: int
    own_tokens: int
    shared_share: float
    hit_share: float


@dataclass(frozen=True)
class FormCount:
    """A form of answers, what it asks for, and how many requests have it. `is_forced`: the server is told."""

    name: str
    asks_for: str
    is_forced: bool
    requests: int


@dataclass(frozen=True)
class Said:
    """A message of a sample, shortened. Invisible characters are written as numbers, such as \\u202e."""

    role: str
    text: str
    more_characters: int


@dataclass(frozen=True)
class Sample:
    """The beginning of a conversation. `asked`: what each of its turns wants, after its messages."""

    group: int | None
    turns: tuple[tuple[tuple[Said, ...], str], ...]
    more_turns: int


@dataclass(frozen=True)
class Traffic:
    """What the first conversations of a cell would send. Tokens are counted as `counted` says.

    `is_all`: there are no more conversations. `by_turn` is by number from 1, `by_group` by the scenario's
    groups. `left_share`: the share of requests whose user leaves unless the answer ends sooner. `parallel`:
    how many are sent at once with others of their user, up to `at_once` together.
    """

    conversations: int
    is_all: bool
    requests: int
    users: int
    counted: str
    input_tokens: Histogram
    output_tokens: Histogram
    turns: Histogram
    hits: Hits
    by_turn: dict[int, Hits]
    by_group: dict[int, Hits]
    forms: tuple[FormCount, ...]
    left_share: float
    parallel: int
    at_once: int
    samples: tuple[Sample, ...]


@dataclass(frozen=True)
class Described:
    """The traffic of one scenario under one load, as the labels name them. `seed`: of its first cell."""

    scenario: str
    load: str
    seed: int
    traffic: Traffic


@dataclass(frozen=True)
class _Request:
    turn_number: int
    turn: Turn
    group: int | None
    input_pieces: int
    known: Known


def first(conversations: Iterator[Conversation], most: int | None = None) -> tuple[list[Conversation], bool]:
    """Return the conversations that are looked at, up to `most`, and whether they are all there are."""
    chosen, words = list[Conversation](), 0
    for each in islice(conversations, min(most or CONVERSATIONS, CONVERSATIONS)):
        chosen.append(each)
        requests = [request for turn in each.turns for request in turn.requests]
        words += sum(len(message.content.split()) for request in requests for message in request.messages)
        if words > WORDS:
            return chosen, False
    return chosen, next(conversations, None) is None


def traffic(
    conversations: Sequence[Conversation], counting: Counting, users: int, *, is_scripted: bool, is_all: bool
) -> Traffic:
    """Describe conversations that `users` play at once. All answers are taken to be equally long."""
    requests = list(_requests(conversations, counting, users, is_scripted=is_scripted))
    tokens = counting.tokens_per_piece
    turns = dict[int, list[_Request]]()
    groups = dict[int, list[_Request]]()
    for each in requests:
        turns.setdefault(each.turn_number + 1, []).append(each)
        if each.group is not None:
            groups.setdefault(each.group, []).append(each)
    leave = sum(each.turn.leave_after_s is not None for each in requests)
    together = [len(turn.requests) for each in conversations for turn in each.turns]
    return Traffic(
        conversations=len(conversations),
        is_all=is_all,
        requests=len(requests),
        users=users,
        counted=counting.method,
        input_tokens=histogram([round(each.input_pieces * tokens) for each in requests]),
        output_tokens=histogram([each.turn.max_tokens for each in requests]),
        turns=histogram([len(each.turns) for each in conversations]),
        hits=_hits(requests, tokens),
        by_turn={number: _hits(turns[number], tokens) for number in sorted(turns)},
        by_group={number: _hits(groups[number], tokens) for number in sorted(groups)},
        forms=_forms(requests),
        left_share=leave / len(requests),
        parallel=sum(width for width in together if width > 1),
        at_once=max(together),
        samples=tuple(map(_sample, conversations[:_SAMPLES])),
    )


def sending_order(turns: Sequence[int], users: int) -> Iterator[tuple[int, int]]:
    """Yield (conversation, turn) of requests in the order of sending, if all answers take equally long.

    `turns`: how many each conversation has. A user whose conversation has ended begins the next one.
    """
    waiting = iter(range(len(turns)))
    playing = deque((number, 0) for number in islice(waiting, users))
    while playing:
        number, turn = playing.popleft()
        yield number, turn
        if turn + 1 < turns[number]:
            playing.append((number, turn + 1))
        else:
            playing.extend((following, 0) for following in islice(waiting, 1))


def _requests(
    conversations: Sequence[Conversation], counting: Counting, users: int, *, is_scripted: bool
) -> Iterator[_Request]:
    # By adapter: a prefix that one has read is of no use to another.
    sent, unknown = defaultdict[str | None, Sent](Sent), count(1 << 40)  # beyond all ids of tokens
    histories: list[list[Hashable]] = [[] for _ in conversations]
    # By conversation, adapter and tools: the prefix that was sent, and how much of the history is in it.
    prefixes: dict[tuple[int, str | None, str], tuple[Prefix, int]] = {}
    for number, turn_number in sending_order([len(each.turns) for each in conversations], users):
        turn, history = conversations[number].turns[turn_number], histories[number]
        for request in turn.requests:
            tools, messages, answer = _pieces(request, counting, unknown, is_scripted=is_scripted)
            place = number, request.adapter, tools_text(request.form)
            prefix, until = prefixes.get(place, (NOTHING, 0))
            prompt = [*history[until:], *messages] if place in prefixes else [*tools, *history, *messages]
            shared, whole, answered = sent[request.adapter].add(prompt, answer, number, prefix)
            yield _Request(turn_number, request, conversations[number].group, whole.tokens, shared)
            if request is turn:
                goes_on = place, answered, [*messages, *answer]
        place, answered, answer_text = goes_on
        history.extend(answer_text)
        prefixes[place] = answered, len(history)


def _pieces(
    turn: Turn, counting: Counting, unknown: Iterator[int], *, is_scripted: bool
) -> tuple[Sequence[Hashable], list[Hashable], Sequence[Hashable]]:
    """Return the pieces of a request's tools, of its messages, and of its answer."""
    answer_text = turn.answer if is_scripted else None
    if answer_text is None and turn.call:
        answer_text = f"{turn.call.name} {turn.call.arguments}"
    texts = [message.content for message in turn.messages]
    tools, *messages, answer = counting.split([tools_text(turn.form), *texts, answer_text or ""])
    if answer_text is None:
        answer = list(islice(unknown, round(turn.max_tokens / counting.tokens_per_piece)))
    return tools, [piece for message in messages for piece in message], answer


def tools_text(form: Form | None) -> str:
    """Return the tools that stand before a prompt, as text; empty if the server is told of none."""
    return dumps([vars(tool) for tool in form.tools]) if form and form.is_forced and form.tools else ""


def _hits(requests: Sequence[_Request], tokens_per_piece: float) -> Hits:
    inputs = sum(each.input_pieces for each in requests)
    shared = sum(each.known.of_others for each in requests)
    from_own = sum(each.known.own for each in requests)
    return Hits(
        requests=len(requests),
        input_tokens=round(inputs * tokens_per_piece),
        shared_tokens=round(shared * tokens_per_piece),
        own_tokens=round(from_own * tokens_per_piece),
        shared_share=shared / max(inputs, 1),
        hit_share=(shared + from_own) / max(inputs, 1),
    )


def _forms(requests: Iterable[_Request]) -> tuple[FormCount, ...]:
    requested = [each.turn.form for each in requests if each.turn.form]
    counts, forms = Counter(form.name for form in requested), {form.name: form for form in requested}
    return tuple(
        FormCount(name, _asks_for(forms[name]), forms[name].is_forced, counts[name]) for name in sorted(forms)
    )


def _asks_for(form: Form) -> str:
    if form.tools:
        return f"a call of {', '.join(tool.name for tool in form.tools)}"
    return f"JSON with {', '.join((form.schema or {}).get('properties', {})) or 'a schema'}"


def histogram(values: Sequence[int]) -> Histogram:
    """Return the distribution in up to 12 bins, whose edges are multiples of 1, 2 or 5 times 10, 100 ..."""
    least, most = min(values), max(values)
    width = next(
        step * 10**power
        for power in count()
        for step in (1, 2, 5)
        if most // (step * 10**power) - least // (step * 10**power) < _BINS
    )
    counts = Counter(value // width for value in values)
    bins = tuple(
        Bin(place * width, (place + 1) * width - 1, counts[place])
        for place in range(least // width, most // width + 1)
    )
    return Histogram(least, median(values), fmean(values), most, bins)


def _sample(conversation: Conversation) -> Sample:
    turns = tuple(
        (tuple(_said(message.role, message.content) for message in turn.messages), _asked(turn))
        for turn in conversation.turns[:_SAMPLE_TURNS]
    )
    return Sample(conversation.group, turns, len(conversation.turns) - len(turns))


def _said(role: str, text: str) -> Said:
    cut = text[:_SAMPLE_CHARACTERS]
    visible = "".join(each if each.isprintable() or each == "\n" else f"\\u{ord(each):04x}" for each in cut)
    return Said(role, visible, len(text) - len(cut))


def _asked(turn: Turn) -> str:
    parts = [f"up to {turn.max_tokens} tokens"]
    if turn.form:
        parts.append(_asks_for(turn.form))
    if turn.think_time_s:
        parts.append(f"after {turn.think_time_s:.2g} s of thought")
    if turn.leave_after_s is not None:
        parts.append(f"leaves after {turn.leave_after_s:.2g} s")
    if turn.parallel:
        parts.append(f"at once with {len(turn.parallel)} others")
    return ", ".join(parts)
