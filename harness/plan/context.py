"""Say which contexts are too short for what would be sent. Reads nothing but a scenario's file."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from math import ceil
from random import Random

from serving_bench.harness.contracts import Conversation, PlannedStart, Turn
from serving_bench.harness.errors import UserError
from serving_bench.harness.plan.terms import BLOCK_TOKENS
from serving_bench.scenarios import SCENARIOS, TOKENS_PER_WORD

# A word has at least one token; common tokenizers make up to 1.3 of it, the chat template's share included.
_MOST_PER_WORD = 1.3
_MEASURED = 8
_MARGIN, _TEMPLATE_TOKENS = 1.05, 64


def sizes_of(conversation: Conversation, *, is_scripted: bool, rate: float = 1.0) -> tuple[int, int]:
    """Return the least and the likely number of tokens of a conversation's largest request with its answer.

    The least counts one token a word and leaves out the answers before it unless they are scripted. The
    likely one counts `rate` tokens a word, and all answers in full.
    """
    least, least_before = 0, 0
    likely, likely_before = 0.0, 0.0
    for turn in conversation.turns:
        for request in turn.requests:
            words = _words(request)
            least = max(least, least_before + words + request.max_tokens)
            likely = max(likely, likely_before + words * rate + request.max_tokens)
        words = _words(turn)
        scripted = len(turn.answer.split()) if is_scripted and turn.answer is not None else None
        least_before += words + (scripted or 0)
        likely_before += words * rate + (turn.max_tokens if scripted is None else scripted * rate)
    return least, round(likely)


def _words(turn: Turn) -> int:
    return sum(len(message.content.split()) for message in turn.messages)


def check_context(starts: Sequence[PlannedStart], contexts: Mapping[str, int]) -> None:
    """Raise UserError if a context holds none of a scenario's conversations, or not its largest request.

    It looks at the first conversations. The largest request is known only if the scenario's options say it.
    `contexts`: the longest of each model, where known.
    """
    models = dict.fromkeys(start.deployment.model for start in starts)
    most = min(filter(None, map(contexts.get, models)), default=None)
    for line, is_refused in _too_short(starts, most):
        if is_refused:
            raise UserError(line)


def context_lines(starts: Sequence[PlannedStart]) -> list[str]:
    """Return a line for each context that is too short for some of the conversations."""
    return [line for line, _ in _too_short(starts)]


def _too_short(starts: Sequence[PlannedStart], most: int | None = None) -> Iterator[tuple[str, bool]]:
    """Yield a line for each context that is too short for a scenario, and whether to refuse a new run for it.

    `most`: the longest context that all models support.
    """
    terms = {start.deployment.terms for start in starts}
    lengths = sorted({each.context_length for each in terms if each.context_length and not each.base_url})
    cells = {cell.scenario.label: cell for start in starts[:1] for cell in reversed(start.cells)}
    for label, cell in cells.items():
        largest = SCENARIOS[cell.scenario.name].largest(cell.scenario.options)
        if largest is not None:
            yield from (
                (_needs_more(label, length, largest, most), True) for length in lengths if largest > length
            )
            continue
        options, is_scripted = cell.scenario.options, cell.scenario.options.history == "scripted"
        rate = (options.tokens_per_word or TOKENS_PER_WORD) if hasattr(options, "tokens_per_word") else 1.0
        # Made as the cell's load will make them.
        conversations = SCENARIOS[cell.scenario.name].conversations(options, Random(cell.seed))
        first = islice(conversations, min(_MEASURED, cell.load.conversations or _MEASURED))
        sizes = (sizes_of(each, is_scripted=is_scripted, rate=rate) for each in first)
        least, likely = zip(*sizes, strict=True)
        needed = int(max(likely) * max(_MOST_PER_WORD / rate, _MARGIN))
        would_hold = 1 << needed.bit_length()
        if most is not None and needed <= most:
            would_hold = min(would_hold, most)
        rate_words = "at 1 token a word" if rate == 1 else f"at {rate:g} tokens a word"
        for length in lengths:
            line, count = f"engine.context_length={length}: ", sum(tokens > length for tokens in likely)
            if min(least) > length:
                need = f"holds no conversation of {label}: they need {min(least)} tokens or more"
                remedy = f"give {would_hold}, or shorter conversations"
                if most is not None and would_hold > most:
                    remedy = f"the model has {most}: give shorter conversations"
                yield f"{line}{need}, at 1 token a word; {remedy}", True
            elif count:
                longer = (
                    f"{count} of the first {len(likely)} conversations of {label} are longer, up to about"
                )
                fate = f"{rate_words}: their last requests fail or are cut"
                yield f"{line}{longer} {max(likely)} tokens, {fate}; {would_hold} would hold them", False


def _needs_more(label: str, length: int, largest: int, most: int | None) -> str:
    # The lengths of texts are right to some percent, and the chat template adds its own.
    blocks = ceil((largest * _MARGIN + _TEMPLATE_TOKENS) / BLOCK_TOKENS)
    would_hold = blocks * BLOCK_TOKENS
    remedy = f"give {would_hold}, or shorter requests"
    if most is not None and would_hold > most:
        remedy = f"they need about {would_hold}, and the model has {most}: give shorter ones"
    what = f"requests of {label} have up to {largest} tokens with the answer"
    return f"engine.context_length={length}: {what}; {remedy}"
